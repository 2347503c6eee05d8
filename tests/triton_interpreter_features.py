"""The Triton kernels that make features against the plain-torch definitions, in the interpreter.

Run by ``test_triton.py``, see ``triton_interpreter.py``.
"""

import pytest
import torch
from triton_oracle import EPSILON, assert_as_good_as_float32, batch, poisoned_memory

from triton_reg.ops._triton.local_contrast import local_contrast
from triton_reg.ops._triton.mind_ssc import mind_ssc
from triton_reg.ops.local_contrast import local_contrast_reference
from triton_reg.ops.mind_ssc import CHANNEL_OFFSETS, mind_ssc_reference

# lanes that a mask switches off still compute, on whatever they hold
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

__all__ = ["poisoned_memory"]  # a fixture for all tests here

SHAPE = (5, 3, 7)


@pytest.mark.parametrize(("channels", "radius", "dilation"), [(1, 1, 2), (2, 2, 1), (1, 0, 9)])
def test_mind_is_the_definition(channels: int, radius: int, dilation: int) -> None:
    volume = batch(SHAPE, channels, 2 if radius == 1 else 1, seed=1)
    found = mind_ssc(volume, radius, dilation, CHANNEL_OFFSETS)
    assert_as_good_as_float32(found, lambda v: mind_ssc_reference(v, radius, dilation), volume)
    assert torch.equal(mind_ssc(volume[-1:], radius, dilation, CHANNEL_OFFSETS), found[-1:])


def test_mind_crosses_blocks() -> None:
    volume = batch((7, 9, 6), 1, 1, seed=2)
    found = mind_ssc(volume, 1, 2, CHANNEL_OFFSETS)
    assert_as_good_as_float32(found, lambda v: mind_ssc_reference(v, 1, 2), volume)


def test_mind_of_a_constant_volume_is_one() -> None:
    assert (mind_ssc(torch.full((1, 1, *SHAPE), 0.3), 1, 2, CHANNEL_OFFSETS) == 1).all()


def test_local_contrast_is_the_definition() -> None:
    for shape, widths in ((SHAPE, (3, 9)), ((7, 9, 6), (5,))):
        volume = batch(shape, 1, 2, seed=3)
        found = local_contrast(volume, widths, 0.02)
        exact = local_contrast_reference(volume.double(), widths, 0.02)
        own = (local_contrast_reference(volume, widths, 0.02) - exact).abs().max()
        assert (found - exact).abs().max() <= 2 * (own + EPSILON * exact.abs().max())
        assert torch.equal(local_contrast(volume[1:], widths, 0.02), found[1:])
