"""Min-convolutions over the labels of each control point; see ``ops/min_convolution.py``.

Both take one launch that reads and writes every label once. The pooled one marches through the
planes of a control point's cube of labels, with three planes of costs and five of minima in
registers, and takes means within a plane as products with a banded matrix. The exact one gives each
thread whole lines of labels, along one axis after the other.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import triton
import triton.language as tl
from torch import Tensor

from triton_reg.ops._triton.layout import FUSED

_LINES = 256  # of labels, that a program of the exact min-convolution takes at least
_SMALLEST_PRODUCT = 16  # rows and columns


@triton.jit
def _lower(one, other):
    """The lower of two costs; NaN stays visible."""
    return tl.minimum(one, other, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _lowest_of_nine(cube, z, WIDTH: tl.constexpr, SIDE: tl.constexpr):
    """Minimum over 3 x 3 labels within plane ``z``, from one label outside of it: ``[SIDE, SIDE]``.

    Labels outside are those at the border; what lies beyond one label outside is of no meaning.
    """
    step = tl.arange(0, SIDE) - 1
    plane = cube + tl.minimum(z, WIDTH - 1) * (WIDTH * WIDTH)
    lowest = tl.full([SIDE, SIDE], float("inf"), tl.float32)
    for neighbour in tl.static_range(9):
        y = tl.minimum(tl.maximum(step + (neighbour // 3 - 1), 0), WIDTH - 1)
        x = tl.minimum(tl.maximum(step + (neighbour % 3 - 1), 0), WIDTH - 1)
        lowest = _lower(lowest, tl.load(plane + y[:, None] * WIDTH + x[None, :]))
    return lowest


@triton.jit
def _five_taps(minimum, label, WIDTH: tl.constexpr):
    """How often the two means count a minimum, which lies one outside or a label further on."""
    count = tl.zeros_like(minimum + label)
    for step in tl.static_range(-2, 3):
        read = tl.minimum(tl.maximum(label + step, -1), WIDTH) + 1
        count += tl.where(read == minimum, 3 - tl.maximum(step, -step), 0)
    return count.to(tl.float32)


@triton.jit
def pooled_kernel(
    source,
    target,
    WIDTH: tl.constexpr,
    ROW: tl.constexpr,
    SIDE: tl.constexpr,
    LABELS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Minimum and two means over 3 x 3 x 3 labels of ``[B, P, ROW]``. Grid ``(P, B)``.

    ``SIDE`` and ``LABELS``: a plane with, and without, one label more on every side, rounded up.
    """
    point = tl.program_id(1).to(tl.int64) * tl.num_programs(0) + tl.program_id(0)
    cube, target = source + point * ROW, target + point * ROW
    minimum, label = tl.arange(0, SIDE), tl.arange(0, LABELS)
    taps_y = _five_taps(minimum[None, :], label[:, None], WIDTH)
    taps_x = _five_taps(minimum[:, None], label[None, :], WIDTH)
    inside = (label[:, None] < WIDTH) & (label[None, :] < WIDTH)
    out = target + label[:, None] * WIDTH + label[None, :]
    far = _lowest_of_nine(cube, 0, WIDTH, SIDE)
    near, before = far, _lowest_of_nine(cube, 1, WIDTH, SIDE)
    here = _lowest_of_nine(cube, 2, WIDTH, SIDE)
    middle = _lower(far, before)
    nearer = _lower(middle, here)
    for z in range(WIDTH):
        after = _lowest_of_nine(cube, z + 3, WIDTH, SIDE)
        farther = _lower(_lower(before, here), after)
        # counted thrice, twice and once, in whole numbers until the end
        mean = 3 * middle + 2 * (near + nearer) + (far + farther)
        mean = tl.dot(taps_y, mean, input_precision=PRECISION)
        mean = tl.dot(mean, taps_x, input_precision=PRECISION)
        tl.store(out + z * (WIDTH * WIDTH), mean * (1 / 729), mask=inside)
        far, near, middle, nearer = near, middle, nearer, farther
        before, here = here, after


@triton.jit
def _envelope(source, target, inside, prices, STRIDE: tl.constexpr, WIDTH: tl.constexpr):
    """Lower envelopes of parabolas along whole lines of labels, which a thread reads and writes."""
    line = ()
    for label in tl.static_range(WIDTH):
        line += (tl.load(source + label * STRIDE, mask=inside, other=0.0),)
    for label in tl.static_range(WIDTH):
        lowest = line[label]
        for other in tl.static_range(WIDTH):
            if other != label:
                price = prices[other - label if other > label else label - other]
                lowest = _lower(lowest, line[other] + price)
        tl.store(target + label * STRIDE, lowest, mask=inside)


@triton.jit(do_not_specialize=("points",))
def exact_kernel(
    source, target, points, curvature, WIDTH: tl.constexpr, ROW: tl.constexpr, LINES: tl.constexpr
):
    """``min_k cost(k) + curvature |l - k|²`` of ``[B, P, ROW]``, ``P = points``.

    Grid ``(cdiv(P, LINES // WIDTH²), B)``. Axes hand over through the cache, within a program.
    """
    PLANE: tl.constexpr = WIDTH * WIDTH
    POINTS: tl.constexpr = LINES // PLANE
    lane = tl.arange(0, LINES)
    point, line = tl.program_id(0) * POINTS + lane // PLANE, lane % PLANE
    inside = (lane < POINTS * PLANE) & (point < points)
    cube = tl.program_id(1).to(tl.int64) * points * ROW + point * ROW
    prices = ()
    for distance in tl.static_range(WIDTH):
        prices += (curvature * (distance * distance),)
    target += cube
    _envelope(source + cube + line, target + line, inside, prices, PLANE, WIDTH)
    tl.debug_barrier()
    row = target + line // WIDTH * PLANE + line % WIDTH
    _envelope(row, row, inside, prices, WIDTH, WIDTH)
    tl.debug_barrier()
    _envelope(target + line * WIDTH, target + line * WIDTH, inside, prices, 1, WIDTH)


def pooled_min_convolution(source: Tensor, width: int, target: Tensor) -> None:
    """Labels of ``source [B, P, ROW]`` into those of ``target``, another piece of memory."""
    side = max(_SMALLEST_PRODUCT, triton.next_power_of_2(width + 2))
    pooled_kernel[(source.shape[1], len(source))](
        source, target, WIDTH=width, ROW=source.shape[2], SIDE=side,
        LABELS=max(_SMALLEST_PRODUCT, triton.next_power_of_2(width)), PRECISION="ieee",
        num_warps=max(1, side * side // 256), **FUSED,
    )  # fmt: skip


def exact_min_convolution(source: Tensor, width: int, curvature: float, target: Tensor) -> None:
    """Labels of ``source [B, P, ROW]`` into those of ``target``, another piece of memory."""
    lines = max(_LINES, triton.next_power_of_2(width**2))
    blocks = triton.cdiv(source.shape[1], lines // width**2)
    exact_kernel[(blocks, len(source))](
        source, target, source.shape[1], curvature, WIDTH=width, ROW=source.shape[2], LINES=lines,
        num_warps=min(lines // 32, 32), **FUSED,
    )  # fmt: skip
