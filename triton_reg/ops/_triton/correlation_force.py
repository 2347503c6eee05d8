"""One minus the local correlation and its gradient; defined in ``ops/feature_force.py``.

Sampled features go to memory, sums over cubes are taken axis by axis, and the last launch sums what
the gradient is made of along the first axis while it samples slopes: 42 values a channel and voxel
are moved. Pairs go in groups whose sums fit into a share of memory.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import torch
import triton
import triton.language as tl
from torch import Tensor

from triton_reg.ops._triton.correlation_kernels import (
    coefficients_kernel,
    window_axis_kernel,
    window_products_kernel,
    window_sum,
)
from triton_reg.ops._triton.feature_force import active_bytes, led
from triton_reg.ops._triton.feature_lines import FeatureLines, channels_at, lines_of
from triton_reg.ops._triton.layout import FUSED, SIZES
from triton_reg.ops._triton.reduction import reduced
from triton_reg.ops._triton.taps import corners, placed_taps, pulled_along, values_of

_BLOCK = 256
_GROUP_BYTES = 2**33  # of sums at a time


@triton.jit(do_not_specialize=SIZES)
def correlation_force_kernel(
    fixed,
    moving,
    vectors,
    placement,
    active,
    warped,
    factors,
    gradient,
    radius,
    depth,
    height,
    width,
    fixed_depth,
    fixed_height,
    fixed_width,
    TYPE: tl.constexpr,
    C: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    LANES: tl.constexpr,
    VECTOR: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    SAMPLED: tl.constexpr,
):
    """Write ``warped [B, N, C]`` if ``SAMPLED``, else read it and write the gradient ``[B, 3, N]``.

    ``factors [3, B, N C]``: what :func:`coefficients_kernel` makes, summed along two axes. The
    others are those of ``squares_force_kernel``. Grid ``(cdiv(N, BLOCK), B)``.
    """
    pair, voxels = tl.program_id(1).to(tl.int64), fixed_depth * fixed_height * fixed_width
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None, None]
    inside, batch = index < voxels, tl.num_programs(1)
    out = gradient + pair * 3 * voxels + index
    if tl.load(active + pair) == 0:
        if not SAMPLED:
            for axis in tl.static_range(3):
                tl.store(out + axis * voxels, tl.zeros([BLOCK, 1, 1], tl.float32), mask=inside)
        return
    moving = lines_of(moving, pair, TYPE, ALIGNED)
    placement += pair * 21
    z, y, x = placed_taps(
        vectors + pair * 3 * voxels, placement, index, inside, voxels, fixed_height, fixed_width,
        depth, height, width, SYMMETRIC,
    )  # fmt: skip
    found = corners(moving, z, y, x, height, width, C, PARTS, LANES, VECTOR)
    channel = tl.arange(0, LANES)[None, :, None] * VECTOR + tl.arange(0, VECTOR)[None, None, :]
    lanes = voxels.to(tl.int64) * C
    warped += pair * lanes
    if SAMPLED:
        values = values_of(found, z, y, x, PARTS)
        for part in tl.static_range(PARTS):
            there = channel + part * LANES * VECTOR
            tl.store(warped + index * C + there, values[part], mask=inside & (there < C))
    else:
        here = channels_at(
            lines_of(fixed, pair, TYPE, ALIGNED), tl.minimum(index, voxels - 1),
            C, PARTS, LANES, VECTOR,
        )  # fmt: skip
        plane = fixed_height * fixed_width
        place, stride = index // plane, plane * C
        factors += pair * lanes
        pull = ()
        for part in tl.static_range(PARTS):
            there = channel + part * LANES * VECTOR
            valid, lane = inside & (there < C), index * C + there
            own = tl.load(warped + lane, mask=valid, other=0.0)
            first = factors + lane
            second, third = first + batch * lanes, first + 2 * batch * lanes
            total = here[part] * window_sum(first, place, fixed_depth, stride, radius, valid)
            total -= own * window_sum(second, place, fixed_depth, stride, radius, valid)
            total -= window_sum(third, place, fixed_depth, stride, radius, valid)
            pull += (total,)
        force_z, force_y, force_x = pulled_along(
            moving, found, pull, z, y, x, height, width, SYMMETRIC, C, PARTS, LANES, VECTOR
        )
        for axis in tl.static_range(3):
            component = led(placement, force_z, force_y, force_x, axis)
            tl.store(out + axis * voxels, component, mask=inside)


def correlation_force(
    fixed: Tensor,
    moving: Tensor,
    vectors: Tensor,
    placement: Tensor,
    window: int,
    *,
    symmetric: bool,
    weights: Tensor | None = None,
    active: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Loss ``[B]`` and gradient ``[B, 3, D, H, W]``, see ``feature_force``; of a few pairs each."""
    batch, pair_bytes = len(fixed), 11 * 4 * fixed[0].numel()
    group = max(1, _GROUP_BYTES // pair_bytes)
    mask = active_bytes(active, vectors)
    found = []
    for start in range(0, batch, group):
        some = slice(start, start + group)
        found.append(
            _group_force(
                (FeatureLines.of(fixed[some], "fixed"), FeatureLines.of(moving[some], "moving")),
                (vectors[some].contiguous(), placement[some].to(vectors).contiguous()),
                None if weights is None else weights[some].to(vectors).contiguous(),
                mask[some],
                window,
                symmetric,
            )
        )
    losses, gradients = zip(*found, strict=True)
    return torch.cat(losses), torch.cat(gradients)


def _group_force(
    lines: tuple[FeatureLines, FeatureLines],
    placed_vectors: tuple[Tensor, Tensor],
    weights: Tensor | None,
    active: Tensor,
    window: int,
    symmetric: bool,
) -> tuple[Tensor, Tensor]:
    fixed, moving = lines
    vectors, placement = placed_vectors
    form = fixed.form.beside(moving.form)
    batch, radius, channels = len(vectors), window // 2, form.channels
    (depth, height, width), lanes = fixed.shape, fixed.kept[0].numel()
    sums, spare = vectors.new_empty(2, 5, batch, lanes).unbind()
    warped, gradient = vectors.new_empty(batch, lanes), torch.empty_like(vectors)

    def over_positions(sampled: bool) -> None:
        correlation_force_kernel[(triton.cdiv(depth * height * width, form.block), batch)](
            fixed.addresses, moving.addresses, vectors, placement, active, warped, sums, gradient,
            radius, *moving.shape, *fixed.shape,
            **form.constants, SYMMETRIC=symmetric, SAMPLED=sampled, **FUSED,
        )  # fmt: skip

    blocks = triton.cdiv(lanes, _BLOCK)
    over_positions(sampled=True)
    window_products_kernel[(blocks, batch)](
        fixed.addresses, warped, sums, active, width, lanes, radius,
        TYPE=form.constants["TYPE"], C=channels, ALIGNED=form.aligned, BLOCK=_BLOCK, **FUSED,
    )  # fmt: skip
    _sum_along(sums, spare, active, height, width * channels, radius)
    partial = vectors.new_empty(batch, blocks)
    coefficients_kernel[(blocks, batch)](
        spare, sums, vectors if weights is None else weights, active, partial,
        depth, height * width * channels, lanes, radius, float(window**3),
        C=channels, WEIGHTED=weights is not None, BLOCK=_BLOCK, **FUSED,
    )  # fmt: skip
    _sum_along(sums[:3], spare[:3], active, width, channels, radius)
    _sum_along(spare[:3], sums[:3], active, height, width * channels, radius)
    over_positions(sampled=False)
    return reduced(partial, maximum=False, scale=1 / lanes), gradient


def _sum_along(
    source: Tensor, target: Tensor, active: Tensor, size: int, stride: int, radius: int
) -> None:
    """Sums along an axis of ``[K, B, lanes]``."""
    fields, batch, lanes = source.shape
    window_axis_kernel[(triton.cdiv(lanes, _BLOCK), fields * batch)](
        source, target, active, batch, size, stride, lanes, radius, BLOCK=_BLOCK, **FUSED
    )
