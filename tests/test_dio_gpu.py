"""DIO on a GPU: bytes and the benchmark where there is none, parity where there is one."""

import math
import subprocess
import sys

import pytest
import torch
from helpers import PROJECT

pytest.importorskip("triton", reason="triton has no package for this platform")

from benchmarks import dio_parity
from benchmarks.dio_gpu_cases import Run

# what registration of tensors is not allowed to need on a machine that only has a GPU
ABSENT = (
    "cohort", "dask", "distributed", "llvmlite", "matplotlib", "nibabel", "numba", "polars",
    "pyarrow", "pydantic", "rich", "safetensors", "scipy", "typer", "zarr",
)  # fmt: skip
WITHOUT_THEM = f"""
import runpy, sys
for name in {ABSENT}:
    sys.modules[name] = None
runpy.run_path("benchmarks/dio_gpu.py", run_name="__main__")
"""


def test_the_benchmark_needs_nothing_but_torch_triton_and_numpy() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU: the benchmark would run")
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_THEM],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2, ran.stderr
    assert "no GPU was found: torch" in ran.stderr


def test_bytes_of_a_pair() -> None:
    """Features once, vectors and gradient; the moments, and what a step reads and writes."""
    run = Run()
    voxels = math.prod(run.shape)
    once = run.bytes(run.shape)
    assert once["force, mse"] == voxels * (2 * 16 * 4 + 24)
    assert once["step, compose"] == voxels * 12 * 12
    iterations = sum(n / f**3 for n, f in zip(run.iterations, run.factors, strict=True))
    assert run.descent_bytes("compose") == iterations * voxels * (2 * 16 * 4 + 24 + 144)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("name", dio_parity.FORCES)
def test_a_force_agrees_with_its_definition_on_a_gpu(name: str) -> None:
    dio_parity.check_force(name, (13, 17, 15), (16, 9, 12), torch.device("cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("name", dio_parity.STEPS)
def test_a_step_agrees_with_its_definition_on_a_gpu(name: str) -> None:
    dio_parity.check_step(name, (13, 17, 15), torch.device("cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("graphs", [False, True])
def test_a_descent_gives_the_same_bits_on_a_gpu(graphs: bool) -> None:
    dio_parity.check_descent((21, 17, 15), torch.device("cuda"), graphs)
