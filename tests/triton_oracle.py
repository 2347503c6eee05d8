"""What the tests of Triton kernels in the interpreter share: inputs, poison, the float64 oracle."""

import os
from collections.abc import Callable, Iterator

import pytest
import torch
from helpers import smooth_volume
from torch import Tensor

from triton_reg.ops._triton import (
    adaptive_filter,
    box,
    compose,
    cost_entropy,
    coupled_argmin,
    filter_weights,
    local_contrast,
    mind_ssc,
    warp,
)
from triton_reg.ops.resize import Shape

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("run through test_triton.py, which sets TRITON_INTERPRET", allow_module_level=True)

_WHOLE_VOLUME, _WHOLE_PLANE = 2**16, 2**11
CASES: tuple[tuple[Shape, int], ...] = (((4, 5, 7), 1), ((5, 3, 6), 3))
cases = pytest.mark.parametrize(("shape", "pairs"), CASES, ids=str)
EPSILON = torch.finfo(torch.float32).eps
HALF_EPSILON = torch.finfo(torch.float16).eps


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """New memory holds NaN, or the largest integer: what a kernel does not write is seen."""
    torch.use_deterministic_algorithms(True)
    poison = torch.empty(3).new_empty(2), torch.empty(2, dtype=torch.int32)
    assert poison[0].isnan().all()
    assert (poison[1] == torch.iinfo(torch.int32).max).all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def large_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that take whole volumes: the interpreter pays for each operation, not each lane.

    What lies at the borders of blocks is for the tests of single kernels.
    """
    for module in (box, compose, coupled_argmin, filter_weights, local_contrast, mind_ssc, warp):
        monkeypatch.setattr(module, "_BLOCK", _WHOLE_VOLUME)
    monkeypatch.setattr(adaptive_filter, "_BLOCK", _WHOLE_PLANE)
    monkeypatch.setattr(adaptive_filter, "_AXIS_BLOCK", _WHOLE_VOLUME)
    monkeypatch.setattr(adaptive_filter, "_PLANES", 64)
    monkeypatch.setattr(cost_entropy, "_ENTROPY_BLOCK", _WHOLE_VOLUME)
    monkeypatch.setattr(cost_entropy, "voxels_a_program", lambda channels: 2**19 // channels)


def batch(shape: Shape, channels: int, pairs: int, seed: int) -> Tensor:
    volumes = [smooth_volume(shape, seed + 10 * pair, channels) for pair in range(pairs)]
    return surrounded(torch.cat(volumes))


def vectors(shape: Shape, longest: float, pairs: int, seed: int) -> Tensor:
    return surrounded(longest * (2 * batch(shape, 3, pairs, seed) - 1))


def surrounded(tensor: Tensor) -> Tensor:
    """The same values with NaN before and after them in memory, for reads that go astray."""
    memory = tensor.new_full((tensor.numel() + 512,), float("nan"))
    inner = memory[256:-256]
    inner.copy_(tensor.flatten())
    return inner.view(tensor.shape)


def assert_as_good_as_float32(
    actual: Tensor, definition: Callable[..., Tensor], *inputs: Tensor
) -> None:
    """At most twice the definition's own float32 error, both against float64."""
    truth = definition(*(one.double() for one in inputs))
    own_error = (definition(*inputs).double() - truth).abs().max()
    error = (actual.view(truth.shape).double() - truth).abs().max()
    assert error <= 2 * own_error + 8 * EPSILON * truth.abs().max()


def unpacked(packed: Tensor) -> Tensor:
    """The labels ``[B, 2 words, N]`` in float32 of ``[B, words, N]`` int32."""
    labels = packed.contiguous().view(torch.float16).unflatten(2, (-1, 2))
    return labels.permute(0, 1, 3, 2).flatten(1, 2).float()


def packed(labels: Tensor) -> Tensor:
    """The reverse of :func:`unpacked`."""
    words = labels.half().unflatten(1, (-1, 2)).permute(0, 1, 3, 2).contiguous()
    return words.view(torch.int32)[..., 0]
