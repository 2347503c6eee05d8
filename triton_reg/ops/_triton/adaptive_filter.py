"""The adaptive filter; the definition stands in ``ops/adaptive_filter.py``.

Roofline row "filt_pass_p2 x3" for the packed cost volume, "blur x21" for the displacement: a pass a
launch, at the speed of the memory. Wide filters take a launch for each axis.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from triton_reg.ops._triton.filter_kernels import (
    filter_axis_kernel,
    filter_codes_kernel,
    filter_packed_kernel,
    filter_plain_kernel,
)
from triton_reg.ops._triton.layout import FUSED, Shape

_BLOCK = 128
_AXIS_BLOCK = 256
_PLANES = 16  # that a program marches through: two are read again for each sixteen
_WORDS = 2  # words of two labels that a program of the packed pass takes


@dataclass(frozen=True)
class Sides:
    """Side weights of a filter: ``values [B, R, N]``, or if None a number for each axis."""

    values: Tensor | None
    constants: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def radius(self) -> int:
        """Half width of the filter in voxels."""
        return 1 if self.values is None else self.values.shape[1]


def filter_codes(codes: Tensor, shape: Shape, bits: int, sides: Sides, target: Tensor) -> None:
    """One pass of a three-tap filter over codes ``[B, N]`` into vectors ``target [B, 3, N]``."""
    weights = codes if sides.values is None else sides.values
    filter_codes_kernel[_marches(shape, 1, len(codes))](
        codes, target, weights, *sides.constants, *shape, _PLANES,
        BITS=bits, BLOCK=_BLOCK, CONSTANT=sides.values is None, **FUSED,
    )  # fmt: skip


def adaptive_filter(
    volume: Tensor, shape: Shape, sides: Sides, passes: int, spare: Tensor
) -> tuple[Tensor, Tensor]:
    """Filter ``[B, K, N]`` along the three axes in turn, ``passes`` times.

    Args:
        volume: float32, or int32 with two fp16 channels a word; overwritten.
        sides: float32 if the filter is wide.
        spare: memory of the volume's shape and dtype; overwritten.

    Returns:
        The filtered volume and the memory left over: ``volume`` and ``spare`` in some order.
    """
    if sides.radius > 1:
        assert volume.dtype == torch.float32
        assert sides.values is not None
        return _filter_wide(volume, shape, sides.values, passes, spare)
    batch, channels, _ = volume.shape
    weights = volume if sides.values is None else sides.values
    for _ in range(passes):
        arguments = (volume, spare, weights, *sides.constants, *shape)
        if volume.dtype == torch.int32:
            filter_packed_kernel[_marches(shape, channels // _WORDS, batch)](
                *arguments, channels, _PLANES,
                WORDS=_WORDS, BLOCK=_BLOCK, CONSTANT=sides.values is None, **FUSED,
            )  # fmt: skip
        else:
            filter_plain_kernel[_marches(shape, channels, batch)](
                *arguments, _PLANES, BLOCK=_BLOCK, CONSTANT=sides.values is None, **FUSED
            )
        volume, spare = spare, volume
    return volume, spare


def _filter_wide(volume, shape, sides, passes, spare):
    batch, channels, voxels = volume.shape
    strides = (shape[1] * shape[2], shape[2], 1)
    for _ in range(passes):
        for size, stride in zip(shape, strides, strict=True):
            filter_axis_kernel[(triton.cdiv(voxels, _AXIS_BLOCK), channels, batch)](
                volume, spare, sides, size, stride, voxels,
                RADIUS=sides.shape[1], BLOCK=_AXIS_BLOCK, **FUSED,
            )  # fmt: skip
            volume, spare = spare, volume
    return volume, spare


def _marches(shape, channels, batch):
    """Launch grid of the marching kernels."""
    marches = triton.cdiv(shape[1] * shape[2], _BLOCK) * triton.cdiv(shape[0], _PLANES)
    return marches, channels, batch
