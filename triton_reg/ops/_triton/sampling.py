"""Trilinear and nearest sampling positions, shared by the kernels that gather."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import triton
import triton.language as tl


@triton.jit
def cell(position):
    """The voxel below a position, int32, and the fraction of a voxel above it."""
    below = tl.floor(position)
    return below.to(tl.int32), position - below


@triton.jit
def nearest(position):
    """The nearest voxel, float32; halves go to the even one, as in ``torch.round``."""
    below = tl.floor(position)
    fraction = position - below
    is_odd = below - 2 * tl.floor(below / 2) == 1
    return tl.where((fraction > 0.5) | ((fraction == 0.5) & is_odd), below + 1, below)


@triton.jit
def corner(z, y, x, fz, fy, fx, depth, height, width, CORNER: tl.constexpr):
    """Flat index, trilinear weight and existence of one of a cell's eight corners."""
    UP: tl.constexpr = CORNER // 4
    ASIDE: tl.constexpr = CORNER // 2 % 2
    ALONG: tl.constexpr = CORNER % 2
    cz, cy, cx = z + UP, y + ASIDE, x + ALONG
    valid = (cz >= 0) & (cz < depth) & (cy >= 0) & (cy < height) & (cx >= 0) & (cx < width)
    weight = (fz if UP == 1 else 1 - fz) * (fy if ASIDE == 1 else 1 - fy)
    return (cz * height + cy) * width + cx, weight * (fx if ALONG == 1 else 1 - fx), valid


@triton.jit
def sample_vectors(vectors, z, y, x, fz, fy, fx, depth, height, width, inside):
    """Trilinear sample of ``vectors [3, N]``, zero outside: its three components."""
    voxels = depth * height * width
    first = tl.zeros_like(fz)
    second, third = first, first
    for index in tl.static_range(8):
        place, weight, valid = corner(z, y, x, fz, fy, fx, depth, height, width, index)
        valid = valid & inside
        first += weight * tl.load(vectors + place, mask=valid, other=0.0)
        second += weight * tl.load(vectors + voxels + place, mask=valid, other=0.0)
        third += weight * tl.load(vectors + 2 * voxels + place, mask=valid, other=0.0)
    return first, second, third
