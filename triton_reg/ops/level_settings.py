"""The settings of a pyramid level: what its definition and its kernels all read."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from triton_reg.ops.checks import check_choice

Smoothing = Literal["adaptive", "adaptive-paper", "isotropic", "released"]

# exp(-2) and exp(-4) are Gaussians of sigma 0.5 and 0.3536; the released non-adaptive kernel was
# meant to be isotropic but one of its coordinate grids counts axis 2 twice and axis 1 not at all
_CONSTANT_SIDES = {
    "isotropic": (0.10650698, 0.10650698, 0.10650698),
    "released": (0.10650698, 1 / 3, 0.01766842),
}


@dataclass(frozen=True, kw_only=True)
class LevelSettings:
    """How one level is solved; the defaults are those of the released VoxelOpt code.

    Attributes:
        radius: half width of the search window in voxels.
        smoothing: ``"adaptive"`` (width from the entropy as in the released code),
            ``"adaptive-paper"`` (as in the paper), ``"isotropic"`` (sigma 0.5 everywhere), or
            ``"released"`` (the released non-adaptive kernel, which is not isotropic).
        sigma_range: lowest and highest filter width in voxels, for ``"adaptive"``.
        alpha: filter width at the highest entropy over ln 2, for ``"adaptive-paper"``.
        tap_radius: half width of the filter in voxels.
        passes: how often the filter runs through the three axes.
        filter_cost: whether the cost volume is smoothed too, not only the displacement.
        entropy_radius: search radius of the cost whose entropy is taken; that of the level if None.
        couplings: weights of the coupled argmins, one an iteration, after a first uncoupled one.
        masked: whether the last channel of the features is no feature but the subject's mask, from
            0 to 1, so that only what lies inside both masks is compared.
    """

    radius: int = 1
    smoothing: Smoothing = "adaptive"
    sigma_range: tuple[float, float] = (0.1, 0.5)
    alpha: float = 1.5
    tap_radius: int = 1
    passes: int = 3
    filter_cost: bool = True
    entropy_radius: int | None = None
    couplings: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
    masked: bool = False

    def __post_init__(self) -> None:
        check_choice("LevelSettings", "smoothing", self.smoothing, get_args(Smoothing))
        if min(self.radius, self.tap_radius) < 1 or self.passes < 0:
            raise ValueError(
                "LevelSettings: radius and tap_radius must be at least 1 and passes 0, got "
                f"{self.radius}, {self.tap_radius} and {self.passes}"
            )

    @property
    def constant_sides(self) -> tuple[float, float, float] | None:
        """Side taps along the three axes where the filter is the same everywhere, else None."""
        return _CONSTANT_SIDES.get(self.smoothing)

    @property
    def is_wide(self) -> bool:
        """Whether the filter reaches beyond the next voxel."""
        return self.tap_radius > 1 and self.constant_sides is None

    @classmethod
    def from_values(cls, values: Iterable[Any]) -> "LevelSettings":
        """Settings from their values in order, lists for tuples, as operators get them."""
        plain: dict[str, Any] = {
            field.name: tuple(value) if isinstance(value, list) else value
            for field, value in zip(fields(cls), values, strict=True)
        }
        return cls(**plain)
