"""The launches of one step of an optimiser on a vector field, see ``advance.py``."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import triton
import triton.language as tl

from triton_reg.ops._triton.gaussian import next_ring, plane_sum, ring_sum
from triton_reg.ops._triton.layout import SIZES, coordinates
from triton_reg.ops._triton.reduction import keep_nan
from triton_reg.ops._triton.sampling import cell, sample_vectors


@triton.jit
def corrections(steps, LOG_FIRST: tl.constexpr, LOG_SECOND: tl.constexpr):
    """What the bias of both moments is undone with after so many steps, float32.

    ``LOG``: the logarithm of a decay; -inf for none.
    """
    count = steps.to(tl.float64)
    first, second = 1 - tl.exp(count * LOG_FIRST), 1 - tl.exp(count * LOG_SECOND)
    return (1 / first).to(tl.float32), (1 / tl.sqrt(second)).to(tl.float32)


@triton.jit(do_not_specialize=SIZES)
def count_kernel(steps, active, bias, LOG_FIRST: tl.constexpr, LOG_SECOND: tl.constexpr):
    """Count a step of active pairs, ``steps [B]``, and write ``bias [B, 2]``. Grid ``(B,)``."""
    pair = tl.program_id(0)
    count = tl.load(steps + pair) + tl.load(active + pair).to(tl.int32)
    tl.store(steps + pair, count)
    first, second = corrections(tl.maximum(count, 1), LOG_FIRST, LOG_SECOND)
    tl.store(bias + 2 * pair, first)
    tl.store(bias + 2 * pair + 1, second)


@triton.jit
def _directed(slope, first, second, place, inside, bias, decay1, decay2, eps, ADAM: tl.constexpr):
    """Adam's direction after one more slope, whose moments are written; the slope without."""
    if not ADAM:
        return slope
    mean = decay1 * tl.load(first + place, mask=inside, other=0.0) + (1 - decay1) * slope
    square = decay2 * tl.load(second + place, mask=inside, other=0.0)
    square += (1 - decay2) * slope * slope
    tl.store(first + place, mean, mask=inside)
    tl.store(second + place, square, mask=inside)
    return mean * tl.load(bias) / (tl.sqrt(square) * tl.load(bias + 1) + eps)


@triton.jit(do_not_specialize=SIZES)
def direct_kernel(
    gradient,
    vectors,
    first,
    second,
    moved,
    taps,
    active,
    bias,
    unit_z,
    unit_y,
    unit_x,
    rate,
    decay1,
    decay2,
    eps,
    planes,
    depth,
    height,
    width,
    ADAM: tl.constexpr,
    ADDED: tl.constexpr,
    RADIUS_Z: tl.constexpr,
    RADIUS_Y: tl.constexpr,
    RADIUS_X: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Smooth a gradient, update Adam's moments, and find the direction in units; ``[B, 3, N]``.

    ``moved`` gets the vectors after the step if ``ADDED``, else the direction. Nothing is done for
    pairs that are not active. Grid ``(cdiv(H W, BLOCK), cdiv(D, planes), 3 B)``.
    """
    field, plane = tl.program_id(2).to(tl.int64), height * width
    pair, axis = field // 3, field % 3
    if tl.load(active + pair) == 0:
        return
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside, y, x = lane < plane, lane // width, lane % width
    start = tl.program_id(1) * planes
    bias += 2 * pair
    gradient += field * depth * plane
    unit = tl.where(axis == 0, unit_z, tl.where(axis == 1, unit_y, unit_x))
    ring = ()
    for step in tl.static_range(-RADIUS_Z - 1, RADIUS_Z):
        ring += (
            plane_sum(
                gradient, taps, start + step, y, x, inside,
                depth, height, width, RADIUS_Y, RADIUS_X,
            ),
        )  # fmt: skip
    for z in range(start, tl.minimum(start + planes, depth)):
        newest = plane_sum(
            gradient, taps, z + RADIUS_Z, y, x, inside,
            depth, height, width, RADIUS_Y, RADIUS_X,
        )  # fmt: skip
        ring = next_ring(ring, newest, 2 * RADIUS_Z + 1)
        place = (field * depth + z) * plane + lane
        direction = _directed(
            unit * ring_sum(ring, taps, RADIUS_Z),
            first, second, place, inside, bias, decay1, decay2, eps, ADAM,
        )  # fmt: skip
        if ADDED:
            here = tl.load(vectors + place, mask=inside, other=0.0)
            direction = here - rate * unit * direction
        tl.store(moved + place, direction, mask=inside)


@triton.jit(do_not_specialize=SIZES)
def length_kernel(direction, longest, active, voxels, BLOCK: tl.constexpr):
    """Largest squared length of ``[B, 3, N]`` in each block, ``[B, blocks]``; zeros for pairs that
    are not active. Grid ``(blocks, B)``.
    """
    pair = tl.program_id(1).to(tl.int64)
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = (voxel < voxels) & (voxel * 0 + tl.load(active + pair) > 0)
    here = direction + pair * 3 * voxels + voxel
    square = tl.zeros([BLOCK], tl.float32)
    for axis in tl.static_range(3):
        length = tl.load(here + axis * voxels, mask=inside, other=0.0)
        square += length * length
    row = longest + pair * tl.num_programs(0)
    tl.store(row + tl.program_id(0), tl.reduce(square, 0, keep_nan))


@triton.jit(do_not_specialize=SIZES)
def follow_kernel(
    direction,
    vectors,
    moved,
    longest,
    active,
    unit_z,
    unit_y,
    unit_x,
    rate,
    eps,
    depth,
    height,
    width,
    BLOCK: tl.constexpr,
):
    """A step against the direction, then the vectors from where it leads; ``[B, 3, N]`` float32.

    ``longest [B]``: squared length of the longest direction. Grid ``(cdiv(N, BLOCK), B)``.
    """
    pair, voxels = tl.program_id(1).to(tl.int64), depth * height * width
    if tl.load(active + pair) == 0:
        return
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = voxel < voxels
    z, y, x = coordinates(voxel, height, width)
    length = keep_nan(tl.sqrt(tl.load(longest + pair)) + eps, 1.0)
    step = -rate / length
    here = direction + pair * 3 * voxels + voxel
    d0 = step * unit_z * tl.load(here, mask=inside, other=0.0)
    d1 = step * unit_y * tl.load(here + voxels, mask=inside, other=0.0)
    d2 = step * unit_x * tl.load(here + 2 * voxels, mask=inside, other=0.0)
    # along an axis of one voxel there is nowhere to go, whatever the step says
    z, fz = cell(z + tl.where(z * 0 + depth > 1, d0, 0.0))
    y, fy = cell(y + tl.where(y * 0 + height > 1, d1, 0.0))
    x, fx = cell(x + tl.where(x * 0 + width > 1, d2, 0.0))
    s0, s1, s2 = sample_vectors(
        vectors + pair * 3 * voxels, z, y, x, fz, fy, fx, depth, height, width, inside
    )
    out = moved + pair * 3 * voxels + voxel
    tl.store(out, d0 + s0, mask=inside)
    tl.store(out + voxels, d1 + s1, mask=inside)
    tl.store(out + 2 * voxels, d2 + s2, mask=inside)
