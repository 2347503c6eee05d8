"""The memory layouts that kernels share, and the arithmetic of launches."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

Shape = tuple[int, int, int]

# a packed cost volume holds two fp16 labels in each int32: half the load instructions of fp16
PACKED_LABELS = 14
# arguments that kernels are not compiled anew for where they are 1 or multiples of 16
SIZES = (
    "blocks", "channels", "coarse_depth", "coarse_height", "coarse_width", "depth", "dilation",
    "fixed_depth", "fixed_height", "fixed_width", "height", "planes", "radius", "side", "size",
    "stride", "voxels", "width", "words",
)  # fmt: skip
# said at each launch: whether triton fuses multiply-adds by itself differs by version
FUSED = {"enable_fp_fusion": True}


@dataclass(frozen=True)
class Lines:
    """Channels-last features of one subject a pair, read where they lie.

    Kernels get addresses, not a tensor: launches that were captured once serve any features.

    Attributes:
        addresses: ``[B]`` int64, where the ``[N, padded]`` features of each pair's subject start.
        shape: ``(D, H, W)`` of the grid.
        channels: how many of the ``padded`` channels of a voxel are in use.
        dtype: float16 or float32.
    """

    addresses: Tensor
    shape: Shape
    channels: int
    padded: int
    dtype: torch.dtype

    @classmethod
    def of(cls, features: Tensor, shape: Shape, channels: int) -> "Lines":
        """The lines of a whole batch of features ``[B, N, CP]``."""
        padded, dtype = features.shape[-1], features.dtype
        return cls(addresses(features), shape, channels, padded, dtype)

    @property
    def voxels(self) -> int:
        """Voxels of the grid."""
        depth, height, width = self.shape
        return depth * height * width


def addresses(features: Tensor, rows: Tensor | None = None) -> Tensor:
    """Where rows of ``[N, ...]`` features start in memory, int64; all rows if None."""
    assert features.is_contiguous()
    rows = torch.arange(len(features), device=features.device) if rows is None else rows
    return rows * (features.stride(0) * features.element_size()) + features.data_ptr()


def padded_channels(channels: int) -> int:
    """The power of two, at least 8, that holds so many channels: whole 16-byte loads of fp16."""
    return max(8, triton.next_power_of_2(channels))


def channels_last(features: Tensor, dtype: torch.dtype) -> Tensor:
    """``[B, N, CP]`` of ``features [B, C, D, H, W]``; the channels beyond ``C`` are zero.

    All channels of a voxel in one line of memory make a shifted read one wide load.
    """
    batch, channels = features.shape[:2]
    voxels = features[0, 0].numel()
    lines = features.new_zeros(batch, voxels, padded_channels(channels), dtype=dtype)
    lines[..., :channels] = features.flatten(2).transpose(1, 2)
    return lines


def voxels_a_program(channels: int) -> int:
    """How many voxels of ``channels`` padded channels one program of four warps takes."""
    return max(16, 1024 // channels)


@triton.jit
def subject_lines(addresses, pair, HALF: tl.constexpr):
    """Pointer to the features of a pair's subject, fp16 if ``HALF``, else float32."""
    address = tl.load(addresses + pair)
    if HALF:
        return tl.multiple_of(address.to(tl.pointer_type(tl.float16)), 16)
    else:  # noqa: RET505 (what follows a return in a branch taken at compile time is not compiled)
        return tl.multiple_of(address.to(tl.pointer_type(tl.float32)), 16)


@triton.jit
def unpack(pair):
    """The two fp16 values in an int32, low half first, as float32."""
    low = (pair & 0xFFFF).to(tl.int16).to(tl.float16, bitcast=True)
    high = (pair >> 16).to(tl.int16).to(tl.float16, bitcast=True)
    return low.to(tl.float32), high.to(tl.float32)


@triton.jit
def pack(low, high):
    """Two float32 values, rounded to fp16, in one int32."""
    first = low.to(tl.float16).to(tl.int16, bitcast=True).to(tl.int32) & 0xFFFF
    second = high.to(tl.float16).to(tl.int16, bitcast=True).to(tl.int32)
    return first | (second << 16)


@triton.jit
def coordinates(index, height, width):
    """The voxel ``(z, y, x)`` of a flat index."""
    row = index // width
    return row // height, row % height, index % width
