"""The 3 x 3 columns around each column of voxels: what a pass of the three-tap filter reads.

A program owns a block of columns (along axis 0) and marches through their planes. It keeps the
columns' values of two planes in registers and loads the third: each value is read from memory once
for each of its nine columns, and nothing is exchanged between threads.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportReturnType=false
# (triton annotates its language for its own compiler, not for a type checker)

import triton
import triton.language as tl


@triton.jit
def block_of_columns(plane, depth, planes, BLOCK: tl.constexpr):
    """Index within a plane ``[BLOCK]``, and the first and last-plus-one plane of this program."""
    blocks = tl.cdiv(plane, BLOCK)
    index = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    first = (tl.program_id(0) // blocks) * planes
    return index, first, tl.minimum(first + planes, depth)


@triton.jit
def nine_columns(index, height, width):
    """Which of the columns around the column ``index`` exist: nine masks, row by row."""
    y, x = index // width, index % width
    inside = ()
    for neighbour in tl.static_range(9):
        dy, dx = neighbour // 3 - 1, neighbour % 3 - 1
        inside += ((y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width),)
    return inside


@triton.jit
def load_plane(volume, z, depth, plane, index, width, inside):
    """The values around ``index`` in plane ``z`` of ``volume [depth, plane]``; zero outside."""
    level = tl.full(index.shape, z, tl.int32)
    exists = (level >= 0) & (level < depth)
    middle, values = volume + z * plane + index, ()
    for neighbour in tl.static_range(9):
        # the row first, then the step along it: that one costs no register, being a constant
        place = middle + (neighbour // 3 - 1) * width + (neighbour % 3 - 1)
        values += (tl.load(place, mask=inside[neighbour] & exists, other=0),)
    return values


@triton.jit
def load_sides(sides, z, plane, index, width, inside, constant, CONSTANT: tl.constexpr):
    """The side weights around ``index`` in plane ``z``; the number ``constant`` if ``CONSTANT``."""
    middle, weights = sides + z * plane + index, ()
    for neighbour in tl.static_range(9):
        if CONSTANT:
            weights += (constant,)
        else:
            place = middle + (neighbour // 3 - 1) * width + (neighbour % 3 - 1)
            weights += (tl.load(place, mask=inside[neighbour], other=0.0).to(tl.float32),)
    return weights


@triton.jit
def three_taps(before, here, after, side):
    """``side before + (1 - 2 side) here + side after``."""
    return here + side * (before + after - 2 * here)


@triton.jit
def filter_in_plane(values, weights, second, third, CONSTANT: tl.constexpr):
    """Filter nine columns' values along axis 1, then axis 2: the value of the middle column.

    ``weights`` are those of the columns; ``second`` and ``third`` replace them if ``CONSTANT``.
    """
    if CONSTANT:
        left = three_taps(values[0], values[3], values[6], second)
        middle = three_taps(values[1], values[4], values[7], second)
        right = three_taps(values[2], values[5], values[8], second)
        return three_taps(left, middle, right, third)
    else:  # noqa: RET505 (what follows a return in a branch taken at compile time is not compiled)
        left = three_taps(values[0], values[3], values[6], weights[3])
        middle = three_taps(values[1], values[4], values[7], weights[4])
        right = three_taps(values[2], values[5], values[8], weights[5])
        return three_taps(left, middle, right, weights[4])
