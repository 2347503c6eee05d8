"""The GPU side of each registered operator, given CPU tensors, against its reference."""

from dataclasses import astuple

import pytest
import torch
from helpers import smooth_volume

from triton_reg import LevelSettings
from triton_reg.ops import compose, local_contrast, mind_ssc, resize, solve_level, warp

SHAPE = (4, 5, 6)


def fields(seed: int, channels: int) -> torch.Tensor:
    return torch.cat([smooth_volume(SHAPE, seed + pair, channels) for pair in range(2)])


def test_feature_operators_are_their_references() -> None:
    volume = smooth_volume(SHAPE, 1)
    pairs = [
        (mind_ssc._mind_ssc_cuda(volume, 1, 2), mind_ssc.mind_ssc_reference(volume, 1, 2)),
        (
            local_contrast._local_contrast_cuda(volume, [3], 0.02),
            local_contrast.local_contrast_reference(volume, (3,), 0.02),
        ),
    ]
    for fused, reference in pairs:
        torch.testing.assert_close(fused, reference, atol=1e-4, rtol=0)


def test_sampling_operators_are_their_references() -> None:
    vectors, others = fields(0, 3) - 0.5, fields(2, 3) - 0.5
    volume, kept = fields(4, 2), vectors.clone()
    pairs = [
        (resize._resize_cuda(volume, [3, 7, 5]), resize.resize_reference(volume, (3, 7, 5))),
        (
            warp._warp_cuda(volume, vectors, list(SHAPE), "linear", "zeros"),
            warp.warp_reference(volume, vectors, SHAPE),
        ),
        (compose._compose_cuda(vectors, others), compose.compose_reference(vectors, others)),
        (compose._integrate_cuda(vectors, 2), compose.integrate_reference(vectors, 2)),
        (compose._integrate_cuda(vectors, 0), vectors),
    ]
    for fused, reference in pairs:
        torch.testing.assert_close(fused, reference, atol=2e-5, rtol=0)
    assert torch.equal(vectors, kept)


@pytest.mark.parametrize("known", [False, True], ids=("first", "further"))
def test_a_level_is_its_reference(known: bool) -> None:
    settings = LevelSettings(couplings=(), passes=1, filter_cost=False)
    fixed, moving = (fields(seed, 2)[:1] for seed in (6, 8))
    displacement = fields(10, 3)[:1] - 0.5 if known else None
    fused = solve_level._solve_level_cuda(fixed, moving, displacement, 1, *astuple(settings))
    reference = solve_level.register_level_reference(fixed, moving, displacement, settings, 1)
    assert (fused[0] - reference[0]).abs().quantile(0.99) <= 1e-3
    torch.testing.assert_close(fused[1], reference[1], atol=1e-5, rtol=0)
