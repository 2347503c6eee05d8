"""The memory layouts that kernels share, and the arithmetic of launches."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import torch
import triton
import triton.language as tl
from torch import Tensor

# a packed cost volume holds two fp16 labels in each int32: half the load instructions of fp16
PACKED_LABELS = 14


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
