"""The gradient of a gradient; defined in ``ops/feature_force.py``, derived in ``ops/_cpu``.

A program reads the lines of channels around its voxels twice: for residuals and slopes, then for
what they pull at. What it adds to the moving features is added in no fixed order, so that gradients
of one run and of another differ by rounding, as those of torch's own samplers do. What a pair
moves: both features and their gradients, 24 bytes a voxel of vectors and 12 of their gradient.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from triton_reg.ops._triton.feature_force import active_bytes, led
from triton_reg.ops._triton.feature_lines import (
    FeatureLines,
    add_channels,
    channels_at,
    lines_of,
    store_channels,
)
from triton_reg.ops._triton.layout import FUSED, SIZES
from triton_reg.ops._triton.tap_weights import (
    placed_kinds,
    plane_kinds,
    tap_weights,
    tap_weights_by,
)
from triton_reg.ops._triton.taps import product


@triton.jit
def _plus(totals, share, found, PARTS: tl.constexpr):
    """``PARTS`` tiles and a share of others."""
    sums = ()
    for part in tl.static_range(PARTS):
        sums += (totals[part] + share * found[part],)
    return sums


@triton.jit
def _residual_and_slope(
    moving,
    fixed,
    z,
    y,
    x,
    height,
    width,
    SYMMETRIC: tl.constexpr,
    C: tl.constexpr,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Samples less the fixed channels, and their slopes: ``PARTS`` tiles each."""
    slope = ()
    for part in tl.static_range(PARTS):
        slope += (tl.zeros_like(fixed[part]),)
    residual = _plus(slope, -1.0, fixed, PARTS)
    for plane in range(2 + SYMMETRIC):
        along_z = plane_kinds(z, plane)
        for j in tl.static_range(3):
            for k in tl.static_range(3):
                # at most one outer voxel, which has a slope alone; known as it is compiled, or not
                if j // 2 + k // 2 <= SYMMETRIC:  # noqa: SIM102
                    if plane + j // 2 + k // 2 < 3:
                        voxel = (along_z[0] * height + y[0][j]) * width + x[0][k]
                        found = channels_at(moving, voxel, C, PARTS, LANES, VECTOR)
                        of_sample, of_slope = tap_weights(along_z, y, x, j, k)
                        residual = _plus(residual, of_sample, found, PARTS)
                        slope = _plus(slope, of_slope, found, PARTS)
    return residual, slope


