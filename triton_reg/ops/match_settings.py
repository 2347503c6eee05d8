"""The settings of a dense match: what its definition and its kernels all read."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from triton_reg.ops.checks import check_choice

Smoothing = Literal["min_convolution", "exact_min_convolution", "mean_field", "gaussian", "none"]
LabelFilter = Literal["pooled", "exact", "none"]

_MEAN_FIELD_TAPS = (3 / 9, 2 / 9, 1 / 9)  # two means over three, as one filter


@dataclass(frozen=True, kw_only=True)
class MatchSettings:
    """How beliefs about displacements spread between labels and control points.

    Attributes:
        smoothing: what a round of messages does. ``"min_convolution"``: a pooled min-convolution
            over the labels, then a mean field over the control points, as published;
            ``"exact_min_convolution"``: the lower envelope of parabolas in place of the pooled one;
            ``"mean_field"``: over the control points alone; ``"gaussian"``: a Gaussian over the
            control points; ``"none"``: nothing.
        iterations: rounds; with 0 the cost alone decides.
        curvature: of the exact min-convolution's parabolas, per squared label step.
        sigma: of the Gaussian, in control points.
    """

    smoothing: Smoothing = "min_convolution"
    iterations: int = 2
    curvature: float = 1.0
    sigma: float = 1.0

    def __post_init__(self) -> None:
        check_choice("MatchSettings", "smoothing", self.smoothing, get_args(Smoothing))
        if not 0 <= self.iterations <= 8:
            raise ValueError(f"MatchSettings: iterations must be 0 to 8, got {self.iterations}")
        if self.curvature <= 0 or self.sigma <= 0:
            raise ValueError(
                "MatchSettings: curvature and sigma must be above 0, got "
                f"{self.curvature} and {self.sigma}"
            )

    @property
    def label_filter(self) -> LabelFilter:
        """What is done over the labels of each control point."""
        match self.smoothing:
            case "min_convolution":
                return "pooled"
            case "exact_min_convolution":
                return "exact"
            case _:
                return "none"

    @property
    def taps(self) -> tuple[float, ...]:
        """Centre and side taps of the symmetric filter over the control points, along each axis."""
        if self.smoothing == "none":
            return (1.0,)
        if self.smoothing != "gaussian":
            return _MEAN_FIELD_TAPS
        radius = max(1, math.ceil(2 * self.sigma))
        taps = [math.exp(-(step**2) / (2 * self.sigma**2)) for step in range(radius + 1)]
        total = taps[0] + 2 * sum(taps[1:])
        return tuple(tap / total for tap in taps)

    @classmethod
    def from_values(cls, values: Iterable[Any]) -> "MatchSettings":
        """Settings from their values in order, as operators get them."""
        return cls(**dict(zip((field.name for field in fields(cls)), values, strict=True)))
