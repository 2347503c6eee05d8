"""What a template is made of."""

from typing import Annotated, Literal

from pydantic import AllowInfNan, BaseModel, ConfigDict, Field, NonNegativeFloat, model_validator

from cohort.config.method import MethodConfig
from cohort.config.sums import WEIGHT_UNIT, Normalise, SumSettings

Center = Literal["mean", "median", "trimmed", "huber"]
CENTERS: tuple[Center, ...] = ("mean", "median", "trimmed", "huber")
_BINS = 64
_MOST_WEIGHT = 1 << 30  # in histograms of 32 bits, mirror images counted


class AtlasSettings(BaseModel):
    """Everything that a template depends on but the cohort's content and how many passes there are.

    Attributes:
        name: of the template: its subject id in its passes, and in the names of its files.
        suffix: of its image, as BIDS has it.
        subjects: that it is made of, sorted.
        method: that registers them.
        device: kind of device.
        start: ``mean``, ``medoid``, a subject or a NIfTI file.
        center: which mean of the intensities at a voxel.
        normalise: of each subject's intensities, see
            :class:`cohort.config.sums.SumSettings`.
        weights: of subjects that do not count once.
        shrink: divides the grid of the first passes, one number a pass.
        sharpen: how much of what a Gaussian takes away is added again.
        symmetric: whether every subject counts as its mirror image too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field("template", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    suffix: str = Field("T1w", pattern=r"^[A-Za-z0-9]{1,32}$")
    subjects: tuple[str, ...]
    method: MethodConfig = MethodConfig()
    device: Literal["cpu", "cuda"] = "cpu"
    start: str = "mean"
    center: Center = "mean"
    normalise: Normalise = "range"
    weights: dict[str, Annotated[NonNegativeFloat, AllowInfNan(False)]] = Field(
        default_factory=dict
    )
    shrink: tuple[Annotated[int, Field(ge=1, le=16)], ...] = ()
    sharpen: NonNegativeFloat = 0.0
    symmetric: bool = False

    @model_validator(mode="after")
    def _bins_have_a_range(self) -> "AtlasSettings":
        if self.center != "mean" and self.normalise == "none":
            raise ValueError(f"center={self.center} needs normalise=range, as its histograms do")
        return self

    @model_validator(mode="after")
    def _weights_count(self) -> "AtlasSettings":
        small = [name for name, one in self.weights.items() if 0 < one < 1 / WEIGHT_UNIT]
        if small:
            raise ValueError(
                f"the weight of {min(small)} is {self.weights[min(small)]:g}; the smallest that"
                f" counts is 1/{WEIGHT_UNIT}. Multiply all; those without a weight count once"
            )
        total = sum(self.weights.get(name, 1.0) for name in self.subjects)
        if not 0 < total * WEIGHT_UNIT < _MOST_WEIGHT:
            most = _MOST_WEIGHT // WEIGHT_UNIT
            raise ValueError(
                f"the weights add up to {total:g}; need more than 0 and less than {most}"
            )
        return self

    def shrink_of(self, number: int) -> int:
        """Of pass ``number``, counted from 1."""
        return self.shrink[number - 1] if number <= len(self.shrink) else 1

    def sums(self, *, detail: bool) -> SumSettings:
        """What a pass adds up."""
        weights = {name: round(weight * WEIGHT_UNIT) for name, weight in self.weights.items()}
        bins = 0 if self.center == "mean" else _BINS
        return SumSettings(normalise=self.normalise, bins=bins, weights=weights, detail=detail)

    def with_more(self, subjects: tuple[str, ...]) -> "AtlasSettings":
        """The settings of the template with further subjects."""
        everyone = tuple(sorted({*self.subjects, *subjects}))
        return self.model_copy(update={"subjects": everyone})
