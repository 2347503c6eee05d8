"""How DIO descends: step, smoothing, stopping and further terms."""

import math
from dataclasses import dataclass, field
from typing import Literal

from triton_reg.methods.descent import StopRule
from triton_reg.methods.level_grids import LevelGrid
from triton_reg.ops.advance import StepSettings, Vector
from triton_reg.ops.checks import check_choice
from triton_reg.ops.feature_force import Loss

Transform = Literal["freeform", "diffeomorphic", "svf", "bspline", "affine", "rigid"]
TRANSFORMS: tuple[Transform, ...] = (
    "freeform", "diffeomorphic", "svf", "bspline", "affine", "rigid",
)  # fmt: skip
LINEAR: tuple[Transform, ...] = ("affine", "rigid")
Units = Literal["voxel", "published"]
# longest, or typical, step in voxels of the level; of linear maps that of the volume's faces
_RATES: dict[Transform, float] = {
    "freeform": 0.15, "diffeomorphic": 0.6, "svf": 0.3, "bspline": 0.2, "affine": 0.1, "rigid": 0.1,
}  # fmt: skip
# what is much weaker is noise, or flat: of correlation, and of features at unit amplitude
_EPS: dict[Loss, float] = {"lncc": 4.0, "mse": 0.7}
_LINEAR_EPS = 1e-6  # sums over the whole volume are never noise
_GRADIENT_SIGMA, _VECTOR_SIGMA = 0.5, 0.3
_PUBLISHED_RATES: dict[Transform, float] = {"freeform": 0.003, "diffeomorphic": 1.0}
_PUBLISHED_GRADIENT_SIGMA, _PUBLISHED_VECTOR_SIGMA = 1.0, 0.5


@dataclass(frozen=True, kw_only=True)
class DescentSettings:
    """How vectors descend on each level.

    Attributes:
        optimiser: ``"adam"`` or ``"sgd"``.
        rate: step in voxels of the level, of linear maps that of the volume's faces; None for what
            suits the transform. With ``units="published"`` as published.
        betas: decay of Adam's moments; None for (0.9, 0.99), published free-form (0.5, 0.99).
        eps: what Adam adds to its root: gradients much below it move less than those above. It is
            divided by the number of voxels, as gradients of a mean are, but in published units.
            None for what suits the loss.
        gradient_sigma: smooths the gradient, in voxels of the level, of splines in control points;
            elastic behaviour. None for 0.5, published 1.
        vector_sigma: smooths the vectors after each step; fluid and elastic at once. None for 0.3,
            published 0.5.
        rule: when a pair has converged.
        units: ``"voxel"``: steps and smoothing are the same along every axis in mm, and features
            are compared at unit amplitude; ``"published"``: in shares of half the extent of each
            axis, and features as they are, as in the released code.
    """

    optimiser: Literal["adam", "sgd"] = "adam"
    rate: float | None = None
    betas: tuple[float, float] | None = None
    eps: float | None = None
    gradient_sigma: float | None = None
    vector_sigma: float | None = None
    rule: StopRule = field(default_factory=StopRule)
    units: Units = "voxel"

    def __post_init__(self) -> None:
        check_choice("DescentSettings", "optimiser", self.optimiser, ("adam", "sgd"))
        check_choice("DescentSettings", "units", self.units, ("voxel", "published"))
        if self.rate is not None and self.rate <= 0:
            raise ValueError(f"DescentSettings: rate must be positive, got {self.rate}")
        if any(one is not None and one < 0 for one in (self.gradient_sigma, self.vector_sigma)):
            raise ValueError(
                "DescentSettings: sigmas must not be negative, got "
                f"{self.gradient_sigma} and {self.vector_sigma}"
            )

    def step(
        self, transform: Transform, level: LevelGrid, voxel: Vector, loss: Loss
    ) -> StepSettings:
        """The step of one level whose voxels have sizes proportional to ``voxel``."""
        if self.units == "published":
            return self._published_step(transform, level)
        smallest = min(voxel)
        depth, height, width = (smallest / size for size in voxel)
        shares = (depth, height, width)
        is_linear = transform in LINEAR
        smooth = 0.0 if is_linear else 1.0
        usual_eps = _LINEAR_EPS if is_linear else _EPS[loss]
        return StepSettings(
            update="compose" if transform == "diffeomorphic" else "add",
            optimiser=self.optimiser,
            # parameters of splines and linear maps are lengths in the volume
            rate=(self.rate or _RATES[transform])
            * (level.factor if is_linear or transform == "bspline" else 1),
            betas=self.betas or (0.9, 0.99),
            eps=_or(self.eps, usual_eps) / math.prod(level.shape),
            unit=shares,
            gradient_sigmas=_along(smooth * _or(self.gradient_sigma, _GRADIENT_SIGMA), shares),
            vector_sigmas=_along(smooth * _or(self.vector_sigma, _VECTOR_SIGMA), shares),
        )

    def _published_step(self, transform: Transform, level: LevelGrid) -> StepSettings:
        if transform not in _PUBLISHED_RATES:
            raise ValueError(f"DIO: units='published' knows no {transform}, only freeform and "
                             "diffeomorphic")  # fmt: skip
        depth, height, width = (size / 2 for size in level.shape)
        rate = self.rate or _PUBLISHED_RATES[transform]
        is_composed = transform == "diffeomorphic"
        return StepSettings(
            update="compose" if is_composed else "add",
            optimiser=self.optimiser,
            rate=rate / (max(level.shape) - 1) if is_composed else rate,
            betas=self.betas or ((0.9, 0.99) if is_composed else (0.5, 0.99)),
            eps=1e-8 if self.eps is None else self.eps,
            unit=(depth, height, width),
            gradient_sigmas=_along(_or(self.gradient_sigma, _PUBLISHED_GRADIENT_SIGMA)),
            vector_sigmas=_along(_or(self.vector_sigma, _PUBLISHED_VECTOR_SIGMA)),
        )


def _along(sigma: float, shares: Vector = (1.0, 1.0, 1.0)) -> Vector:
    """A length in voxels of each axis."""
    depth, height, width = shares
    return sigma * depth, sigma * height, sigma * width


def _or(given: float | None, default: float) -> float:
    return default if given is None else given
