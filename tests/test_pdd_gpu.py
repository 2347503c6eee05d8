"""PDD-Net on a GPU: bytes where there is none, parity where there is one."""

import math

import pytest
import torch

pytest.importorskip("triton", reason="triton has no package for this platform")

from benchmarks import pdd_parity
from benchmarks.pdd_gpu_cases import STAGES


def test_bytes_of_a_search() -> None:
    """29³ control points with 11³ labels: 130 MB of costs, read or written fifteen times."""
    first = STAGES[0]
    assert first.volume_bytes == 29**3 * 1344 * 4
    once, volume = first.bytes(keep=False), first.volume_bytes
    features = 4 * 24 * (math.prod(first.shape) + 29**3)
    assert once["cost"] == volume + features
    assert first.match_bytes(keep=False) == 15 * volume + features + 12 * 4 * 29**3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("name", pdd_parity.SETTINGS)
def test_a_match_agrees_with_its_definition_on_a_gpu(name: str) -> None:
    device = torch.device("cuda")
    pdd_parity.check_match(name, (13, 17, 15), (6, 5, 19), 5, 5, device)
    pdd_parity.check_batch(name, (13, 17, 15), (6, 5, 19), device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("graphs", [False, True])
def test_a_fit_agrees_with_its_definition_on_a_gpu(graphs: bool) -> None:
    pdd_parity.check_fit((9, 11, 7), 7, 50, torch.device("cuda"), graphs)
