"""Similarity of intensities."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from triton_reg.ops.operators import array, check_device, has_kernel

_BINS = 32  # of each volume in the joint histogram
_FLAT = 1e-6  # share of the largest variance below which a cube counts as flat


def ncc(fixed: Tensor, warped: Tensor, mask: Tensor) -> Tensor:
    """Normalised cross-correlation over the voxels of a mask.

    A kernel for float32 on CPUs and GPUs, plain torch for other types.

    Args:
        fixed, warped: ``[B, 1, D, H, W]``.
        mask: of the same shape; voxels above 0 count.

    Returns:
        ``[B]`` float64 in [-1, 1]; 0 where either volume is constant inside the mask.

    Raises:
        ValueError: if the shapes differ.
    """
    return ncc_and_mse(fixed, warped, mask)[0]


def ncc_and_mse(fixed: Tensor, warped: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """:func:`ncc` and the mean squared difference over a mask, from one sweep; arguments as there.

    Returns:
        ``[B]`` float64 each; the difference in squared source units, 0 where the mask is empty.
    """
    _check_shapes("ncc_and_mse", fixed, warped, mask)
    check_device("ncc_and_mse", fixed)
    if not has_kernel(fixed, warped):
        return ncc_and_mse_reference(fixed, warped, mask)
    flat = fixed.flatten(1), warped.flatten(1), mask.flatten(1)
    if fixed.is_cuda:
        return _of_sums(_correlation_sums_cuda(*flat))
    from triton_reg.ops._cpu.similarity import correlation_sums

    sums = [correlation_sums(*pair) for pair in zip(*map(array, flat), strict=True)]
    return _of_sums(torch.from_numpy(np.stack(sums)))


def _correlation_sums_cuda(fixed: Tensor, warped: Tensor, mask: Tensor) -> Tensor:
    from triton_reg.ops._triton.similarity import correlation_sums

    with torch.cuda.device_of(fixed):
        return correlation_sums(fixed, warped, mask)


def _of_sums(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Correlation and mean squared difference from the sums ``[B, 7]`` that the kernels return."""
    count, first, second, first_squares, second_squares, products, apart = sums.unbind(1)
    count = count.clamp_min(1)
    first_energy = first_squares - first**2 / count
    second_energy = second_squares - second**2 / count
    tiny = torch.finfo(torch.float64).tiny
    energy = (first_energy * second_energy).clamp_min(tiny)
    return (products - first * second / count) / energy.sqrt(), apart / count


