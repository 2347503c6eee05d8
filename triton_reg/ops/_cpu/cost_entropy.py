"""Cost volume and its entropy in one sweep over the features."""

import math

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL, exp, f4, log
from triton_reg.ops._cpu.layout import copy_row, zero_planes

# elements a run: the costs of 27 labels and the fixed features stay in the second-level cache
RUN = 1024
_INVERSE_TEMPERATURE = f4(10)
_BLOCK = 9  # labels added up before they are added to the rest
_FLOOR, _LOG_FLOOR = f4(1e-6), f4(math.log(1e-6))


@njit(**KERNEL)
def cost_entropy(fixed, moving, masked, radius, border, cost, entropy):
    """Mean absolute feature difference of each label, and the entropy of the labels.

    Fast because each run of a few rows computes all its labels, then takes their entropy while
    they are in the cache: features are read once, costs written once.

    Args:
        fixed: ``[C, D, H, W]``.
        moving: bordered ``[C, P]``.
        masked: whether the last channel of both is a mask, see ``ops/masked_cost.py``.
        radius: of the search; at most ``border``.
        cost: bordered ``[L, P]``, overwritten; low is good.
        entropy: ``[D, H, W]`` in nats, overwritten.
    """
    channels, depth, height, width = fixed.shape
    row = width + 2 * border
    plane = (height + 2 * border) * row
    rows = max(1, RUN // row)
    # the gaps between rows compare zeros here; they are set to zero costs below
    target = np.zeros((channels, rows * row), np.float32)
    exponentials = np.empty((cost.shape[0], rows * row), np.float32)
    sums = np.empty((7, rows * row), np.float32)
    zero_planes(cost, border, plane)
    for z in range(depth):
        start = (z + border) * plane
        cost[:, start : start + border * row] = 0
        cost[:, start + plane - border * row : start + plane] = 0
        for y in range(0, height, rows):
            taken = min(rows, height - y)
            for c in range(channels):
                for r in range(taken):
                    copy_row(fixed[c, z, y + r], target[c, r * row : r * row + width])
            begin = start + (y + border) * row + border
            count = (taken - 1) * row + width
            _costs(target, moving, channels - masked, radius, row, plane, cost, begin, count)
            if masked:
                _restrict(target, moving, radius, row, plane, cost, begin, count, sums)
            _entropies(cost, begin, count, exponentials, sums)
            for r in range(taken):
                copy_row(sums[3, r * row : r * row + width], entropy[z, y + r])
            for label in range(cost.shape[0]):
                for left in range(begin, begin + taken * row, row):
                    cost[label, left - border : left] = 0
                    cost[label, left + width : left + width + border] = 0


@njit(**KERNEL)
def _costs(target, moving, channels, radius, row, plane, cost, begin, count):
    """``cost[:, begin : begin + count]`` from the first ``channels`` of ``target [C, count]``.

    Three labels along the last axis and four channels share their loads. Where the row of labels
    is no multiple of three, the last three overlap the ones before and give the same values again.
    """
    scale = f4(1) / f4(channels)
    side = 2 * radius + 1
    for label_row in range(side * side):
        step = (label_row // side - radius) * plane + (label_row % side - radius) * row
        for x in range(0, side, 3):
            x = min(x, side - 3)
            label = label_row * side + x
            for k in range(label, label + 3):
                cost[k, begin : begin + count] = 0
            first = begin + step + x - radius
            fours = channels // 4 * 4
            for c in range(0, fours, 4):
                _add_four(cost, label, begin, moving, c, first, target, count)
            for c in range(fours, channels):
                _add_one(cost, label, begin, moving, c, first, target, count)
            for k in range(label, label + 3):
                total = cost[k, begin : begin + count]
                for i in range(count):
                    total[i] *= scale


@njit(**KERNEL)
def _add_one(cost, label, begin, moving, c, first, fixed, count):
    low = cost[label, begin : begin + count]
    mid = cost[label + 1, begin : begin + count]
    high = cost[label + 2, begin : begin + count]
    m, f = moving[c, first : first + count + 2], fixed[c, :count]
    for i in range(count):
        low[i] += abs(m[i] - f[i])
        mid[i] += abs(m[i + 1] - f[i])
        high[i] += abs(m[i + 2] - f[i])


@njit(**KERNEL)
def _add_four(cost, label, begin, moving, c, first, fixed, count):
    low = cost[label, begin : begin + count]
    mid = cost[label + 1, begin : begin + count]
    high = cost[label + 2, begin : begin + count]
    m0, f0 = moving[c, first : first + count + 2], fixed[c, :count]
    m1, f1 = moving[c + 1, first : first + count + 2], fixed[c + 1, :count]
    m2, f2 = moving[c + 2, first : first + count + 2], fixed[c + 2, :count]
    m3, f3 = moving[c + 3, first : first + count + 2], fixed[c + 3, :count]
    for i in range(count):
        j, k = i + 1, i + 2
        low[i] += abs(m0[i] - f0[i]) + abs(m1[i] - f1[i]) + abs(m2[i] - f2[i]) + abs(m3[i] - f3[i])
        mid[i] += abs(m0[j] - f0[i]) + abs(m1[j] - f1[i]) + abs(m2[j] - f2[i]) + abs(m3[j] - f3[i])
        high[i] += abs(m0[k] - f0[i]) + abs(m1[k] - f1[i]) + abs(m2[k] - f2[i]) + abs(m3[k] - f3[i])


@njit(**KERNEL)
def _restrict(target, moving, radius, row, plane, cost, begin, count, sums):
    """Centre the costs on the weighted mean of their labels and weight them by both masks."""
    side, last = 2 * radius + 1, target.shape[0] - 1
    inside, total, mean = target[last, :count], sums[0], sums[1]
    total[:count] = 0
    mean[:count] = 0
    for weighing in (True, False):
        for label in range(cost.shape[0]):
            z, y, x = label // (side * side), label // side % side, label % side
            first = begin + (z - radius) * plane + (y - radius) * row + x - radius
            costs, other = cost[label, begin : begin + count], moving[last, first : first + count]
            for i in range(count):
                weight = inside[i] * other[i]
                if weighing:
                    total[i] += weight
                    mean[i] += weight * costs[i]
                else:
                    costs[i] = weight * (costs[i] - mean[i])
        if weighing:
            for i in range(count):
                mean[i] = mean[i] / total[i] if total[i] > 0 else f4(0)


@njit(**KERNEL)
def _entropies(cost, begin, count, exponentials, sums):
    """Entropy of ``cost[:, begin : begin + count]`` into ``sums[3]``.

    With ``l = max(ln q, ln floor)``, ``S1 = Σ e^l`` and ``S2 = Σ (l + ln L) e^l`` it is
    ``ln S1 + ln L - S2 / S1``. One exponential a label serves the softmax and the sums; ``ln L``
    keeps the terms small, and with them their rounding, where the labels are equally likely.
    """
    lowest, total, inverse, result = sums[0], sums[1], sums[2], sums[3]
    copy_row(cost[0, begin : begin + count], lowest[:count])
    for label in range(1, cost.shape[0]):
        costs = cost[label, begin : begin + count]
        for i in range(count):
            lowest[i] = min(lowest[i], costs[i])
    total[:count] = 0
    for label in range(cost.shape[0]):
        costs, exponential = cost[label, begin : begin + count], exponentials[label]
        for i in range(count):
            e = exp((lowest[i] - costs[i]) * _INVERSE_TEMPERATURE)
            exponential[i] = e
            total[i] += e
    shift = f4(math.log(cost.shape[0]))
    for i in range(count):
        # ln q + ln L is this - 10 cost
        lowest[i] = lowest[i] * _INVERSE_TEMPERATURE + (shift - log(total[i]))
        inverse[i] = f4(1) / total[i]
    _floored_sums(cost, begin, count, exponentials, sums, shift)
    weighted = sums[4]
    for i in range(count):
        result[i] = log(total[i]) + (shift - weighted[i] / total[i])


@njit(**KERNEL)
def _floored_sums(cost, begin, count, exponentials, sums, shift):
    """``S1`` into ``sums[1]``, ``S2`` into ``sums[4]``; by blocks, which keeps rounding small."""
    lowest, total, inverse, weighted = sums[0], sums[1], sums[2], sums[4]
    block_total, block_weighted = sums[5], sums[6]
    sums[1] = 0
    sums[4] = 0
    for first in range(0, cost.shape[0], _BLOCK):
        sums[5] = 0
        sums[6] = 0
        for label in range(first, min(first + _BLOCK, cost.shape[0])):
            costs, exponential = cost[label, begin : begin + count], exponentials[label]
            for i in range(count):
                probability = max(exponential[i] * inverse[i], _FLOOR)
                block_total[i] += probability
                shifted = lowest[i] - costs[i] * _INVERSE_TEMPERATURE
                block_weighted[i] += probability * max(shifted, _LOG_FLOOR + shift)
        for i in range(count):
            total[i] += block_total[i]
            weighted[i] += block_weighted[i]
