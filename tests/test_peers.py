"""Displacements of other tools mean what ours mean, and rows say what was measured."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ellipsoids, smooth_volume, tiny_cohort

from benchmarks import peers
from benchmarks.peers import Case, as_smooth, measured, read_case, ring, run_tool
from benchmarks.peers_ours import AS_THEY_COME, OURS
from benchmarks.peers_plot import draw
from cohort.data.geometry import Grid
from cohort.data.store import CohortStore, Subject
from cohort.studies.bench.peers_tools import TOOLS, from_itk
from triton_reg.ops.warp import warp

SHAPE, SHIFT = (48, 56, 40), (2.0, -1.0, 3.0)


def outcome(displacement: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    costs = {key: np.array(1.5) for key in ("register_s", "register_cpu_s", "peak_mib")}
    found = {"displacement": displacement.astype(np.float32), "labels": labels.astype(np.int32)}
    return {**costs, **found, "version": np.array("tool 1")}


def shifted_case() -> Case:
    """A textured ball, and the same moved by ``SHIFT`` voxels: u is SHIFT where there is something
    to see; steps and spacings differ along all axes."""
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in SHAPE), indexing="ij")
    window = torch.from_numpy(np.clip(2 - 2.5 * np.sqrt(sum(axis**2 for axis in axes)), 0, 1))
    fixed = 1000 * (0.3 + smooth_volume(SHAPE, 3)) * window.float()
    labels = torch.from_numpy(ellipsoids(SHAPE, (0, 0, 0)).astype(np.float32))[None, None]
    back = -torch.tensor(SHIFT).view(1, 3, 1, 1, 1).expand(1, 3, *SHAPE)
    both = torch.cat((fixed, labels), 1)
    volumes, maps = torch.cat((both, warp(both, back, fixed_shape=SHAPE))).unbind(1)
    return Case(volumes.numpy(), maps.numpy().astype(np.int32), (2.0, 1.5, 2.5), [(0, 1)])


@pytest.mark.slow
@pytest.mark.parametrize("name", [*AS_THEY_COME, *TOOLS])
def test_a_known_translation_is_found_in_voxels_and_tensor_order(name: str, tmp_path: Path) -> None:
    if name in TOOLS and not peers.PEERS_PYTHON.exists():
        pytest.skip(f"no environment of the other tools at {peers.PEERS_PYTHON}: run `make peers`")
    case = shifted_case()
    outcomes = run_tool(name, case, tmp_path)
    inner = outcomes[0]["displacement"][(slice(None), *(slice(16, -16) for _ in SHAPE))]
    assert np.median(inner, axis=(1, 2, 3)) == pytest.approx(SHIFT, abs=0.8)
    row = measured(name, case, outcomes)
    assert float(row["dice_mean"]) > float(row["dice_before"]) + 0.05
    assert float(row["dice_mean"]) > 0.9
    assert 0 < float(row["register_s"]) < 60


def test_a_field_that_means_something_else_is_refused() -> None:
    case = shifted_case()
    true = np.broadcast_to(np.reshape(SHIFT, (3, 1, 1, 1)), (3, *SHAPE))
    row = measured("greedy NCC", case, [outcome(true, case.labels[0])])
    assert float(row["dice_mean"]) > 0.99
    assert (row["sdlogj"], row["folding"]) == ("0.0000", "0.0000")
    for wrong in (-true, true[::-1]):
        with pytest.raises(RuntimeError, match=r"pair 0, 1 .* the displacement means something"):
            measured("greedy NCC", case, [outcome(wrong, case.labels[0])])


def test_itk_vectors_become_voxels_in_tensor_order() -> None:
    vectors_mm = np.broadcast_to([7.5, -1.5, 4.0], (4, 5, 6, 3))  # x, the last array axis, first
    voxels = from_itk(vectors_mm, (2.0, 1.5, 2.5))
    assert voxels.shape == (3, 4, 5, 6)
    assert voxels[:, 1, 2, 3].tolist() == [2.0, -1.0, 3.0]


def test_of_each_family_the_nearest_in_smoothness_stands_beside_a_peer() -> None:
    smooth = {
        "VoxelOpt": "0.20",
        "VoxelOpt, b": "0.26",
        "DIO": "0.27",
        "DIO, c": "0.22",
        "PDD": "0.24",
    }
    ours = [{"tool": name, "sdlogj": own} for name, own in smooth.items()]
    beside = as_smooth({"sdlogj": "0.24"}, ours)
    assert beside == {"voxelopt_as_smooth": "VoxelOpt, b", "dio_as_smooth": "DIO, c"}
    assert as_smooth({"sdlogj": "0.24"}, ours[:1]) == {"voxelopt_as_smooth": "VoxelOpt"}


def test_the_picture_names_ours_as_they_come_and_every_peer(tmp_path: Path) -> None:
    tools = (*AS_THEY_COME, "DIO, steps of 0.3", "greedy NCC")
    with (tmp_path / "peers.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ("tool", "dice_mean", "sdlogj", "register_cpu_s"))
        writer.writeheader()
        for place, tool in enumerate(tools):
            writer.writerow(
                dict(zip(writer.fieldnames, (tool, 0.6, 0.2 + place / 50, 1), strict=True))
            )
    draw(tmp_path / "peers.csv", tmp_path / "peers.svg")
    drawn = (tmp_path / "peers.svg").read_text()
    assert [tool for tool in tools if f"<!-- {tool} -->" not in drawn] == ["DIO, steps of 0.3"]


def test_neighbours_are_paired_and_the_last_with_the_first() -> None:
    assert ring(3, 3) == [(0, 1), (1, 2), (2, 0)]
    assert ring(6, 2) == [(0, 1), (1, 2)]
    with pytest.raises(SystemExit, match="--pairs: got 4, 3 subjects have 1 to 3 pairs"):
        ring(3, 4)


def test_a_store_is_read_in_the_order_of_its_subjects(tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "cohort.zarr")
    case = read_case(tmp_path / "cohort.zarr", 4)
    assert case.pairs == [(0, 1), (1, 2), (2, 3), (3, 0)]
    assert case.spacing_mm == (2.0, 2.0, 2.0)
    assert np.array_equal(case.volumes[2], store.read(store.subject_ids[2]).volume)
    assert case.labels.max() == 2
    assert len(read_case(tmp_path / "cohort.zarr", 2).volumes) == 3


def test_a_store_without_labels_is_refused(tmp_path: Path) -> None:
    grid = Grid.axis_aligned((16, 16, 16), (1, 1, 1), (0, 0, 0))
    store = CohortStore.create(tmp_path / "bare.zarr", grid, settings={})
    for name in ("sub-a", "sub-b"):
        store.commit(Subject(name, np.ones((16, 16, 16), np.float32)), {"source": None})
    with pytest.raises(SystemExit, match="Dice needs labels, and sub-a, sub-b has none"):
        read_case(store.path, 2)


def test_a_tool_that_fails_is_reported_and_the_rest_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = shifted_case()

    def run(name: str, case: Case, folder: Path) -> list[dict[str, np.ndarray]]:
        if name == "demons":
            raise RuntimeError("demons failed:\nno module")
        return [outcome(np.zeros((3, *SHAPE)), case.labels[1])]

    monkeypatch.setattr(peers, "run_tool", run)
    ours = next(iter(OURS))
    failed = peers.run_all(case, [ours, "demons", "greedy NCC"], tmp_path / "peers.csv")
    assert failed == ["demons"]
    assert "left out: demons failed" in capsys.readouterr().err
    lines = (tmp_path / "peers.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["tool", ours, "greedy NCC"]


def test_a_process_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PEERS_PYTHON", sys.executable)
    with pytest.raises(RuntimeError, match=r"(?s)no tool failed:.*KeyError: 'no tool'"):
        run_tool("no tool", shifted_case(), tmp_path)
