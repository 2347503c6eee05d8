"""Gradients of a composition; the definition stands in ``ops/compose.py``.

What many voxels add to one is added as whole numbers, whose sum does not depend on the order: a
descent through it gives the same bits each time. A unit is 2⁻³¹ of the pair's largest gradient or
less, so that 2²⁷ voxels that all lead to one still do not overflow.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import torch
import triton
import triton.language as tl
from torch import Tensor

from triton_reg.ops._triton.layout import FUSED, SIZES, Shape, coordinates
from triton_reg.ops._triton.reduction import reduced
from triton_reg.ops._triton.sampling import cell, corner

_BLOCK = 128
_UNIT_BITS, _MOST_BITS = 31, 126  # of float32's powers of two


@triton.jit
def _add_whole(target, value, mask):
    tl.atomic_add(target, tl.floor(value + 0.5).to(tl.int64), mask=mask, sem="relaxed")


@triton.jit(do_not_specialize=SIZES)
def compose_backward_kernel(
    first,
    second,
    gradient,
    units,
    of_first,
    of_second,
    depth,
    height,
    width,
    BLOCK: tl.constexpr,
):
    """With respect to both of ``first(x) + second(x + first(x))``.

    ``first``, ``second``, ``gradient`` and, written, ``of_first [B, 3, N]`` float32; ``units [B]``:
    how many are 1. Added to ``of_second [B, 3, N]``, int64 in units. Grid ``(cdiv(N, BLOCK), B)``.
    """
    pair, voxels = tl.program_id(1).to(tl.int64), depth * height * width
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = voxel < voxels
    z, y, x = coordinates(voxel, height, width)
    own = pair * 3 * voxels + voxel
    z, fz = cell(z + tl.load(first + own, mask=inside, other=0.0))
    y, fy = cell(y + tl.load(first + own + voxels, mask=inside, other=0.0))
    x, fx = cell(x + tl.load(first + own + 2 * voxels, mask=inside, other=0.0))
    g0 = tl.load(gradient + own, mask=inside, other=0.0)
    g1 = tl.load(gradient + own + voxels, mask=inside, other=0.0)
    g2 = tl.load(gradient + own + 2 * voxels, mask=inside, other=0.0)
    unit = tl.load(units + pair)
    second += pair * 3 * voxels
    of_second += pair * 3 * voxels
    along_z, along_y, along_x = g0, g1, g2
    for index in tl.static_range(8):
        place, weight, valid = corner(z, y, x, fz, fy, fx, depth, height, width, index)
        valid = valid & inside
        share = weight * unit
        _add_whole(of_second + place, share * g0, valid)
        _add_whole(of_second + voxels + place, share * g1, valid)
        _add_whole(of_second + 2 * voxels + place, share * g2, valid)
        pull = g0 * tl.load(second + place, mask=valid, other=0.0)
        pull += g1 * tl.load(second + voxels + place, mask=valid, other=0.0)
        pull += g2 * tl.load(second + 2 * voxels + place, mask=valid, other=0.0)
        share_z = fz if index // 4 == 1 else 1 - fz
        share_y = fy if index // 2 % 2 == 1 else 1 - fy
        share_x = fx if index % 2 == 1 else 1 - fx
        along_z += (2 * (index // 4) - 1) * share_y * share_x * pull
        along_y += (2 * (index // 2 % 2) - 1) * share_z * share_x * pull
        along_x += (2 * (index % 2) - 1) * share_z * share_y * pull
    tl.store(of_first + own, along_z, mask=inside)
    tl.store(of_first + own + voxels, along_y, mask=inside)
    tl.store(of_first + own + 2 * voxels, along_x, mask=inside)


def compose_backward(
    first: Tensor, second: Tensor, gradient: Tensor, shape: Shape
) -> tuple[Tensor, Tensor]:
    """With respect to ``first`` and ``second``; all ``[B, 3, N]`` float32.

    A pair whose gradient is not finite has none.
    """
    batch, _, voxels = first.shape
    largest = reduced(gradient.abs().flatten(1), maximum=True)
    # a power of two: to multiply by it rounds nothing
    bits = (_UNIT_BITS - torch.frexp(largest).exponent).clamp(max=_MOST_BITS)
    units = torch.ldexp(torch.ones_like(largest), bits)
    units = torch.where(largest.isfinite(), units, torch.nan)
    of_first = torch.empty_like(first)
    of_second = torch.zeros(first.shape, dtype=torch.int64, device=first.device)
    compose_backward_kernel[(triton.cdiv(voxels, _BLOCK), batch)](
        first, second, gradient, units, of_first, of_second, *shape, BLOCK=_BLOCK, **FUSED
    )
    return of_first, (of_second.double() / units.view(-1, 1, 1).double()).float()
