"""What the voxels around a position weigh in its sample and slopes, and how that turns with it."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import triton
import triton.language as tl

from triton_reg.ops._triton.taps import axis_taps, placed_positions


@triton.jit
def _towards(placement, toward_0, toward_1, toward_2):
    """A row of the lead times a vector: the cotangent along an axis of the moving volume."""
    return (
        tl.load(placement + 4) * toward_0
        + tl.load(placement + 5) * toward_1
        + tl.load(placement + 6) * toward_2
    )


@triton.jit
def placed_kinds(
    vectors,
    of_gradient,
    placement,
    index,
    inside,
    voxels,
    fixed_height,
    fixed_width,
    depth,
    height,
    width,
    SYMMETRIC: tl.constexpr,
):
    """The :func:`axis_kinds` of the three axes along a cotangent of the gradient; of one pair."""
    there_z, there_y, there_x = placed_positions(
        vectors, placement, index, inside, voxels, fixed_height, fixed_width
    )
    toward_0 = tl.load(of_gradient + index, mask=inside, other=0.0)
    toward_1 = tl.load(of_gradient + voxels + index, mask=inside, other=0.0)
    toward_2 = tl.load(of_gradient + 2 * voxels + index, mask=inside, other=0.0)
    along_z = _towards(placement, toward_0, toward_1, toward_2)
    along_y = _towards(placement + 7, toward_0, toward_1, toward_2)
    along_x = _towards(placement + 14, toward_0, toward_1, toward_2)
    return (
        axis_kinds(there_z, depth, along_z, SYMMETRIC),
        axis_kinds(there_y, height, along_y, SYMMETRIC),
        axis_kinds(there_x, width, along_x, SYMMETRIC),
    )


@triton.jit
def axis_kinds(position, size, toward, SYMMETRIC: tl.constexpr):
    """Of the three taps of an axis: places, shares, slopes along ``toward``, their derivatives."""
    places, shares, slopes = axis_taps(position, size, SYMMETRIC)
    below = tl.floor(position)
    near, cell = position - below < 0.5, below.to(tl.int32)
    low = tl.where((cell >= 0) & (cell < size), 1.0, 0.0)
    high = tl.where((cell >= -1) & (cell < size - 1), 1.0, 0.0)
    nothing = tl.zeros_like(low)
    bends = (nothing, nothing, nothing)
    if SYMMETRIC:
        other = tl.where(near, cell - 1, cell + 2)
        outer = tl.where((other >= 0) & (other < size), 1.0, 0.0)
        bends = (
            toward * tl.where(near, -2.0, 1.0) * low,
            toward * tl.where(near, 1.0, -2.0) * high,
            toward * outer,
        )
    return (
        places,
        (shares[0], shares[1], nothing),
        (toward * slopes[0], toward * slopes[1], toward * slopes[2]),
        (-low, high, nothing),
        bends,
    )


@triton.jit
def plane_kinds(z, plane):
    """Of the first axis' taps the one that is called for: place, share, slope, derivatives."""
    return (
        _chosen(z[0], plane),
        _chosen(z[1], plane),
        _chosen(z[2], plane),
        _chosen(z[3], plane),
        _chosen(z[4], plane),
    )


@triton.jit
def _chosen(taps, which):
    return tl.where(which == 0, taps[0], tl.where(which == 1, taps[1], taps[2]))


@triton.jit
def tap_weights(z, y, x, j: tl.constexpr, k: tl.constexpr):
    """Of the voxel at a tap of the first axis and ``j, k``: its weight in sample and slope."""
    value = z[1] * y[1][j] * x[1][k]
    across = z[2] * y[1][j] + z[1] * y[2][j]
    return value, across * x[1][k] + z[1] * y[1][j] * x[2][k]


@triton.jit
def tap_weights_by(z, y, x, j: tl.constexpr, k: tl.constexpr):
    """The derivatives of :func:`tap_weights` by the position: three of the sample's, three."""
    _, v_z, s_z, dv_z, ds_z = z
    v_y, s_y, dv_y, ds_y = y[1][j], y[2][j], y[3][j], y[4][j]
    v_x, s_x, dv_x, ds_x = x[1][k], x[2][k], x[3][k], x[4][k]
    return (
        (dv_z * v_y * v_x, v_z * dv_y * v_x, v_z * v_y * dv_x),
        (
            ds_z * v_y * v_x + dv_z * (s_y * v_x + v_y * s_x),
            (s_z * dv_y + v_z * ds_y) * v_x + v_z * dv_y * s_x,
            (s_z * v_y + v_z * s_y) * dv_x + v_z * v_y * ds_x,
        ),
    )
