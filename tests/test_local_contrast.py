"""Locally normalised intensities: what they ignore, what they keep, and bad input."""

import pytest
import torch
from helpers import smooth_volume

from triton_reg import LocalContrast, VoxelOpt, register_pair
from triton_reg.ops.local_contrast import box_mean, local_contrast, local_contrast_reference


def test_a_box_mean_repeats_the_edge() -> None:
    ramp = torch.arange(5.0).view(1, 1, 5, 1, 1).expand(1, 1, 5, 4, 3)
    means = box_mean(ramp, 3)[0, 0, :, 2, 1]
    torch.testing.assert_close(means, torch.tensor([1 / 3, 1, 2, 3, 11 / 3]))


def test_each_voxel_is_scaled_by_its_surroundings() -> None:
    volume = smooth_volume((9, 8, 10), 0).double()
    contrast = local_contrast(volume, (3,), floor=0.0)
    patch = volume[0, 0, 3:6, 2:5, 6:9]
    expected = (volume[0, 0, 4, 3, 7] - patch.mean()) / patch.std(correction=0)
    torch.testing.assert_close(contrast[0, 0, 4, 3, 7], expected)


def test_gain_and_offset_are_ignored_and_sign_is_kept() -> None:
    volume = smooth_volume((9, 8, 10), 1).double()
    contrast = local_contrast(volume, (3, 5), floor=0.0)
    assert contrast.shape == (1, 2, 9, 8, 10)
    torch.testing.assert_close(local_contrast(3 * volume + 7, (3, 5), 0.0), contrast)
    torch.testing.assert_close(local_contrast(-volume, (3, 5), 0.0), -contrast)


@pytest.mark.parametrize("shape", [(5, 3, 7), (9, 12, 10), (16, 18, 20)], ids=str)
def test_the_kernel_is_as_accurate_as_the_reference(shape: tuple[int, int, int]) -> None:
    volume = torch.cat([smooth_volume(shape, seed) for seed in (3, 4)])
    exact = local_contrast_reference(volume.double(), (3, 9), 0.02)
    own = (local_contrast_reference(volume, (3, 9), 0.02) - exact).abs().max()
    error = (local_contrast(volume, (3, 9), 0.02) - exact).abs().max()
    assert error <= 2 * (own + torch.finfo(torch.float32).eps * exact.abs().max())
    assert torch.equal(
        local_contrast(volume[1:], (3, 9), 0.02), local_contrast(volume, (3, 9), 0.02)[1:]
    )


def test_a_flat_volume_has_no_contrast() -> None:
    assert local_contrast(torch.full((1, 1, 6, 6, 6), 0.3), (5,), 0.02).abs().max() < 1e-3


def test_a_rolled_volume_is_rolled_back() -> None:
    volume = 100 * smooth_volume((32, 36, 40), 2)[0, 0]
    moving = torch.roll(volume, (1, -2, 2), dims=(0, 1, 2))
    method = VoxelOpt(features=LocalContrast())
    vectors = register_pair(method, volume, moving).displacement.vectors
    inner = vectors[0, :, 8:-8, 8:-8, 8:-8].flatten(1)
    assert (inner.median(1).values - torch.tensor([1.0, -2.0, 2.0])).abs().max() <= 0.5


@pytest.mark.parametrize(
    ("volume", "widths", "message"),
    [
        (torch.zeros(1, 2, 6, 6, 6), (5,), "one channel, got 2"),
        (torch.zeros(1, 1, 6, 6, 6), (4,), r"odd and at least 3, got \(4,\)"),
        (torch.zeros(1, 1, 6, 6, 6), (), "odd and at least 3"),
    ],
)
def test_messages_say_what_was_got(volume: torch.Tensor, widths: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        local_contrast(volume, widths, 0.02)
