"""Composition of displacements; the definitions stand in ``ops/compose.py``.

Roofline rows "SS x7" and "compose": a gather from the neighbourhood of each voxel, which the cache
serves; level 0 of one or two pairs stays in the L2 cache from one squaring to the next.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import triton
import triton.language as tl
from torch import Tensor

from triton_reg.ops._triton.layout import FUSED, SIZES, Shape, coordinates
from triton_reg.ops._triton.sampling import cell, sample_vectors

_BLOCK = 256


@triton.jit(do_not_specialize=SIZES)
def compose_kernel(
    first, second, target, scale1, scale2, depth, height, width, BLOCK: tl.constexpr
):
    """``scale1 first(x) + scale2 second(x + scale1 first(x))``, zero outside.

    All ``[B, 3, N]`` float32 in voxels. Grid ``(cdiv(N, BLOCK), B)``.
    """
    pair, voxels = tl.program_id(1).to(tl.int64), depth * height * width
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = voxel < voxels
    z, y, x = coordinates(voxel, height, width)
    first += pair * 3 * voxels + voxel
    d0 = scale1 * tl.load(first, mask=inside, other=0.0)
    d1 = scale1 * tl.load(first + voxels, mask=inside, other=0.0)
    d2 = scale1 * tl.load(first + 2 * voxels, mask=inside, other=0.0)
    z, fz = cell(z + d0)
    y, fy = cell(y + d1)
    x, fx = cell(x + d2)
    s0, s1, s2 = sample_vectors(
        second + pair * 3 * voxels, z, y, x, fz, fy, fx, depth, height, width, inside
    )
    target += pair * 3 * voxels + voxel
    tl.store(target, d0 + scale2 * s0, mask=inside)
    tl.store(target + voxels, d1 + scale2 * s1, mask=inside)
    tl.store(target + 2 * voxels, d2 + scale2 * s2, mask=inside)


def compose(
    first: Tensor,
    second: Tensor,
    shape: Shape,
    target: Tensor,
    *,
    scales: tuple[float, float] = (1.0, 1.0),
) -> None:
    """``a first(x) + b second(x + a first(x))`` of ``[B, 3, N]`` on one grid; scales ``a, b``.

    ``target`` is written, and is neither of the two that are read.
    """
    batch, _, voxels = first.shape
    compose_kernel[(triton.cdiv(voxels, _BLOCK), batch)](
        first, second, target, *map(float, scales), *shape, BLOCK=_BLOCK, **FUSED
    )


def integrate(velocity: Tensor, shape: Shape, steps: int, spare: Tensor) -> tuple[Tensor, Tensor]:
    """Scaling and squaring of ``[B, 3, N]``; the velocity is overwritten, as is ``spare``.

    The scaling is folded into the first squaring: powers of two are exact.

    Returns:
        The displacement and the memory left over: ``velocity`` and ``spare`` in some order.
    """
    scale = 0.5**steps
    for _ in range(steps):
        compose(velocity, velocity, shape, spare, scales=(scale, scale))
        velocity, spare, scale = spare, velocity, 1.0
    return velocity, spare
