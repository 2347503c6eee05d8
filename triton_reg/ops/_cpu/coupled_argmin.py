"""The cheapest displacement label of each voxel, drawn towards the smoothed displacement."""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import EXACT, f4

# elements a run: its costs are read twice, the second time from the second-level cache
RUN = 1024
# as in the definition: labels this close to the lowest tie, and tied labels are summed
TIE_TOLERANCE = f4(5e-5 * 2**-25)
# a sum of tied offsets stays within ±294 at radius 3: ten bits an axis, three axes an int32
_BITS = 10
_HALF = np.int32(1 << (_BITS - 1))
_MASK = np.int32((1 << _BITS) - 1)


@njit(**EXACT)
def coupled_argmin(cost, displacement, coupling, radius, begin, end):
    """Replace ``displacement`` by the label that minimises ``cost + coupling |displacement - o|²``.

    Fast because a run of costs is read from memory once, minimum and ties both taken from the
    cache, and the three components of tied labels are summed as one packed integer. Compiled
    without liberties: given the same costs the labels are those of the plain torch definition.

    Args:
        cost: bordered ``[L, P]``, zero in its borders.
        displacement: bordered ``[3, P]`` in voxels, overwritten by whole voxels.
        coupling: weight of the squared distance.
        radius: of the search.
        begin, end: the elements to do, first to last voxel of the volume.
    """
    pull = np.empty((3, 2 * radius + 1, RUN), np.float32)
    lowest = np.empty(RUN, np.float32)
    winner = np.empty(RUN, np.int32)
    for first in range(begin, end, RUN):
        count = min(RUN, end - first)
        _pulls(displacement, coupling, radius, first, count, pull)
        _lowest(cost, pull, first, count, lowest)
        _winners(cost, pull, radius, first, count, lowest, winner)
        _unpack(winner, displacement, first, count)


@njit(**EXACT)
def _pulls(displacement, coupling, radius, first, count, pull):
    for axis in range(3):
        component = displacement[axis, first : first + count]
        for step in range(pull.shape[1]):
            target, offset = pull[axis, step], f4(step - radius)
            for i in range(count):
                distance = component[i] - offset
                target[i] = coupling * (distance * distance)


@njit(**EXACT)
def _lowest(cost, pull, first, count, lowest):
    """The lowest coupled cost of each voxel, plus the tolerance of ties.

    Three labels along the last axis a loop; where a row of labels is no multiple of three, the last
    three overlap the ones before.
    """
    side = pull.shape[1]
    lowest[:count] = np.inf
    for label_row in range(side * side):
        pull_z, pull_y = pull[0, label_row // side], pull[1, label_row % side]
        for x in range(0, side, 3):
            x = min(x, side - 3)
            label = label_row * side + x
            cost_0 = cost[label, first : first + count]
            cost_1 = cost[label + 1, first : first + count]
            cost_2 = cost[label + 2, first : first + count]
            pull_0, pull_1, pull_2 = pull[2, x], pull[2, x + 1], pull[2, x + 2]
            for i in range(count):
                total_0 = cost_0[i] + pull_z[i] + pull_y[i] + pull_0[i]
                total_1 = cost_1[i] + pull_z[i] + pull_y[i] + pull_1[i]
                total_2 = cost_2[i] + pull_z[i] + pull_y[i] + pull_2[i]
                lowest[i] = min(min(lowest[i], total_0), min(total_1, total_2))
    for i in range(count):
        lowest[i] += TIE_TOLERANCE


@njit(**EXACT)
def _winners(cost, pull, radius, first, count, lowest, winner):
    """The packed sum of each voxel's labels that are not above ``lowest``."""
    side = pull.shape[1]
    winner[:count] = 0
    for label_row in range(side * side):
        z, y = label_row // side, label_row % side
        pull_z, pull_y = pull[0, z], pull[1, y]
        code = ((z - radius) << (2 * _BITS)) + ((y - radius) << _BITS) - radius
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
