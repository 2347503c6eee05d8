"""DIO on a GPU: bytes where there is none, parity where there is one."""

import math

import pytest
import torch

pytest.importorskip("triton", reason="triton has no package for this platform")

from benchmarks import dio_parity
from benchmarks.dio_gpu_cases import Run


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
