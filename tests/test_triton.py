"""The Triton kernels without a GPU: ``triton_interpreter*.py``, in a process of their own."""

from pathlib import Path

import pytest
from golden.vectors import Vectors
from interpreted import assert_passes_in_the_interpreter

pytest.importorskip("triton", reason="triton has no package for this platform")

FILES = {path.stem: str(path) for path in Path(__file__).parent.glob("triton_interpreter*.py")}
QUICK = "triton_interpreter_operators"


@pytest.mark.slow
def test_the_operators_run_their_kernels() -> None:
    assert_passes_in_the_interpreter(FILES[QUICK])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FILES.keys() - {QUICK}))
def test_the_kernels_are_their_definitions(name: str) -> None:
    if name.endswith("golden"):
        Vectors("mindssc.npz")  # skips, or fails, where there are no golden vectors
    assert_passes_in_the_interpreter(FILES[name])