def ncc_and_mse_reference(fixed: Tensor, warped: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Plain torch definition of :func:`ncc_and_mse`."""
    weight = (mask > 0).flatten(1).double()
    count = weight.sum(1, keepdim=True).clamp_min(1)
    first, second = fixed.flatten(1).double(), warped.flatten(1).double()
    mse = ((first - second) ** 2 * weight).sum(1) / count[:, 0]
    first = (first - (first * weight).sum(1, keepdim=True) / count) * weight
    second = (second - (second * weight).sum(1, keepdim=True) / count) * weight
    energy = (first**2).sum(1) * (second**2).sum(1)
    tiny = torch.finfo(torch.float64).tiny
    return (first * second).sum(1) / energy.clamp_min(tiny).sqrt(), mse


def lncc(fixed: Tensor, warped: Tensor, mask: Tensor, width: int = 9) -> Tensor:
    """Mean squared local correlation over the voxels of a mask, as ANTs' CC and VoxelMorph have it.

    Compiled for float32 on CPUs, plain torch otherwise.

    Args:
        fixed, warped: ``[B, 1, D, H, W]``.
        mask: of the same shape; voxels above 0 count. Cubes around them see the whole volume.
        width: odd side in voxels of the cubes, which are cut at the border.

    Returns:
        ``[B]`` float64 in [0, 1]; 0 where the mask is empty. A cube that is flat in either volume
        counts as uncorrelated.

    Raises:
        ValueError: if the shapes differ or the width is even.
    """
    _check_shapes("lncc", fixed, warped, mask)
    if width < 1 or width % 2 == 0:
        raise ValueError(f"lncc: width must be odd and at least 1, got {width}")
    if not fixed.is_cpu or not has_kernel(fixed, warped):
        return lncc_reference(fixed, warped, mask, width)
    from triton_reg.ops._cpu.local_correlation import local_correlation_sums

    volumes = _standardised(fixed), _standardised(warped), mask
    sums = [
        local_correlation_sums(first, second, inside, width // 2, _FLAT)
        for first, second, inside in zip(*(array(one[:, 0]) for one in volumes), strict=True)
    ]
    total, count = torch.tensor(sums, dtype=torch.float64).unbind(1)
    return total / count.clamp_min(1)


def lncc_reference(fixed: Tensor, warped: Tensor, mask: Tensor, width: int = 9) -> Tensor:
    """Plain torch definition of :func:`lncc`."""
    first, second = (_standardised(volume).double() for volume in (fixed, warped))

    def share(values: Tensor) -> Tensor:
        return F.avg_pool3d(F.pad(values, [width // 2] * 6), width, 1)

    seen = share(torch.ones_like(first))  # of each cube, inside the volume

    def mean(values: Tensor) -> Tensor:
        return share(values) / seen

    first_mean, second_mean = mean(first), mean(second)
    both = mean(first * second) - first_mean * second_mean
    one = (mean(first**2) - first_mean**2).clamp_min(_FLAT)
    other = (mean(second**2) - second_mean**2).clamp_min(_FLAT)
    weight = (mask > 0).double()
    squares = both**2 / (one * other) * weight
    return squares.flatten(1).sum(1) / weight.flatten(1).sum(1).clamp_min(1)


def mutual_information(fixed: Tensor, warped: Tensor, mask: Tensor) -> Tensor:
    """Mutual information over the voxels of a mask, from a joint histogram of 32 x 32 bins.

    Bins are even between the least and the largest value inside the mask. Compiled for float32 on
    CPUs, plain torch otherwise.

    Args:
        fixed, warped: ``[B, 1, D, H, W]``.
        mask: of the same shape; voxels above 0 count.

    Returns:
        ``[B]`` float64 in nats; 0 where either volume is constant inside the mask, NaN where one
        is not finite there.

    Raises:
        ValueError: if the shapes differ.
    """
    _check_shapes("mutual_information", fixed, warped, mask)
    if not fixed.is_cpu or not has_kernel(fixed, warped):
        return mutual_information_reference(fixed, warped, mask)
    return _informations(_joint_histogram, fixed, warped, mask)


def mutual_information_reference(fixed: Tensor, warped: Tensor, mask: Tensor) -> Tensor:
    """Plain torch definition of :func:`mutual_information`."""
    return _informations(_joint_histogram_reference, fixed, warped, mask)


def _informations(
    histogram: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor],
    fixed: Tensor,
    warped: Tensor,
    mask: Tensor,
) -> Tensor:
    flat = [volume.flatten(1) for volume in (fixed, warped, mask)]
    found = []
    for first, second, inside in zip(flat[0], flat[1], flat[2] > 0, strict=True):
        if not inside.any():
            found.append(first.new_zeros((), dtype=torch.float64))
            continue
        low, span = _range(first, second, inside)
        if not span.isfinite().all():
            found.append(first.new_full((), torch.nan, dtype=torch.float64))
            continue
        # the least span keeps bins per unit finite; what is constant is in the first bin
        scale = _BINS / span.clamp_min(_BINS * torch.finfo(first.dtype).tiny)
        found.append(_information(histogram(first, second, inside, low, scale)))
    return torch.stack(found)


def _joint_histogram(
    first: Tensor, second: Tensor, inside: Tensor, low: Tensor, scale: Tensor
) -> Tensor:
    """Compiled version of :func:`_joint_histogram_reference`."""
    from triton_reg.ops._cpu.local_correlation import joint_histogram

    counts = np.zeros((_BINS, _BINS), np.int64)
    volumes = array(first), array(second), array(inside)
    joint_histogram(*volumes, array(low), array(scale), counts)
    return torch.from_numpy(counts).double()


def _joint_histogram_reference(
    first: Tensor, second: Tensor, inside: Tensor, low: Tensor, scale: Tensor
) -> Tensor:
    """Counts ``[32, 32]`` float64 of flat volumes inside the mask."""
    rows, columns = (
        ((one[inside] - low[index]) * scale[index]).clamp(0, _BINS - 1).long()
        for index, one in enumerate((first, second))
    )
    counts = torch.bincount(rows * _BINS + columns, minlength=_BINS**2)
    return counts.view(_BINS, _BINS).double()


def _range(first: Tensor, second: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """The least value inside of each volume, and how far the largest is from it: ``[2]`` each."""
    low = torch.stack([one[inside].min() for one in (first, second)])
    return low, torch.stack([one[inside].max() for one in (first, second)]) - low


def _information(counts: Tensor) -> Tensor:
    shares = counts / counts.sum().clamp_min(1)
    apart = shares.sum(1, keepdim=True) * shares.sum(0, keepdim=True)
    terms = torch.where(shares > 0, shares * (shares / apart.clamp_min(1e-300)).log(), 0.0)
    return terms.sum().clamp_min(0)  # rounding takes it below


def _standardised(volume: Tensor) -> Tensor:
    """Each volume with mean 0 and standard deviation 1: what flat means has no unit then."""
    spread = volume.std((2, 3, 4), correction=0, keepdim=True)
    tiny = torch.finfo(volume.dtype).tiny
    return (volume - volume.mean((2, 3, 4), keepdim=True)) / spread.clamp_min(tiny)


def _check_shapes(call: str, fixed: Tensor, warped: Tensor, mask: Tensor) -> None:
    if not fixed.shape == warped.shape == mask.shape:
        raise ValueError(
            f"{call}: fixed, warped and mask must share one shape, got {list(fixed.shape)}, "
            f"{list(warped.shape)} and {list(mask.shape)}"
        )
