"""Lengths, folds between voxels and bending; the definitions stand in ``metrics/deformation.py``.

One sweep; each block leaves its sums in float64 and they are added in one order.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import torch
import triton
import triton.language as tl
from torch import Tensor

from triton_reg.ops._triton.jacobian import determinant
from triton_reg.ops._triton.layout import FUSED, SIZES, coordinates

_BLOCK = 128


@triton.jit
def _cube(first, voxels, height, width, inside):
    """The vectors at the eight corners of each voxel's cube, ``3 corner + component``."""
    values = ()
    for index in tl.static_range(8):
        place = first + (index // 4 * height + index // 2 % 2) * width + index % 2
        for component in tl.static_range(3):
            values += (tl.load(place + component * voxels, mask=inside, other=0.0),)
    return values


@triton.jit
def _edge(cube, FROM: tl.constexpr, TO: tl.constexpr):
    """What two corners' vectors differ by."""
    first = cube[3 * TO] - cube[3 * FROM]
    second = cube[3 * TO + 1] - cube[3 * FROM + 1]
    return first, second, cube[3 * TO + 2] - cube[3 * FROM + 2]


@triton.jit
def _inverted(cube):
    """Six times the volume that each cube turns inside out, in both ways to split it."""
    turned = tl.zeros_like(cube[0])
    # the tetrahedra at the corners: edges that point up their axes, whichever way they lead
    for index in tl.static_range(8):
        a, b, c = _edge(cube, index & 3, index | 4)
        d, e, f = _edge(cube, index & 5, index | 2)
        g, h, i = _edge(cube, index & 6, index | 1)
        turned -= tl.minimum(determinant(a + 1, b, c, d, e + 1, f, g, h, i + 1), 0.0)
    # the two in the middle, between every other corner
    for index in tl.static_range(2):
        a, b, c = _edge(cube, index, index + 6)
        d, e, f = _edge(cube, 2 * index, 2 * index + 5)
        g, h, i = _edge(cube, 4 * index, 4 * index + 3)
        middle = determinant(a + 1, b + 1, c, d + 1, e, f + 1, g, h + 1, i + 1)
        turned += tl.maximum(middle, 0.0)
    return turned


@triton.jit
def _second(values, step, inside):
    """The second difference along an axis whose voxels lie ``step`` apart."""
    before = tl.load(values - step, mask=inside, other=0.0)
    here = tl.load(values, mask=inside, other=0.0)
    return before - 2 * here + tl.load(values + step, mask=inside, other=0.0)


@triton.jit
def _mixed(values, one, other, inside):
    """The mixed second difference along two axes."""
    up = tl.load(values + one + other, mask=inside, other=0.0)
    up -= tl.load(values + one - other, mask=inside, other=0.0)
    down = tl.load(values - one + other, mask=inside, other=0.0)
    down -= tl.load(values - one - other, mask=inside, other=0.0)
    return (up - down) / 4


@triton.jit
def _bent(values, stride, width, step0, step1, step2, inside):
    """Sum of the squared second derivatives of one component, but for its own spacing."""
    zz = _second(values, stride, inside) / (step0 * step0)
    yy = _second(values, width, inside) / (step1 * step1)
    xx = _second(values, 1, inside) / (step2 * step2)
    zy = _mixed(values, stride, width, inside) / (step0 * step1)
    zx = _mixed(values, stride, 1, inside) / (step0 * step2)
    yx = _mixed(values, width, 1, inside) / (step1 * step2)
    return zz * zz + yy * yy + xx * xx + 2 * (zy * zy + zx * zx + yx * yx)


@triton.jit(do_not_specialize=SIZES)
def deformation_kernel(
    vectors, lengths, sums, step0, step1, step2, depth, height, width, BLOCK: tl.constexpr
):
    """What is turned inside out and how space bends, of ``u = vectors [B, 3, N]`` float32.

    ``lengths [B, N]`` in mm, for voxels of ``step`` mm; ``sums [B, 2, blocks]`` float64: six times
    the volume that the cubes turn inside out, in voxels, both ways to split them added; and the
    squared second derivatives inside, in 1/mm². Grid ``(blocks, B)``.
    """
    pair, voxels = tl.program_id(1).to(tl.int64), depth * height * width
    voxel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = voxel < voxels
    z, y, x = coordinates(voxel, height, width)
    first, stride = vectors + pair * 3 * voxels + voxel, height * width
    is_cube = inside & (z < depth - 1) & (y < height - 1) & (x < width - 1)
    turned = _inverted(_cube(first, voxels, height, width, is_cube))
    is_inner = is_cube & (z > 0) & (y > 0) & (x > 0)
    bent = step0 * step0 * _bent(first, stride, width, step0, step1, step2, is_inner)
    second, third = first + voxels, first + 2 * voxels
    bent += step1 * step1 * _bent(second, stride, width, step0, step1, step2, is_inner)
    bent += step2 * step2 * _bent(third, stride, width, step0, step1, step2, is_inner)
    a = step0 * tl.load(first, mask=inside, other=0.0)
    b = step1 * tl.load(second, mask=inside, other=0.0)
    c = step2 * tl.load(third, mask=inside, other=0.0)
    tl.store(lengths + pair * voxels + voxel, tl.sqrt(a * a + b * b + c * c), mask=inside)
    blocks = tl.num_programs(0)
    row = sums + pair * 2 * blocks + tl.program_id(0)
    tl.store(row, tl.sum(tl.where(is_cube, turned, 0.0).to(tl.float64), axis=0))
    tl.store(row + blocks, tl.sum(tl.where(is_inner, bent, 0.0).to(tl.float64), axis=0))


def deformation_sweep(
    vectors: Tensor, spacing_mm: tuple[float, float, float]
) -> tuple[Tensor, Tensor, Tensor]:
    """Of ``vectors [B, 3, D, H, W]`` float32 in voxels: the lengths ``[B, N]`` in mm, the share of
    the volume that is turned inside out, and the bending energy in 1/mm², ``[B]`` float64."""
    vectors = vectors.contiguous()
    batch, _, depth, height, width = vectors.shape
    voxels = depth * height * width
    blocks = triton.cdiv(voxels, _BLOCK)
    lengths = vectors.new_empty(batch, voxels)
    sums = torch.empty(batch, 2, blocks, dtype=torch.float64, device=vectors.device)
    deformation_kernel[(blocks, batch)](
        vectors, lengths, sums, *map(float, spacing_mm), depth, height, width,
        BLOCK=_BLOCK, **FUSED,
    )  # fmt: skip
    turned, bent = sums.sum(2).unbind(1)
    cubes = (depth - 1) * (height - 1) * (width - 1)
    return lengths, turned / (12 * cubes), bent / ((depth - 2) * (height - 2) * (width - 2))
