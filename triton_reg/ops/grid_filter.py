"""A symmetric filter over the control points of a cost volume."""

from collections.abc import Sequence

from torch import Tensor


def grid_filter_reference(cost: Tensor, taps: Sequence[float]) -> Tensor:
    """Filter ``[B, L, d, h, w]`` along its last three axes, the border repeated.

    With taps (3, 2, 1) / 9 these are two means over 3 x 3 x 3 control points: the mean-field step
    of PDD-Net (Heinrich, MICCAI 2019, section 2.2).

    Args:
        cost: any field over the control points.
        taps: the centre tap, then those at distance 1, 2, ...; the same on both sides.
    """
    for axis in (2, 3, 4):
        last = cost.shape[axis] - 1
        filtered = taps[0] * cost
        for distance, tap in enumerate(taps[1:], start=1):
            for step in (-distance, distance):
                index = [min(max(i + step, 0), last) for i in range(last + 1)]
                filtered = filtered + tap * cost[(slice(None),) * axis + (index,)]
        cost = filtered
    return cost
