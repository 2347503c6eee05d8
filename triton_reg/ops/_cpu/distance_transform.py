"""Exact squared distances to the nearest voxel of a set, axis by axis.

Each axis adds its squared steps to what the axes before it have found and takes the least. The
first two go over whole planes and rows at once, so that they vectorise; the last is the lower
envelope of parabolas of Felzenszwalb and Huttenlocher, "Distance transforms of sampled functions",
Theory of Computing 8, 2012.
"""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL, f4

_FAR = f4(np.inf)
# distances are never NaN, and may be reordered: least and greatest of a row vectorise
DISTANCES = {**KERNEL, "fastmath": {"contract", "nnan", "nsz"}}


def distance_transform(masks: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Squared distances ``[N, D, H, W]`` float32 of ``masks [N, D, H, W]`` bool."""
    squares = np.array(spacing, np.float64) ** 2
    result = np.empty(masks.shape, np.float32)
    for mask, out in zip(masks, result, strict=True):
        _distances(mask, squares, out)
    return result


@njit(**DISTANCES)
def _distances(mask, squares, out):
    depth, height, width = mask.shape
    steps = np.empty((depth, height, width), np.float32)
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                steps[z, y, x] = f4(0) if mask[z, y, x] else _FAR
    along_depth(steps.reshape(depth, height * width), f4(squares[0]))
    line = np.empty(width, np.float32)
    site, limit = np.empty(width, np.int64), np.empty(width, np.float64)
    for z in range(depth):
        for y in range(height):
            along_height(steps[z], y, f4(squares[1]), line)
            _along_width(line, squares[2], site, limit, out[z, y])


@njit(**DISTANCES)
def along_depth(planes, square):
    """Squared distances along the first axis of ``planes [D, N]``, zero or infinite, in place."""
    depth, count = planes.shape
    for z in range(1, depth):
        here, before = planes[z], planes[z - 1]
        for i in range(count):
            here[i] = min(here[i], before[i] + f4(1))
    for z in range(depth - 2, -1, -1):
        here, after = planes[z], planes[z + 1]
        for i in range(count):
            here[i] = min(here[i], after[i] + f4(1))
    for z in range(depth):
        here = planes[z]
        for i in range(count):
            here[i] = here[i] * here[i] * square


@njit(**DISTANCES)
def along_height(rows, place, square, out):
    """The least of ``rows[y] + square (y - place)²`` over the rows ``[H, W]``, into ``out [W]``.

    ``place`` may lie outside the rows. Looks at ever farther rows until none can be nearer.
    """
    height, width = rows.shape
    first, last = max(max(-place, place - height + 1), 0), max(place, height - 1 - place)
    near, far = f4(first * first) * square, f4((first + 1) * (first + 1)) * square
    low, high, below, above = _four_rows(rows, place, first)
    for x in range(width):
        out[x] = min(min(low[x], high[x]) + near, min(below[x], above[x]) + far)
    for step in range(first + 2, last + 1, 2):
        near, far = f4(step * step) * square, f4((step + 1) * (step + 1)) * square
        beyond = 0  # a sum, because a greatest does not vectorise
        for x in range(width):
            beyond += out[x] > near
        if beyond == 0:
            break
        low, high, below, above = _four_rows(rows, place, step)
        for x in range(width):
            nearest = min(min(low[x], high[x]) + near, min(below[x], above[x]) + far)
            out[x] = min(out[x], nearest)


@njit(**DISTANCES)
def _four_rows(rows, place, step):
    """The rows ``step`` and ``step + 1`` away on either side. Instead of one beyond the last, the
    last again: as seen from too far away it changes nothing."""
    last = rows.shape[0] - 1
    low, high = rows[max(place - step, 0)], rows[min(place + step, last)]
    return low, high, rows[max(place - step - 1, 0)], rows[min(place + step + 1, last)]


@njit(**DISTANCES)
def _along_width(line, square, site, limit, out):
    """The least of ``line[i] + square (i - x)²``, into ``out``: the parabolas that reach the lower
    envelope stand in ``site``, each from ``limit`` on."""
    width, count = line.shape[0], 0
    for x in range(width):
        if line[x] == _FAR:
            continue
        start = -np.inf
        while count > 0:
            other = site[count - 1]
            rise = (np.float64(line[x]) - np.float64(line[other])) / square
            start = (rise + (x * x - other * other)) / (2 * (x - other))
            if start > limit[count - 1]:
                break
            count -= 1
            start = -np.inf
        site[count], limit[count] = x, start
        count += 1
    out[:] = _FAR
    parabola = 0
    for x in range(width if count else 0):
        while parabola + 1 < count and limit[parabola + 1] < x:
            parabola += 1
        away = np.float64(x - site[parabola])
        out[x] = f4(np.float64(line[site[parabola]]) + square * away * away)
