"""The dense match of PDD-Net: a chain of kernels over one volume of costs."""

import numpy as np

from triton_reg.ops._cpu.arithmetic import f4
from triton_reg.ops._cpu.dense_cost import add_anchor_cost, dense_cost
from triton_reg.ops._cpu.grid_filter import copy_plane, filter_between_planes, filter_plane
from triton_reg.ops._cpu.layout import scratch
from triton_reg.ops._cpu.match_summary import summarise_plane
from triton_reg.ops._cpu.min_convolution import exact_min_convolution, pooled_min_convolution


def dense_match(fixed, moving, weights, anchors, lattice, settings, keep_probabilities):
    """Mean, entropy, covariance and probabilities of a batch, one pair after the other.

    The volume of costs is one buffer: every round of messages overwrites it, a plane as soon as
    all planes that need it have passed. From the third round on the cost is kept beside it.

    Args:
        fixed: ``[B, C, *lattice.points]``.
        moving: ``[B, C, D, H, W]``.
        weights: ``[4]``.
        anchors: ``[B, 4, *lattice.points]`` or None.

    Returns:
        ``[B, 3, d, h, w]``, ``[B, d, h, w]``, ``[B, 6, d, h, w]`` and ``[B, L, d, h, w]``, or
        ``[B, 0, d, h, w]`` unless probabilities are kept.
    """
    batch, points = len(fixed), lattice.points
    mean = np.empty((batch, 3, *points), np.float32)
    entropy = np.empty((batch, *points), np.float32)
    covariance = np.empty((batch, 6, *points), np.float32)
    kept = lattice.labels if keep_probabilities else 0
    probabilities = np.empty((batch, kept, *points), np.float32)
    for pair in range(batch):
        volume = probabilities[pair] if kept else scratch("cost", lattice.labels, *points)
        scaled_cost(
            fixed[pair], moving[pair], weights, None if anchors is None else anchors[pair],
            lattice, volume,
        )  # fmt: skip
        volume = spread_messages(volume, weights, lattice, settings)
        summary = (
            mean[pair].reshape(3, points[0], -1),
            entropy[pair].reshape(points[0], -1),
            covariance[pair].reshape(6, points[0], -1),
        )
        for plane in range(points[0]):
            summarise_plane(volume, plane, lattice.width, weights[3], keep_probabilities, *summary)
    return mean, entropy, covariance, probabilities


def scaled_cost(fixed, moving, weights, anchors, lattice, volume):
    """Cost of every label, with what its anchor adds: fills ``volume [L, d, h, w]``."""
    dense_cost(fixed, moving, lattice, weights[0], volume)
    if anchors is not None:
        add_anchor_cost(anchors.reshape(4, -1), lattice.width, volume.reshape(len(volume), -1))


def spread_messages(volume, weights, lattice, settings):
    """All rounds of messages, in place: ``volume [L, d, h, w]`` as ``[L, d, h w]``."""
    volume = volume.reshape(*volume.shape[:2], -1)
    cost = volume
    if settings.iterations > 2:
        cost = scratch("cost beside belief", *volume.shape)
        cost[:] = volume
    for iteration in range(settings.iterations):
        last = iteration == settings.iterations - 1
        kept, spread = (0, 1) if last else (weights[1], weights[2])
        source = cost if iteration == 0 else volume
        spread_once(source, cost, f4(kept), f4(spread), lattice, settings, volume)
    return volume


def spread_once(source, cost, kept, spread, lattice, settings, belief):
    """``belief = kept cost + spread smooth(source)``, all ``[L, d, h w]`` and perhaps the same.

    Planes pass from the filter over labels through a ring that holds as many of them as the filter
    over control points needs.
    """
    taps = np.array(settings.taps, np.float32)
    radius, depth = len(taps) - 1, source.shape[1]
    ring = scratch("ring of planes", 2 * radius + 1, source.shape[0], source.shape[2])
    for plane in range(depth + radius):
        if plane < depth:
            slab = ring[plane % len(ring)]
            copy_plane(source, plane, slab)
            match settings.label_filter:
                case "pooled":
                    pooled_min_convolution(slab, lattice.width)
                case "exact":
                    exact_min_convolution(slab, lattice.width, f4(settings.curvature))
            filter_plane(slab, taps, lattice.points[1:])
        if plane >= radius:
            filter_between_planes(ring, taps, depth, plane - radius, cost, kept, spread, belief)
