"""Gradients of the dense match: its messages again, and back through them one by one."""

import numpy as np
from numba import njit

from triton_reg.ops._cpu.arithmetic import KERNEL, f4
from triton_reg.ops._cpu.dense_cost_backward import anchor_cost_backward, dense_cost_backward
from triton_reg.ops._cpu.dense_match import scaled_cost, spread_once
from triton_reg.ops._cpu.grid_filter import copy_plane
from triton_reg.ops._cpu.grid_filter_backward import (
    filter_between_planes_backward,
    filter_plane_backward,
)
from triton_reg.ops._cpu.layout import scratch
from triton_reg.ops._cpu.match_summary_backward import summarise_plane_backward
from triton_reg.ops._cpu.min_convolution_backward import (
    exact_min_convolution_backward,
    pooled_min_convolution_backward,
    transposed_means,
)


def dense_match_backward(fixed, moving, weights, anchors, gradients, lattice, settings):
    """Gradients with respect to fixed, moving, weights and anchors of a batch.

    Args:
        fixed, moving, weights, anchors: as :func:`triton_reg.ops._cpu.dense_match.dense_match`.
        gradients: of its four results.

    Returns:
        As many arrays as there are inputs; the last is ``[0]`` without anchors.
    """
    of_fixed, of_moving = np.empty_like(fixed), np.empty_like(moving)
    of_weights = np.zeros(4)
    of_anchors = np.zeros(0, np.float32) if anchors is None else np.empty_like(anchors)
    planes = lattice.points[0]
    for pair in range(len(fixed)):
        anchor = None if anchors is None else anchors[pair]
        cost = scratch("cost", lattice.labels, *lattice.points)
        scaled_cost(fixed[pair], moving[pair], weights, anchor, lattice, cost)
        shape = planes, cost[0, 0].size
        of_mean, of_entropy, of_covariance, of_probabilities = (one[pair] for one in gradients)
        own = (
            of_mean.reshape(3, *shape),
            of_entropy.reshape(shape),
            of_covariance.reshape(6, *shape),
            of_probabilities.reshape(len(of_probabilities), *shape),
        )
        of_cost, shares = _through_messages(
            cost.reshape(len(cost), *shape), weights, own, lattice, settings
        )
        of_weights[1:] += shares
        if anchor is not None:
            found = np.zeros((4, anchor[0].size))
            anchor_cost_backward(
                anchor.reshape(4, -1), lattice.width, of_cost.reshape(len(cost), -1), found
            )
            of_anchors[pair] = found.reshape(anchor.shape)
        of_fixed[pair], of_moving[pair], of_scale = dense_cost_backward(
            fixed[pair], moving[pair], lattice, weights[0], of_cost.reshape(cost.shape)
        )
        of_weights[0] += of_scale
    return of_fixed, of_moving, of_weights.astype(np.float32), of_anchors


def _through_messages(cost, weights, gradients, lattice, settings):
    """Gradient with respect to the cost ``[L, d, h w]``, and to the weights but for the scale.

    Three volumes for up to two rounds: the cost, the message before a round, and the gradient;
    one more for further rounds, whose messages are found again from the cost.
    """
    kept, spread, sharpness = weights[1:]
    rounds = settings.iterations
    of_kept = of_spread = 0.0
    message = scratch("message", *cost.shape)
    gradient = scratch("gradient", *cost.shape)
    gradient[:] = cost
    if rounds > 1:
        _message(cost, weights, rounds - 1, lattice, settings, message)
        gradient *= kept
        _add_scaled(message.ravel(), spread, gradient.ravel())
    if rounds > 0:
        spread_once(gradient, gradient, f4(0), f4(1), lattice, settings, gradient)
    slopes = np.zeros(cost.shape[2])
    for plane in range(cost.shape[1]):
        summarise_plane_backward(gradient, plane, lattice.width, sharpness, gradients, slopes)
    of_cost = gradient
    for number in range(rounds - 1, 0, -1):
        if number < rounds - 1:
            _message(cost, weights, number, lattice, settings, message)
        _round_backward((cost, message), (kept, spread), lattice, settings, gradient)
        of_kept += _dot(cost.ravel(), gradient.ravel())
        of_spread += _dot(message.ravel(), gradient.ravel())
        if number == rounds - 1:
            of_cost = message if rounds == 2 else scratch("gradient of cost", *cost.shape)
            np.multiply(gradient, kept, out=of_cost)
        else:
            _add_scaled(gradient.ravel(), kept, of_cost.ravel())
        gradient *= spread
    if rounds > 0:
        _round_backward((cost, cost), (f4(1), f4(0)), lattice, settings, gradient)
        if rounds > 1:
            _add_scaled(gradient.ravel(), f4(1), of_cost.ravel())
    return of_cost, (of_kept, of_spread, slopes.sum())


def _message(cost, weights, rounds, lattice, settings, out):
    """The message after some rounds, at least one."""
    for number in range(rounds):
        last = number == rounds - 1
        kept, spread = (0, 1) if last else (weights[1], weights[2])
        source = cost if number == 0 else out
        spread_once(source, cost, f4(kept), f4(spread), lattice, settings, out)


def _round_backward(volumes, weights, lattice, settings, gradient):
    """Through one round, of which ``weights[0] volumes[0] + weights[1] volumes[1]`` went in."""
    taps = np.array(settings.taps, np.float32)
    radius, depth = len(taps) - 1, gradient.shape[1]
    ring = scratch("ring of planes", 2 * radius + 1, gradient.shape[0], gradient.shape[2])
    slab = scratch("plane of gradients", *ring.shape[1:])
    belief = scratch("plane of beliefs", *ring.shape[1:])
    shares = transposed_means(lattice.width)
    for ahead in range(depth + radius):
        if ahead < depth:
            copy_plane(gradient, ahead, ring[ahead % len(ring)])
        plane = ahead - radius
        if plane < 0:
            continue
        filter_between_planes_backward(ring, taps, depth, plane, slab)
        filter_plane_backward(slab, taps, lattice.points[1:])
        if settings.label_filter != "none":
            _belief_plane(volumes, weights, plane, belief)
        match settings.label_filter:
            case "pooled":
                pooled_min_convolution_backward(belief, shares, slab)
            case "exact":
                curvature = f4(settings.curvature)
                exact_min_convolution_backward(belief, lattice.width, curvature, slab)
        _write_plane(slab, plane, gradient)


@njit(**KERNEL)
def _belief_plane(volumes, weights, plane, out):
    (cost, message), (kept, spread) = volumes, weights
    for label in range(out.shape[0]):
        one, other, target = cost[label, plane], message[label, plane], out[label]
        for i in range(target.shape[0]):
            target[i] = kept * one[i] + spread * other[i]


@njit(**KERNEL)
def _write_plane(slab, plane, volume):
    for label in range(slab.shape[0]):
        source, target = slab[label], volume[label, plane]
        for i in range(target.shape[0]):
            target[i] = source[i]


@njit(**KERNEL)
def _dot(one, other):
    """Sum of products in float64; sixteen sums side by side, which vectorises."""
    sums = np.zeros(16)
    blocks = one.shape[0] // 16
    for block in range(blocks):
        for lane in range(16):
            i = 16 * block + lane
            sums[lane] += np.float64(one[i]) * np.float64(other[i])
    for i in range(16 * blocks, one.shape[0]):
        sums[0] += np.float64(one[i]) * np.float64(other[i])
    return sums.sum()


@njit(**KERNEL)
def _add_scaled(source, factor, out):
    for i in range(out.shape[0]):
        out[i] += factor * source[i]
