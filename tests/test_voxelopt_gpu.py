"""What can be said about runs on a GPU where there is none: bytes, batches, and the benchmark."""

import csv
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="triton has no package for this platform")

from benchmarks import gpu_sections, gpu_timing, voxelopt_parity
from benchmarks.voxelopt_roofline import Storage, kernel_bytes, launches
from triton_reg.ops._triton.batches import pairs_a_launch
from triton_reg.ops.register_pyramid import register_pyramid

HALF, FULL = (96, 80, 128), (192, 160, 256)


def test_bytes_are_those_of_the_plan() -> None:
    """The roofline of 96 x 80 x 128 voxels with 14 channels in fp16, in MB."""
    once, times = kernel_bytes(HALF, Storage.of("fast", 16)), launches(3, 7, 7)
    planned = {"up_warp": 75, "cost_entropy": 122, "weights": 6, "filter": 336, "argmin": 399}
    planned |= {"compose": 35}
    for name, megabytes in planned.items():
        assert once[name] * times[name] == pytest.approx(1e6 * megabytes, abs=0.6e6), name
    assert times["filter_codes"] + times["filter_vectors"] == 21
    exact = kernel_bytes(HALF, Storage.of("exact", 16))
    assert exact["cost_entropy"] / once["cost_entropy"] == pytest.approx(1.94, abs=0.01)


def pyramid_voxels(shape: tuple[int, int, int]) -> list[int]:
    return [shape[0] * shape[1] * shape[2] // 8**level for level in range(5)]


@pytest.mark.parametrize(
    ("shape", "batch", "expected"),
    [
        (HALF, 64, (2, 16, 64, 64, 64)),
        (HALF, 1000, (2, 16, 64, 64, 64)),
        (HALF, 1, (1, 1, 1, 1, 1)),
        (HALF, 5, (2, 8, 8, 8, 8)),
        (FULL, 64, (1, 2, 16, 64, 64)),
        ((512, 512, 256), 3, (1, 1, 2, 4, 4)),
    ],
)
def test_coarse_levels_take_many_pairs_at_once(
    shape: tuple[int, int, int], batch: int, expected: tuple[int, ...]
) -> None:
    voxels = pyramid_voxels(shape)
    sizes = [200 * size for size in voxels]
    assert pairs_a_launch(batch, voxels, sizes, limit_bytes=2**40) == expected


def test_little_memory_means_smaller_batches() -> None:
    voxels = pyramid_voxels(HALF)
    sizes = [200 * size for size in voxels]
    assert pairs_a_launch(64, voxels, sizes, limit_bytes=sizes[0]) == (1, 8, 64, 64, 64)
    assert pairs_a_launch(64, voxels, sizes, limit_bytes=sizes[0] // 2) == (1, 4, 32, 64, 64)


def test_a_row_knows_its_floor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_timing, "RESULTS", tmp_path)
    report = gpu_timing.Report(
        {"card": "Card 1 (PCIe)", "torch": "2", "triton": "3", "date": ""}, "voxelopt_gpu"
    )
    report.add("kernel", "before", time_us=5.0, bytes=4000)
    report.bytes_per_us = 1000.0
    report.add("kernel", "after", time_us=5.0, bytes=4000, shape=HALF, batch=1)
    report.write()
    written = (tmp_path / "voxelopt_gpu_card-1-pcie.csv").read_text()
    rows = list(csv.DictReader(written.splitlines()))
    assert [(row["name"], row["floor_us"], row["ratio"]) for row in rows] == [
        ("before", "", ""), ("after", "4.0", "1.25"),
    ]  # fmt: skip


def test_a_failed_section_leaves_the_others_alone(capsys: pytest.CaptureFixture[str]) -> None:
    report = gpu_timing.Report({"card": "none"}, "voxelopt_gpu")

    def broken(_: gpu_timing.Report) -> None:
        """Fails."""
        raise RuntimeError("out of order")

    assert not gpu_sections.run_section(broken, report)
    assert "RuntimeError: out of order" in capsys.readouterr().err
    assert gpu_sections.run_section(lambda one: one.add("a", "b", time_us=1.0), report)
    assert len(report.rows) == 1


def stored(channels: int = 3, dtype: torch.dtype = torch.float16) -> tuple[Tensor, ...]:
    return torch.empty(2, 0, channels, 4, 4, 5), torch.zeros(2, 4, 4, 6, 8, dtype=dtype)


SETTINGS = voxelopt_parity.settings_of("released", "fast")
ONE = torch.zeros(1, 2, dtype=torch.int32)


@pytest.mark.parametrize(
    ("moving", "pairs", "message"),
    [
        (stored(channels=4), ONE, "must share shapes and dtypes"),
        (stored(dtype=torch.float32), ONE, "must share shapes and dtypes"),
        (stored(), torch.zeros(2, dtype=torch.int32), r"pairs must be \[B, 2\], got \[2\]"),
    ],
)
def test_pyramids_that_do_not_fit_are_refused(
    moving: tuple[Tensor, ...], pairs: Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        register_pyramid(stored(), moving, pairs, SETTINGS)


def test_a_cpu_is_told_what_reads_pyramids() -> None:
    with pytest.raises(NotImplementedError, match="no kernels for tensors on cpu, only on cuda"):
        register_pyramid(stored(), stored(), ONE, SETTINGS)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_kernels_agree_with_the_definitions_on_a_gpu() -> None:
    device = torch.device("cuda")
    for shape in ((48, 40, 64), (50, 43, 61)):
        voxelopt_parity.check_pairs(shape, device)
        voxelopt_parity.check_operations(shape, device)
    for precision in ("exact", "fast"):
        voxelopt_parity.check_batches((50, 43, 61), device, precision)
