"""Gaussian smoothing of vectors on a grid; defined in ``ops/gaussian.py``.

One launch for all axes where taps are few: a thread marches along the first axis with a ring of
sums over its plane, so that a field is read from memory once and written once. Wide Gaussians take
a launch an axis.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from triton_reg.ops._triton.layout import FUSED, SIZES, Shape
from triton_reg.ops.gaussian import Sigmas, gaussian_taps

_BLOCK = 128
_PLANES = 16  # that a program marches over
_WIDEST = 2  # radius up to which all axes go together
_ROW = 8  # places for the taps of an axis: its centre and what follows


@triton.jit
def plane_sum(
    source,
    taps,
    z,
    y,
    x,
    inside,
    depth,
    height,
    width,
    RADIUS_Y: tl.constexpr,
    RADIUS_X: tl.constexpr,
):
    """Weighted sum within plane ``z`` of ``source [D, H, W]``, zeros outside; ``taps [3, 8]``."""
    total = tl.zeros_like(x).to(tl.float32)
    valid_z = inside & (x * 0 + z >= 0) & (x * 0 + z < depth)
    for step_y in tl.static_range(-RADIUS_Y, RADIUS_Y + 1):
        there = y + step_y
        valid = valid_z & (there >= 0) & (there < height)
        row = source + (z * height + there) * width + x
        across = tl.zeros_like(total)
        for step_x in tl.static_range(-RADIUS_X, RADIUS_X + 1):
            within = valid & (x + step_x >= 0) & (x + step_x < width)
            tap = tl.load(taps + 16 + (step_x if step_x > 0 else -step_x))
            across += tap * tl.load(row + step_x, mask=within, other=0.0)
        total += tl.load(taps + 8 + (step_y if step_y > 0 else -step_y)) * across
    return total


@triton.jit
def ring_sum(ring, taps, RADIUS: tl.constexpr):
    """The symmetric sum over ``2 RADIUS + 1`` planes."""
    total = tl.load(taps) * ring[RADIUS]
    for step in tl.static_range(1, RADIUS + 1):
        total += tl.load(taps + step) * (ring[RADIUS - step] + ring[RADIUS + step])
    return total


@triton.jit
def next_ring(ring, newest, COUNT: tl.constexpr):
    """A ring of ``COUNT`` values without the oldest and with the newest one."""
    moved = ()
    for index in tl.static_range(1, COUNT):
        moved += (ring[index],)
    moved += (newest,)
    return moved


@triton.jit(do_not_specialize=SIZES)
def smooth_kernel(
    source,
    target,
    kept,
    taps,
    active,
    channels,
    planes,
    depth,
    height,
    width,
    RADIUS_Z: tl.constexpr,
    RADIUS_Y: tl.constexpr,
    RADIUS_X: tl.constexpr,
    KEPT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """``source [B, C, N]`` smoothed along all axes, zeros outside.

    Pairs that are not active get ``kept [B, C, N]`` if ``KEPT``, else nothing.
    Grid ``(cdiv(H W, BLOCK), cdiv(D, planes), B C)``.
    """
    field = tl.program_id(2).to(tl.int64)
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside, offset = lane < height * width, field * depth * height * width
    start = tl.program_id(1) * planes
    stop = tl.minimum(start + planes, depth)
    source += offset
    out = target + offset + lane
    if tl.load(active + field // channels) == 0:
        if KEPT:
            for z in range(start, stop):
                place = z * height * width
                same = tl.load(kept + offset + lane + place, mask=inside, other=0.0)
                tl.store(out + place, same, mask=inside)
        return
    y, x = lane // width, lane % width
    ring = ()
    for step in tl.static_range(-RADIUS_Z - 1, RADIUS_Z):
        ring += (
            plane_sum(
                source, taps, start + step, y, x, inside, depth, height, width, RADIUS_Y, RADIUS_X
            ),
        )
    for z in range(start, stop):
        ring = next_ring(
            ring,
            plane_sum(
                source, taps, z + RADIUS_Z, y, x, inside, depth, height, width, RADIUS_Y, RADIUS_X
            ),
            2 * RADIUS_Z + 1,
        )
        tl.store(out + z * height * width, ring_sum(ring, taps, RADIUS_Z), mask=inside)


@triton.jit(do_not_specialize=SIZES)
def smooth_axis_kernel(source, target, taps, size, stride, voxels, radius, BLOCK: tl.constexpr):
    """The weighted sum along an axis of ``[K, N]`` float32, zeros outside.

    ``taps [radius + 1]``, the centre first. The axis has ``size`` voxels that lie ``stride`` apart.
    Grid ``(cdiv(N, BLOCK), K)``.
    """
    row = tl.program_id(1).to(tl.int64) * voxels
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside, place = voxel < voxels, voxel // stride % size
    here = source + row + voxel
    total = tl.load(taps) * tl.load(here, mask=inside, other=0.0)
    for step in range(1, radius + 1):
        before = tl.load(here - step * stride, mask=inside & (place >= step), other=0.0)
        after = tl.load(here + step * stride, mask=inside & (place + step < size), other=0.0)
        total += tl.load(taps + step) * (before + after)
    tl.store(target + row + voxel, total, mask=inside)


def is_narrow(sigmas: Sigmas) -> bool:
    """Whether all axes are smoothed in one launch."""
    return max(radii(sigmas)) <= _WIDEST


def radii(sigmas: Sigmas) -> tuple[int, int, int]:
    """How many voxels to either side count along each axis."""
    depth, height, width = (len(gaussian_taps(sigma)) // 2 for sigma in sigmas)
    return depth, height, width


@cache  # never let go: captured launches hold its address alone
@torch.inference_mode(False)
def taps_on(sigmas: Sigmas, device: torch.device) -> Tensor:
    """Taps ``[3, n]`` of each axis from its centre on, with zeros behind."""
    halves = [
        gaussian_taps(sigma)[radius:] for sigma, radius in zip(sigmas, radii(sigmas), strict=True)
    ]
    row = max(_ROW, *(len(half) for half in halves))
    return torch.tensor([half + [0.0] * (row - len(half)) for half in halves], device=device)


def planes_a_program(shape: Shape, fields: int) -> int:
    """As many planes as leave enough programs to fill a GPU."""
    programs = triton.cdiv(shape[1] * shape[2], _BLOCK) * shape[0] * fields
    return min(_PLANES, max(2, programs // 2048))


def smooth(
    source: Tensor, target: Tensor, kept: Tensor | None, sigmas: Sigmas, active: Tensor
) -> None:
    """Smooth ``[B, C, D, H, W]`` float32 with a sigma an axis, in voxels.

    Args:
        source: overwritten where Gaussians are wide.
        target: written, another tensor.
        kept: what pairs get that are not active, of that shape; None to leave the target alone.
        active: ``[B]`` uint8.
    """
    batch, channels, depth, height, width = source.shape
    if not is_narrow(sigmas):
        source, sigmas = smooth_axes(source, sigmas), (0.0, 0.0, 0.0)
    planes = planes_a_program((depth, height, width), batch * channels)
    grid = triton.cdiv(height * width, _BLOCK), triton.cdiv(depth, planes), batch * channels
    radius_z, radius_y, radius_x = radii(sigmas)
    smooth_kernel[grid](
        source, target, source if kept is None else kept, taps_on(sigmas, source.device), active,
        channels, planes, depth, height, width,
        RADIUS_Z=radius_z, RADIUS_Y=radius_y, RADIUS_X=radius_x, KEPT=kept is not None,
        BLOCK=_BLOCK, **FUSED,
    )  # fmt: skip


def smooth_axes(source: Tensor, sigmas: Sigmas) -> Tensor:
    """``[B, C, D, H, W]`` smoothed with a launch an axis, in memory of its own."""
    *_, depth, height, width = source.shape
    voxels = depth * height * width
    rows, taps = source.view(-1, voxels), taps_on(sigmas, source.device)
    strides = (height * width, width, 1)
    for axis, (size, stride) in enumerate(zip((depth, height, width), strides, strict=True)):
        target = torch.empty_like(rows)
        smooth_axis_kernel[(triton.cdiv(voxels, _BLOCK), len(rows))](
            rows, target, taps[axis], size, stride, voxels, radii(sigmas)[axis],
            BLOCK=_BLOCK, **FUSED,
        )  # fmt: skip
        rows = target
    return rows.view_as(source)


def smoothed(vectors: Tensor, sigmas: Sigmas) -> Tensor:
    """See :func:`triton_reg.ops.gaussian.smoothed_reference`."""
    found = torch.empty_like(vectors, memory_format=torch.contiguous_format)
    active = torch.ones(len(vectors), dtype=torch.uint8, device=vectors.device)
    smooth(vectors.contiguous(), found, None, sigmas, active)
    return found
