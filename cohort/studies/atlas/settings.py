"""What a template is made of: chosen once, kept in ``OUT/atlas.json``."""

from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    ValidationError,
    model_validator,
)

from cohort.config.method import MethodConfig
from cohort.data.storage import storage_error, to_json, write_atomic
from cohort.engine.spec import Device
from cohort.engine.sum_settings import WEIGHT_UNIT, Normalise, SumSettings
from cohort.errors import StorageError, UsageError

FILE = "atlas.json"
Center = Literal["mean", "median", "trimmed", "huber"]
CENTERS: tuple[Center, ...] = ("mean", "median", "trimmed", "huber")
_BINS = 64


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
            :class:`cohort.engine.sum_settings.SumSettings`.
        weights: of subjects that do not count once.
        shrink: divides the grid of the first passes, one number a pass.
        sharpen: how much of what a Gaussian takes away is added again.
        symmetric: whether every subject counts as its mirror image too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "template"
    suffix: str = "T1w"
    subjects: tuple[str, ...]
    method: MethodConfig = MethodConfig()
    device: Device = "cpu"
    start: str = "mean"
    center: Center = "mean"
    normalise: Normalise = "range"
    weights: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    shrink: tuple[int, ...] = ()
    sharpen: NonNegativeFloat = 0.0
    symmetric: bool = False

    @model_validator(mode="after")
    def _bins_have_a_range(self) -> "AtlasSettings":
        if self.center != "mean" and self.normalise == "none":
            raise ValueError(f"center={self.center} needs normalise=range, as its histograms do")
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

    def save(self, out: Path) -> None:
        """Write ``OUT/atlas.json``; raises StorageError."""
        write_atomic(out / FILE, to_json(self.model_dump(mode="json", exclude_none=True)))


def load_settings(out: Path) -> AtlasSettings | None:
    """What a template was begun with; None if none was.

    Raises:
        StorageError: ``E_ATLAS`` if its file is damaged.
    """
    path = out / FILE
    try:
        return AtlasSettings.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise storage_error(path, error) from error
    except ValidationError as error:
        message = f"{path} is damaged or of another version: {error.errors()[0]['msg']}"
        raise StorageError("E_ATLAS", message) from None


def check_same(out: Path, existing: AtlasSettings, asked: AtlasSettings) -> None:
    """Refuse to go on with a template that was begun otherwise.

    Raises:
        UsageError: ``E_PLAN_MISMATCH`` with what differs.
    """
    before, now = (one.model_dump(mode="json", exclude_none=True) for one in (existing, asked))
    said = [_difference(key, before.get(key), now.get(key)) for key in now
            if before.get(key) != now.get(key)]  # fmt: skip
    if said:
        raise UsageError(
            "E_PLAN_MISMATCH",
            f"{out} holds a template that was begun otherwise: {'; '.join(said)}. Choose another"
            " folder, or --add subjects to it",
        )


def _difference(key: str, before: Any, now: Any) -> str:
    if key == "subjects":
        changed = sorted(set(before) ^ set(now))
        return f"subjects differ by {', '.join(changed[:5])}" + (", ..." if changed[5:] else "")
    return f"{key} was {before}, now {now}"
