"""How the optimisation of a pair went, level by level, for methods that optimise."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def convergence(extras: Mapping[str, Tensor]) -> dict[str, Any]:
    """Columns of one pair's row, each a list over the levels; none for other methods.

    ``stop_reasons`` says ``converged`` where the loss no longer fell, and ``iterations`` where all
    of them were used. A ``gradient_ratio`` is the length of the last gradient over that of the
    first: how stationary the point is that was found.
    """
    if "converged" not in extras:
        return {}
    reasons = ["converged" if one else "iterations" for one in extras["converged"][0].tolist()]
    columns: dict[str, Any] = {
        "iterations": extras["iterations"][0].tolist(),
        "stop_reasons": reasons,
        "gradient_ratios": extras["gradient_ratio"][0].tolist(),
        "level_losses": extras["loss"][0].tolist(),
    }
    if "step_cosine" in extras:
        columns["step_cosines"] = extras["step_cosine"][0].tolist()
    return columns
