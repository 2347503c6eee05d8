"""What the GPU benchmarks need: a machine that has a card has little else."""

import subprocess
import sys

import pytest
import torch
from helpers import PROJECT

pytest.importorskip("triton", reason="triton has no package for this platform")

# what registration of tensors is not allowed to need on a machine that only has a GPU
ABSENT = (
    "cohort", "dask", "distributed", "llvmlite", "matplotlib", "nibabel", "numba", "polars",
    "pyarrow", "pydantic", "rich", "safetensors", "scipy", "typer", "zarr",
)  # fmt: skip
WITHOUT_THEM = f"""
import runpy, sys
for name in {ABSENT}:
    sys.modules[name] = None
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["voxelopt_gpu", "pdd_gpu", "dio_gpu", "metrics_gpu"])
def test_the_benchmark_needs_nothing_but_torch_triton_and_numpy(name: str) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU: the benchmark would run")
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_THEM, f"benchmarks/{name}.py"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2, ran.stderr
    assert "no GPU was found: torch" in ran.stderr
