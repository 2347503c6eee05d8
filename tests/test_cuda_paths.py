"""The host's side of GPU runs, without a GPU: ``cuda_paths_*.py``, in processes of their own.

Kernels are not run, but only in Triton's interpreter they need no GPU to be launched.
"""

from pathlib import Path

import pytest
from interpreted import assert_passes_in_the_interpreter

pytest.importorskip("triton", reason="triton has no package for this platform")

FILES = {path.stem: str(path) for path in Path(__file__).parent.glob("cuda_paths_*.py")}
LONGEST = "cuda_paths_engine"


@pytest.mark.slow
def test_runs_do_what_a_gpu_takes() -> None:
    assert_passes_in_the_interpreter(FILES[LONGEST])


@pytest.mark.slow
def test_methods_measures_and_training_do_what_a_gpu_takes() -> None:
    # in one process, for its start takes longer than most of them
    assert_passes_in_the_interpreter(*(FILES[name] for name in sorted(FILES.keys() - {LONGEST})))
