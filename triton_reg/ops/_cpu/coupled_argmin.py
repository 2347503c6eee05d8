"""The cheapest displacement label of each voxel, drawn towards the smoothed displacement."""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import EXACT, f4

# elements a run: long enough for the memory to deliver ahead, and where labels tie the costs are
# read a second time, from the second-level cache
RUN = 4096
# as in the definition: labels this close to the lowest tie, and tied labels are summed
TIE_TOLERANCE = f4(5e-5 * 2**-25)
# a sum of tied offsets stays within ±294 at radius 3: ten bits an axis, three axes an int32
_BITS = 10
_HALF = np.int32(1 << (_BITS - 1))
_MASK = np.int32((1 << _BITS) - 1)


@njit(**EXACT)
def coupled_argmin(cost, displacement, coupling, radius, begin, end):
    """Replace ``displacement`` by the label that minimises ``cost + coupling |displacement - o|²``.

    Fast because the costs are read once: a sweep finds the lowest, its label and the second
    lowest, and only runs where these two tie are swept again, from the cache, to sum the labels
    that tie. The three components of a label are one packed integer. Compiled without liberties:
    given the same costs the labels are those of the plain torch definition.

    Args:
        cost: bordered ``[L, P]``, zero in its borders.
        displacement: bordered ``[3, P]`` in voxels, overwritten by whole voxels.
        coupling: weight of the squared distance.
        radius: of the search.
        begin, end: the elements to do, first to last voxel of the volume.
    """
    pull = np.empty((3, 2 * radius + 1, RUN), np.float32)
    lowest, second = np.empty(RUN, np.float32), np.empty(RUN, np.float32)
    winner = np.empty(RUN, np.int32)
    for first in range(begin, end, RUN):
        count = min(RUN, end - first)
        if _lowest(cost, displacement, coupling, radius, first, count, lowest, second, winner):
            _pulls(displacement, coupling, radius, first, count, pull)
            _winners(cost, pull, radius, first, count, lowest, winner)
        _unpack(winner, displacement, first, count)


@njit(**EXACT)
def _lowest(cost, displacement, coupling, radius, first, count, lowest, second, winner):
    """The lowest coupled cost of each voxel, plus the tolerance of ties, and its packed label.

    Nine labels a loop; where the search is no multiple of three wide, some are taken twice, which
    looks like a tie.

    Returns:
        Whether the second lowest of any voxel is within the tolerance: then labels tie, and the
        packed ones are not to be used.
    """
    side = 2 * radius + 1
    lowest[:count] = np.inf
    second[:count] = np.inf
    winner[:count] = 0
    for z in range(side):
        for y in range(0, side, 3):
            for x in range(0, side, 3):
                y, x = min(y, side - 3), min(x, side - 3)
                label, steps = (z * side + y) * side + x, (z - radius, y - radius, x - radius)
                window = (first, count, label, side, steps)
                _nine_labels(cost, displacement, coupling, window, lowest, second, winner)
    tied = np.int32(0)
    for i in range(count):
        lowest[i] += TIE_TOLERANCE
        tied |= np.int32(not second[i] > lowest[i])
    return tied != 0


@njit(**EXACT)
def _nine_labels(cost, displacement, coupling, window, lowest, second, winner):
    """Take three by three neighbouring labels of one z step into the lowest and second lowest."""
    first, count, label, side, steps = window
    end = first + count
    c_00, c_01, c_02 = (
        cost[label, first:end],
        cost[label + 1, first:end],
        cost[label + 2, first:end],
    )
    label += side
    c_10, c_11, c_12 = (
        cost[label, first:end],
        cost[label + 1, first:end],
        cost[label + 2, first:end],
    )
    label += side
    c_20, c_21, c_22 = (
        cost[label, first:end],
        cost[label + 1, first:end],
        cost[label + 2, first:end],
    )
    d_z, d_y, d_x = (
        displacement[0, first:end],
        displacement[1, first:end],
        displacement[2, first:end],
    )
    z, y, x = steps
    code_0, code_1, code_2 = _packed(z, y, x), _packed(z, y + 1, x), _packed(z, y + 2, x)
    one, two = np.int32(1), np.int32(2)
    for i in range(count):
        p_z = _pull(coupling, d_z[i], z)
        p_0, p_1 = _pull(coupling, d_x[i], x), _pull(coupling, d_x[i], x + 1)
        p_2 = _pull(coupling, d_x[i], x + 2)
        found = lowest[i], second[i], winner[i]
        p_y = _pull(coupling, d_y[i], y)
        found = _closer(found, c_00[i] + p_z + p_y + p_0, code_0)
        found = _closer(found, c_01[i] + p_z + p_y + p_1, code_0 + one)
        found = _closer(found, c_02[i] + p_z + p_y + p_2, code_0 + two)
        p_y = _pull(coupling, d_y[i], y + 1)
        found = _closer(found, c_10[i] + p_z + p_y + p_0, code_1)
        found = _closer(found, c_11[i] + p_z + p_y + p_1, code_1 + one)
        found = _closer(found, c_12[i] + p_z + p_y + p_2, code_1 + two)
        p_y = _pull(coupling, d_y[i], y + 2)
        found = _closer(found, c_20[i] + p_z + p_y + p_0, code_2)
        found = _closer(found, c_21[i] + p_z + p_y + p_1, code_2 + one)
        found = _closer(found, c_22[i] + p_z + p_y + p_2, code_2 + two)
        lowest[i], second[i], winner[i] = found


