"""The dense match of PDD-Net on a GPU; the definition stands in ``ops/dense_match.py``.

Inside, a volume of costs is ``[B, P, ROW]`` float32: the labels of a control point lie side by
side, the last label axis fastest, and rows are padded with what nobody reads the meaning of. A
chunk of pairs goes through each launch together; a pair's result does not depend on the others.
"""

import torch
from torch import Tensor

from triton_reg.ops._triton.dense_cost import dense_cost, padded_labels
from triton_reg.ops._triton.grid_filter import filter_between_planes, filter_within_planes
from triton_reg.ops._triton.match_summary import summarise, write_probabilities
from triton_reg.ops._triton.min_convolution import exact_min_convolution, pooled_min_convolution
from triton_reg.ops.lattice import Lattice
from triton_reg.ops.match_settings import MatchSettings

_MEMORY_SHARE = 8  # of a device's memory, one part in so many for the volumes of a chunk
_MOST_PAIRS = 32
_VOLUMES = 3  # the costs, and a message before and after a launch


def dense_match(
    fixed: Tensor,
    moving: Tensor,
    weights: Tensor,
    anchors: Tensor | None,
    lattice: Lattice,
    settings: MatchSettings,
    keep_probabilities: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`triton_reg.ops.dense_match.dense_match`; float32.

    Raises:
        ValueError: if a pair is too large for the kernels, which count in int32 within one.
    """
    fixed, moving, weights = (one.detach().contiguous() for one in (fixed, moving, weights))
    anchors = None if anchors is None else anchors.detach().float().contiguous()
    _check_size(fixed, moving, lattice)
    batch, points, kept = len(fixed), lattice.points, lattice.labels if keep_probabilities else 0
    mean, entropy, covariance, probabilities = (
        fixed.new_empty(batch, *channels, *points) for channels in ((3,), (), (6,), (kept,))
    )
    each = _pairs_a_chunk(batch, lattice, fixed.device)
    for first in range(0, batch, each):
        chunk = slice(first, min(first + each, batch))
        near = None if anchors is None else anchors[chunk]
        message = match_messages(fixed[chunk], moving[chunk], weights, near, lattice, settings)
        scales = fixed.new_empty(len(message), 2, message.shape[1])
        summary = mean[chunk], entropy[chunk], covariance[chunk]
        summarise(message, weights, lattice.width, summary, scales)
        if kept:
            write_probabilities(message, weights, scales, probabilities[chunk].flatten(2))
    return mean, entropy, covariance, probabilities


def match_messages(
    fixed: Tensor,
    moving: Tensor,
    weights: Tensor,
    anchors: Tensor | None,
    lattice: Lattice,
    settings: MatchSettings,
) -> Tensor:
    """What the softmax is taken of: the last round's messages ``[B, P, ROW]``."""
    shape = len(fixed), fixed[0, 0].numel(), padded_labels(lattice.labels)
    cost = fixed.new_empty(shape)
    dense_cost(fixed, moving, weights, anchors, lattice, cost)
    source, spare = cost, [fixed.new_empty(shape) for _ in range(2 if settings.iterations else 0)]

    def other_than(busy: Tensor) -> Tensor:
        return spare[0] if busy is not spare[0] else spare[1]

    for iteration in range(settings.iterations):
        target = other_than(source)
        if settings.label_filter == "pooled":
            pooled_min_convolution(source, lattice.width, target)
            source, target = target, other_than(target)
        elif settings.label_filter == "exact":
            exact_min_convolution(source, lattice.width, settings.curvature, target)
            source, target = target, other_than(target)
        filter_within_planes(source, lattice.points, settings.taps, target)
        source, target = target, other_than(target)
        own = None if iteration == settings.iterations - 1 else cost
        filter_between_planes(source, lattice.points, settings.taps, weights, own, target)
        source = target
    return source


def _pairs_a_chunk(batch: int, lattice: Lattice, device: torch.device) -> int:
    memory = 2**33
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
    depth, height, width = lattice.points
    pair_bytes = 4 * _VOLUMES * depth * height * width * padded_labels(lattice.labels)
    return max(1, min(batch, _MOST_PAIRS, memory // _MEMORY_SHARE // pair_bytes))


def _check_size(fixed: Tensor, moving: Tensor, lattice: Lattice) -> None:
    largest = max(fixed[0, 0].numel() * padded_labels(lattice.labels), moving[0].numel())
    if largest >= 2**31:
        raise ValueError(
            f"dense_match on a GPU: {lattice.labels} labels at {lattice.points} control points, or "
            f"features {list(moving.shape[1:])}, are {largest:,} values a pair; both must stay "
            "below 2**31: take a coarser lattice"
        )