@triton.jit
def _pull(
    moving,
    of_moving,
    inside,
    turns,
    pulls,
    z,
    y,
    x,
    height,
    width,
    SYMMETRIC: tl.constexpr,
    OF_MOVING: tl.constexpr,
    OF_VECTORS: tl.constexpr,
    C: tl.constexpr,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Add to the gradients of the moving lines; gradients with respect to the position.

    ``turns``, ``pulls``: cotangents of samples and of slopes, ``PARTS`` tiles each.
    """
    force_z = tl.sum(tl.zeros_like(x[1][0]), axis=2, keep_dims=True)
    force_y, force_x = force_z, force_z
    for plane in range(2 + SYMMETRIC):
        along_z = plane_kinds(z, plane)
        for j in tl.static_range(3):
            for k in tl.static_range(3):
                if j // 2 + k // 2 <= SYMMETRIC:  # noqa: SIM102
                    if plane + j // 2 + k // 2 < 3:
                        voxel = (along_z[0] * height + y[0][j]) * width + x[0][k]
                        if OF_MOVING:
                            shares = tap_weights(along_z, y, x, j, k)
                            add_channels(
                                of_moving, voxel, inside, turns, pulls, shares,
                                C, PARTS, LANES, VECTOR,
                            )  # fmt: skip
                        if OF_VECTORS:
                            found = channels_at(moving, voxel, C, PARTS, LANES, VECTOR)
                            turn = tl.sum(product(turns, found, 0, PARTS), axis=1, keep_dims=True)
                            pull = tl.sum(product(pulls, found, 0, PARTS), axis=1, keep_dims=True)
                            of_sample, of_slope = tap_weights_by(along_z, y, x, j, k)
                            force_z += of_sample[0] * turn + of_slope[0] * pull
                            force_y += of_sample[1] * turn + of_slope[1] * pull
                            force_x += of_sample[2] * turn + of_slope[2] * pull
    return force_z, force_y, force_x


@triton.jit(do_not_specialize=SIZES)
def squares_backward_kernel(
    fixed,
    moving,
    vectors,
    placement,
    weights,
    active,
    of_loss,
    of_gradient,
    of_fixed,
    of_moving,
    of_vectors,
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
    OF_FIXED: tl.constexpr,
    OF_MOVING: tl.constexpr,
    OF_VECTORS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradients of both results of ``squares_force_kernel``, as far as they are asked for.

    ``fixed`` ... ``active``: as there; ``of_loss [B]`` and ``of_gradient [B, 3, N]`` float32.
    Written ``of_fixed [B, N, C]`` and ``of_vectors [B, 3, N]``; added to ``of_moving [B, M, C]``,
    float32. Pairs that are not active are left alone. Grid ``(blocks, B)``.
    """
    pair, voxels = tl.program_id(1).to(tl.int64), fixed_depth * fixed_height * fixed_width
    if tl.load(active + pair) == 0:
        return
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None, None]
    inside = index < voxels
    fixed = lines_of(fixed, pair, TYPE, ALIGNED)
    moving = lines_of(moving, pair, TYPE, ALIGNED)
    placement += pair * 21
    field = pair * 3 * voxels
    z, y, x = placed_kinds(
        vectors + field, of_gradient + field, placement, index, inside, voxels,
        fixed_height, fixed_width, depth, height, width, SYMMETRIC,
    )  # fmt: skip
    here = channels_at(fixed, tl.minimum(index, voxels - 1), C, PARTS, LANES, VECTOR)
    residual, slope = _residual_and_slope(
        moving, here, z, y, x, height, width, SYMMETRIC, C, PARTS, LANES, VECTOR
    )
    share = tl.where(inside, 2.0 / (voxels * C).to(tl.float32), 0.0)
    if WEIGHTED:
        share *= tl.load(weights + pair * voxels + index, mask=inside, other=0.0)
    seed, pulls, turns, negative = tl.load(of_loss + pair), (), (), ()
    for part in tl.static_range(PARTS):
        turn = share * (slope[part] + seed * residual[part])
        pulls += (share * residual[part],)
        turns += (turn,)
        negative += (-turn,)
    if OF_FIXED:
        target = of_fixed + pair * voxels * C
        store_channels(target, index, inside, negative, C, PARTS, LANES, VECTOR)
    of_moving += pair * (depth * height * width) * C
    force_z, force_y, force_x = _pull(
        moving, of_moving, inside, turns, pulls, z, y, x, height, width,
        SYMMETRIC, OF_MOVING, OF_VECTORS, C, PARTS, LANES, VECTOR,
    )  # fmt: skip
    if OF_VECTORS:
        out = of_vectors + field + index
        for axis in tl.static_range(3):
            component = led(placement, force_z, force_y, force_x, axis)
            tl.store(out + axis * voxels, component, mask=inside)


def squares_force_backward(
    fixed: Tensor,
    moving: Tensor,
    vectors: Tensor,
    placement: Tensor,
    cotangents: tuple[Tensor, Tensor],
    wanted: Sequence[bool],
    *,
    symmetric: bool,
    weights: Tensor | None = None,
    active: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with respect to fixed, moving and vectors, in float32, features channels last.

    Args:
        fixed, moving, vectors, placement, symmetric, weights, active: see
            :func:`triton_reg.ops._triton.feature_force.squares_force`.
        cotangents: with respect to the loss ``[B]`` and the gradient ``[B, 3, D, H, W]``.
        wanted: which of the three; the others have no elements.
    """
    lines = FeatureLines.of(fixed, "fixed"), FeatureLines.of(moving, "moving")
    form = lines[0].form.beside(lines[1].form)
    shapes = [one.permute(0, 2, 3, 4, 1).shape for one in (fixed, moving)] + [vectors.shape]
    found = [
        vectors.new_zeros(shape if want else (len(vectors), 0, 0, 0, 0))
        for shape, want in zip(shapes, wanted, strict=True)
    ]
    of_loss, of_gradient = (one.to(vectors).contiguous() for one in cotangents)
    blocks = triton.cdiv(vectors[0, 0].numel(), form.block)
    squares_backward_kernel[(blocks, len(vectors))](
        lines[0].addresses, lines[1].addresses,
        vectors.contiguous(), placement.to(vectors).contiguous(),
        vectors if weights is None else weights.to(vectors).contiguous(),
        active_bytes(active, vectors), of_loss, of_gradient, *found,
        *lines[1].shape, *lines[0].shape, **form.constants,
        SYMMETRIC=symmetric, WEIGHTED=weights is not None,
        OF_FIXED=wanted[0], OF_MOVING=wanted[1], OF_VECTORS=wanted[2], **FUSED,
    )  # fmt: skip
    of_fixed, of_moving, of_vectors = found
    return of_fixed.permute(0, 4, 1, 2, 3), of_moving.permute(0, 4, 1, 2, 3), of_vectors
