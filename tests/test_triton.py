"""The Triton kernels without a GPU: ``triton_interpreter*.py``, in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import PROJECT

pytestmark = pytest.mark.slow
pytest.importorskip("triton", reason="triton has no package for this platform")


def test_the_kernels_are_their_definitions_in_the_interpreter() -> None:
    files = sorted(map(str, Path(__file__).parent.glob("triton_interpreter*.py")))
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
