"""The same bits from kernels that a process has compiled and from those that it has loaded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import PROJECT

SCRIPT = Path(__file__).with_name("bits_of_kernels.py")


def digests(cache: Path) -> dict[str, str]:
    """Those of a process that keeps its kernels in this folder."""
    threads = {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, SCRIPT],
        cwd=PROJECT,
        env=os.environ | threads | {"NUMBA_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(ran.stdout)


@pytest.mark.slow
def test_kernels_give_the_same_bits_compiled_and_loaded(tmp_path: Path) -> None:
    compiled = digests(tmp_path)
    assert any(tmp_path.rglob("*.nbc"))
    assert len(compiled) > 10
    assert digests(tmp_path) == compiled
