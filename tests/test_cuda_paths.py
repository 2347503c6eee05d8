"""The host's side of GPU runs, without a GPU: ``cuda_paths_*.py``, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import PROJECT

pytest.importorskip("triton", reason="triton has no package for this platform")

FILES = {path.stem: str(path) for path in Path(__file__).parent.glob("cuda_paths_*.py")}
LONGEST = "cuda_paths_engine"


def assert_passes(*files: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        cwd=PROJECT,
        # kernels are not run, but only in the interpreter they need no GPU to be launched
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-10_000:] + ran.stderr[-2_000:]
    assert " passed" in ran.stdout
    assert "skipped" not in ran.stdout


@pytest.mark.slow
def test_runs_do_what_a_gpu_takes() -> None:
    assert_passes(FILES[LONGEST])


@pytest.mark.slow
def test_methods_measures_and_training_do_what_a_gpu_takes() -> None:
    # in one process, for its start takes longer than most of them
    assert_passes(*(FILES[name] for name in sorted(FILES.keys() - {LONGEST})))
