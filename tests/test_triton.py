"""The Triton kernels without a GPU: ``triton_interpreter*.py``, in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from golden.vectors import Vectors
from helpers import PROJECT

pytest.importorskip("triton", reason="triton has no package for this platform")

FILES = {path.stem: str(path) for path in Path(__file__).parent.glob("triton_interpreter*.py")}
QUICK = "triton_interpreter_operators"


def assert_passes_in_the_interpreter(*files: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        cwd=PROJECT,
        # the interpreter is chosen when triton is imported; tiny arrays want one thread
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-10_000:] + ran.stderr[-2_000:]
    assert " passed" in ran.stdout
    assert "skipped" not in ran.stdout


@pytest.mark.slow
def test_the_operators_run_their_kernels() -> None:
    assert_passes_in_the_interpreter(FILES[QUICK])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FILES.keys() - {QUICK}))
def test_the_kernels_are_their_definitions(name: str) -> None:
    if name.endswith("golden"):
        Vectors("mindssc.npz")  # skips, or fails, where there are no golden vectors
    assert_passes_in_the_interpreter(FILES[name])
