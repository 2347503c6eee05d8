"""How unlike features are, and its gradient along vectors; defined in ``ops/feature_force.py``.

One launch: a line of channels is a few wide loads at each of 8 or 20 voxels, and residuals, slopes
and their products stay in registers. A second, small one adds the losses of blocks in one order.
What a pair moves: both features once, 12 bytes a voxel of vectors and 12 of gradient.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import torch
import triton
import triton.language as tl
from torch import Tensor

from triton_reg.ops._triton.feature_lines import FeatureLines, channels_at, lines_of
from triton_reg.ops._triton.layout import FUSED, SIZES
from triton_reg.ops._triton.reduction import reduced
from triton_reg.ops._triton.taps import corners, placed_taps, pulled_along, values_of


@triton.jit
def total(column):
    """The sum of ``[BLOCK, 1, 1]``."""
    return tl.sum(tl.sum(tl.sum(column, axis=2), axis=1), axis=0)


@triton.jit
def led(placement, force_z, force_y, force_x, axis):
    """A component of the lead's transpose times a force."""
    row = placement + 4 + axis
    product = tl.load(row) * force_z + tl.load(row + 7) * force_y
    return product + tl.load(row + 14) * force_x


@triton.jit(do_not_specialize=SIZES)
def squares_force_kernel(
    fixed,
    moving,
    vectors,
    placement,
    weights,
    active,
    gradient,
    sums,
    depth,
    height,
    width,
    fixed_depth,
    fixed_height,
    fixed_width,
    TYPE: tl.constexpr,
    C: tl.constexpr,
    ALIGNED: tl.constexpr,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
    VECTOR: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    WEIGHTED: tl.constexpr,
    CLEARED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Mean squared differences and their gradient ``[B, 3, N]``.

    ``fixed``, ``moving``: addresses ``[B]`` of ``[N, C]`` and ``[M, C]``; ``vectors [B, 3, N]``,
    ``placement [B, 3, 7]`` and ``weights [B, N]`` float32; ``active [B]`` uint8. ``sums
    [B, 2, blocks]``: squares that are weighted but not averaged, and squares of the gradient.
    Pairs that are not active get zeros if ``CLEARED``, else nothing. Grid ``(blocks, B)``.
    """
    pair, voxels = tl.program_id(1).to(tl.int64), fixed_depth * fixed_height * fixed_width
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None, None]
    inside, blocks = index < voxels, tl.num_programs(0)
    sums += pair * 2 * blocks + tl.program_id(0)
    out = gradient + pair * 3 * voxels + index
    if tl.load(active + pair) == 0:
        if CLEARED:
            for axis in tl.static_range(3):
                tl.store(out + axis * voxels, tl.zeros([BLOCK, 1, 1], tl.float32), mask=inside)
            tl.store(sums, 0.0)
            tl.store(sums + blocks, 0.0)
        return
    fixed = lines_of(fixed, pair, TYPE, ALIGNED)
    moving = lines_of(moving, pair, TYPE, ALIGNED)
    placement += pair * 21
    z, y, x = placed_taps(
        vectors + pair * 3 * voxels, placement, index, inside, voxels, fixed_height, fixed_width,
        depth, height, width, SYMMETRIC,
    )  # fmt: skip
    found = corners(moving, z, y, x, height, width, C, PARTS, LANES, VECTOR)
    values = values_of(found, z, y, x, PARTS)
    here = channels_at(fixed, tl.minimum(index, voxels - 1), C, PARTS, LANES, VECTOR)
    weight = tl.where(inside, 1.0, 0.0)
    if WEIGHTED:
        weight *= tl.load(weights + pair * voxels + index, mask=inside, other=0.0)
    residual = ()
    squares = tl.zeros_like(values[0])
    for part in tl.static_range(PARTS):
        difference = values[part] - here[part]
        squares += difference * difference
        residual += (difference,)
    squares = weight * tl.sum(tl.sum(squares, axis=2, keep_dims=True), axis=1, keep_dims=True)
    tl.store(sums, total(squares))
    along_z, along_y, along_x = pulled_along(
        moving, found, residual, z, y, x, height, width, SYMMETRIC, C, PARTS, LANES, VECTOR
    )
    weight *= 2.0 / (voxels * C).to(tl.float32)
    along_z, along_y, along_x = weight * along_z, weight * along_y, weight * along_x
    first = led(placement, along_z, along_y, along_x, 0)
    second = led(placement, along_z, along_y, along_x, 1)
    third = led(placement, along_z, along_y, along_x, 2)
    tl.store(out, first, mask=inside)
    tl.store(out + voxels, second, mask=inside)
    tl.store(out + 2 * voxels, third, mask=inside)
    square = first * first + second * second + third * third
    square = tl.where(inside, square, 0.0)
    tl.store(sums + blocks, total(square))


def launch_squares_force(
    fixed: FeatureLines,
    moving: FeatureLines,
    placed_vectors: tuple[Tensor, Tensor],
    weights: Tensor | None,
    active: Tensor,
    found: tuple[Tensor, Tensor],
    *,
    symmetric: bool,
    cleared: bool = True,
) -> None:
    """One launch of :func:`squares_force_kernel`.

    Args:
        fixed, moving: of one type; ``moving`` may have another shape.
        placed_vectors: ``[B, 3, N]`` and their placement ``[B, 3, 7]``, float32.
        weights: ``[B, 1, D, H, W]`` float32, or None.
        active: ``[B]`` uint8.
        found: gradient ``[B, 3, N]`` and sums ``[B, 2, blocks]``, written.
        symmetric: which derivative.
        cleared: whether pairs that are not active get zeros.
    """
    vectors, placement = placed_vectors
    gradient, sums = found
    squares_force_kernel[(sums.shape[2], len(vectors))](
        fixed.addresses, moving.addresses, vectors, placement,
        vectors if weights is None else weights, active, gradient, sums,
        *moving.shape, *fixed.shape,
        **fixed.form.beside(moving.form).constants,
        SYMMETRIC=symmetric, WEIGHTED=weights is not None, CLEARED=cleared, **FUSED,
    )  # fmt: skip


def squares_force(
    fixed: Tensor,
    moving: Tensor,
    vectors: Tensor,
    placement: Tensor,
    *,
    symmetric: bool,
    weights: Tensor | None = None,
    active: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Loss ``[B]`` and gradient ``[B, 3, D, H, W]`` of the mean squared difference.

    The arguments are those of :func:`triton_reg.ops.feature_force.feature_force`; features may also
    be float16 or bfloat16, which are read as they are. Those that are not channels last are copied.
    """
    lines = FeatureLines.of(fixed, "fixed"), FeatureLines.of(moving, "moving")
    batch, voxels = len(vectors), vectors[0, 0].numel()
    blocks = triton.cdiv(voxels, lines[0].form.block)
    gradient = torch.empty_like(vectors, memory_format=torch.contiguous_format)
    sums = vectors.new_empty(batch, 2, blocks)
    launch_squares_force(
        *lines,
        (vectors.contiguous(), placement.to(vectors).contiguous()),
        None if weights is None else weights.to(vectors).contiguous(),
        active_bytes(active, vectors),
        (gradient, sums),
        symmetric=symmetric,
    )
    loss = reduced(sums[:, 0].contiguous(), maximum=False, scale=1 / fixed[0].numel())
    return loss, gradient


def active_bytes(active: Tensor | None, vectors: Tensor) -> Tensor:
    """``[B]`` uint8 of a mask; all if None."""
    if active is None:
        return torch.ones(len(vectors), dtype=torch.uint8, device=vectors.device)
    return active.to(torch.uint8)