@njit(**EXACT)
def _closer(found, total, code):
    """The lowest cost, the second lowest and the winner's code after one more label."""
    best, after, winner = found
    after = min(after, max(best, total))
    winner = code if total < best else winner
    return min(best, total), after, winner


@njit(**EXACT)
def _pull(coupling, component, step):
    """What a label costs for its distance to the displacement along one axis."""
    distance = component - f4(step)
    return coupling * (distance * distance)


@njit(**EXACT)
def _packed(z, y, x):
    """A label as one integer; those of tied labels add up like the labels."""
    return np.int32((z << (2 * _BITS)) + (y << _BITS) + x)


@njit(**EXACT)
def _pulls(displacement, coupling, radius, first, count, pull):
    for axis in range(3):
        component = displacement[axis, first : first + count]
        for step in range(pull.shape[1]):
            target = pull[axis, step]
            for i in range(count):
                target[i] = _pull(coupling, component[i], step - radius)


@njit(**EXACT)
def _winners(cost, pull, radius, first, count, lowest, winner):
    """The packed sum of each voxel's labels that are not above ``lowest``."""
    side = pull.shape[1]
    winner[:count] = 0
    for label_row in range(side * side):
        z, y = label_row // side, label_row % side
        pull_z, pull_y = pull[0, z], pull[1, y]
        code = _packed(z - radius, y - radius, -radius)
        for start in range(0, side, 3):
            x = min(start, side - 3)
            label = label_row * side + x
            cost_0 = cost[label, first : first + count]
            cost_1 = cost[label + 1, first : first + count]
            cost_2 = cost[label + 2, first : first + count]
            pull_0, pull_1, pull_2 = pull[2, x], pull[2, x + 1], pull[2, x + 2]
            # what an overlap has counted before counts nothing here
            code_0 = np.int32(code + x if x >= start else 0)
            code_1 = np.int32(code + x + 1 if x + 1 >= start else 0)
            code_2 = np.int32(code + x + 2)
            for i in range(count):
                most = lowest[i]
                total_0 = cost_0[i] + pull_z[i] + pull_y[i] + pull_0[i]
                total_1 = cost_1[i] + pull_z[i] + pull_y[i] + pull_1[i]
                total_2 = cost_2[i] + pull_z[i] + pull_y[i] + pull_2[i]
                packed = code_0 if total_0 <= most else np.int32(0)
                packed += code_1 if total_1 <= most else np.int32(0)
                packed += code_2 if total_2 <= most else np.int32(0)
                winner[i] += packed


@njit(**EXACT)
def _unpack(winner, displacement, first, count):
    out_z = displacement[0, first : first + count]
    out_y = displacement[1, first : first + count]
    out_x = displacement[2, first : first + count]
    for i in range(count):
        code = winner[i]
        x = np.int32(((code + _HALF) & _MASK) - _HALF)
        code = np.int32((code - x) >> np.int32(_BITS))
        y = np.int32(((code + _HALF) & _MASK) - _HALF)
        out_z[i] = f4(np.int32((code - y) >> np.int32(_BITS)))
        out_y[i] = f4(y)
        out_x[i] = f4(x)
