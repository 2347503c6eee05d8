"""Channels-last features, found by address and read some eight channels a thread."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from triton_reg.ops._triton.layout import Shape

_TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


class LineForm(NamedTuple):
    """What kernels are compiled for: type, channels, and whether lines start at 16 bytes."""

    dtype: torch.dtype
    channels: int
    aligned: bool

    @property
    def constants(self) -> dict[str, int | bool]:
        """Of a kernel that reads such lines."""
        spread = spread_of(self.dtype, self.channels)
        return {
            "TYPE": _TYPES[self.dtype], "C": self.channels, "ALIGNED": self.aligned,
            "BLOCK": 128 // spread["LANES"], **spread,
        }  # fmt: skip

    @property
    def block(self) -> int:
        """Voxels of a program of four warps: one to a thread, or to several threads."""
        return int(self.constants["BLOCK"])

    def beside(self, other: "LineForm") -> "LineForm":
        """The form in which both can be read; they share type and channels."""
        return self._replace(aligned=self.aligned and other.aligned)


@dataclass(frozen=True)
class FeatureLines:
    """Channels-last features of a batch, found by their addresses.

    Attributes:
        addresses: ``[B]`` int64, where ``[N, C]`` of each pair start.
        shape: ``(D, H, W)``.
        form: see :class:`LineForm`.
        kept: what they are addresses of, kept alive.
    """

    addresses: Tensor
    shape: Shape
    form: LineForm
    kept: Tensor

    @classmethod
    def of(cls, features: Tensor, name: str) -> "FeatureLines":
        """The lines of ``[B, C, D, H, W]``; copied unless it is channels last already.

        Raises:
            ValueError: if the type is not read, or a pair has more values than int32 counts.
        """
        if features.dtype not in _TYPES:
            raise ValueError(f"{name} must be float32, float16 or bfloat16, got {features.dtype}")
        if features[0].numel() >= 2**31:
            raise ValueError(
                f"{name} on a GPU: a pair's features must stay below 2**31 values, got "
                f"{features[0].numel():,} of {list(features.shape)}"
            )
        features = features.detach().contiguous(memory_format=torch.channels_last_3d)
        _, channels, depth, height, width = features.shape
        size_bytes = features.element_size()
        stride_bytes = features[0].numel() * size_bytes
        rows = torch.arange(len(features), device=features.device)
        starts = features.data_ptr(), stride_bytes, channels * size_bytes
        aligned = all(one % 16 == 0 for one in starts)
        return cls(
            rows * stride_bytes + features.data_ptr(),
            (depth, height, width),
            LineForm(features.dtype, channels, aligned),
            features,
        )


def spread_of(dtype: torch.dtype, channels: int) -> dict[str, int]:
    """The constants of :func:`channels_at`: about eight channels a thread."""
    vector = min(16 // dtype.itemsize, triton.next_power_of_2(channels))
    loads = triton.cdiv(channels, vector)
    lanes = min(32, triton.next_power_of_2(triton.cdiv(loads * vector, 8)))
    return {"PARTS": triton.cdiv(loads, lanes), "LANES": lanes, "VECTOR": vector}


@triton.jit
def lines_of(addresses, pair, TYPE: tl.constexpr, ALIGNED: tl.constexpr):
    """Pointer to a pair's features: float32, float16 or bfloat16 for ``TYPE`` 0, 1 or 2."""
    address = tl.load(addresses + pair)
    if TYPE == 0:
        pointer = address.to(tl.pointer_type(tl.float32))
    elif TYPE == 1:
        pointer = address.to(tl.pointer_type(tl.float16))
    else:
        pointer = address.to(tl.pointer_type(tl.bfloat16))
    if ALIGNED:
        pointer = tl.multiple_of(pointer, 16)
    return pointer


@triton.jit
def channels_at(
    lines,
    voxel,
    C: tl.constexpr,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """The channels of voxels ``[BLOCK, 1, 1]``: ``PARTS`` of float32 ``[BLOCK, LANES, VECTOR]``.

    Zeros beyond ``C``.
    """
    lane = tl.arange(0, LANES)[None, :, None] * VECTOR + tl.arange(0, VECTOR)[None, None, :]
    first = lines + lane + voxel.to(tl.int64) * C
    found = ()
    STRIDE: tl.constexpr = LANES * VECTOR
    for part in tl.static_range(PARTS):
        if (part + 1) * STRIDE <= C:
            value = tl.load(first + part * STRIDE)
        else:
            there = (lane < C - part * STRIDE) & (voxel >= 0)
            value = tl.load(first + part * STRIDE, mask=there, other=0.0)
        found += (value.to(tl.float32),)
    return found


@triton.jit
def store_channels(
    target,
    voxel,
    there,
    value,
    C: tl.constexpr,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Write tiles, as :func:`channels_at` gives them, of voxels that are ``there``."""
    lane = tl.arange(0, LANES)[None, :, None] * VECTOR + tl.arange(0, VECTOR)[None, None, :]
    first = target + lane + voxel.to(tl.int64) * C
    STRIDE: tl.constexpr = LANES * VECTOR
    for part in tl.static_range(PARTS):
        within = there & (lane < C - part * STRIDE)
        tl.store(first + part * STRIDE, value[part], mask=within)


@triton.jit
def add_channels(
    target,
    voxel,
    there,
    one,
    other,
    shares,
    C: tl.constexpr,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Add ``shares[0] one + shares[1] other``, tiles of channels, to lines of ``[M, C]``."""
    lane = tl.arange(0, LANES)[None, :, None] * VECTOR + tl.arange(0, VECTOR)[None, None, :]
    first = target + lane + voxel.to(tl.int64) * C
    STRIDE: tl.constexpr = LANES * VECTOR
    for part in tl.static_range(PARTS):
        value = shares[0] * one[part] + shares[1] * other[part]
        within = there & (lane < C - part * STRIDE)
        tl.atomic_add(first + part * STRIDE, value, mask=within, sem="relaxed")
