"""Test files that need Triton's interpreter, in a process of their own."""

import os
import subprocess
import sys

from helpers import PROJECT


def assert_passes_in_the_interpreter(*files: str) -> None:
    """Run them with pytest; each test must pass, none may be skipped."""
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
