"""A published protocol as a YAML file says it: scans, splits, pairs, settings, figures."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from cohort.config.method import MethodConfig, method_config
from cohort.errors import UsageError

SUBJECT = "{subject}"
NATIVE = "native"
TRAINED = "train"  # folder of a fold's training, beside those of its settings
RANGE = re.compile(r"(-?[1-9]\d*)\.\.(-?[1-9]\d*)")
_GRID = re.compile(r"(native|\d+x\d+x\d+)@(native|[\d.]+(x[\d.]+x[\d.]+)?mm)")
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


def _pattern(text: str) -> str:
    if SUBJECT not in text or text.startswith("/"):
        raise ValueError(f"need a path below the data with {SUBJECT} where the subject's id stands")
    return text


def _grid(text: str) -> str:
    if not _GRID.fullmatch(text):
        raise ValueError("need SHAPE@SPACING such as 192x160x256@2mm; each may be native")
    return text


def _selection(value: str | tuple[int | str, ...]) -> str | tuple[int | str, ...]:
    if isinstance(value, str) and not RANGE.fullmatch(value):
        raise ValueError("need FIRST..LAST, counted from 1 or with -1 for the last, or a list")
    return value


Pattern = Annotated[str, AfterValidator(_pattern)]
Selection = Annotated[str | tuple[int | str, ...], AfterValidator(_selection)]
Name = Annotated[str, Field(pattern=_NAME)]
Figure = float | tuple[float, float] | None


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Case(_Part):
    """Scans on one grid.

    Attributes:
        name: of its folder and in the table.
        images, labels: paths below the data, with ``{subject}`` where the id stands.
        scans: how many there are.
        grid: ``SHAPE@SPACING`` around the middle of the first scan. A ``native`` shape has room
            for the largest scan, a ``native`` spacing is the median of the scans'.
        align: of ``cohort ingest``.
    """

    name: Name
    images: Pattern
    labels: Pattern
    scans: int = Field(ge=2)
    grid: Annotated[str, AfterValidator(_grid)]
    align: Literal["none", "grid", "center", "rigid", "affine"] = "grid"


class Fold(_Part):
    """Which scans are trained on and which are registered: ``FIRST..LAST`` in the order of their
    ids, counted from 1 or with -1 for the last; or a list of such numbers or of ids."""

    name: Name = "all"
    train: Selection | None = None
    test: Selection


class Training(_Part):
    """What each fold trains, as ``cohort train`` takes it."""

    method: Literal["pdd_net", "dio"]
    steps: int | None = Field(default=None, ge=1)
    supervision: str | None = None
    set: tuple[str, ...] = ()


class Setting(_Part):
    """A row of ours: a method and its settings; `trained` takes the fold's model, or the weights
    that were given, as its ``weights``."""

    name: Name
    title: str
    method: str = "voxelopt"
    set: tuple[str, ...] = ()
    trained: bool = False

    def config(self, weights: Path | None = None) -> MethodConfig:
        """The method, with these weights if it takes any."""
        more = [f"weights={weights}"] if self.trained and weights is not None else []
        return method_config(self.method, None, [*self.set, *more])


class Measures(_Part):
    """The conventions that the published figures follow.

    Attributes:
        absent: a structure that one of two scans lacks is left out of the mean Dice (``skip``), or
            counts as 0 (``zero``). Distances leave it out.
        hd95: of surfaces, in ``mm`` or in ``voxels``.
        sdlogj: sd of ``ln(det J + 3)``, as ``learn2reg`` has it, or of ``ln(det J)``, ``plain``.
    """

    absent: Literal["skip", "zero"] = "skip"
    hd95: Literal["mm", "voxels"] = "mm"
    sdlogj: Literal["learn2reg", "plain"] = "learn2reg"


class Published(_Part):
    """A published row: means, or mean and standard deviation, and where they stand. Dice is a share
    of 1, folding is in percent. `case` is None where the protocol has but one."""

    method: str
    source: str = Field(min_length=1)
    case: str | None = None
    dice: Figure = None
    hd95: Figure = None
    sdlogj: Figure = None
    folding: Figure = None
    seconds: Figure = None


class Protocol(_Part):
    """A paper's experiment; `structures` are the label values that are measured, all if empty."""

    title: str
    paper: str
    cases: tuple[Case, ...] = Field(min_length=1)
    folds: tuple[Fold, ...] = Field(min_length=1)
    pairs: Literal["ordered", "consecutive"]
    structures: dict[int, str] = Field(default_factory=dict)
    training: Training | None = None
    settings: tuple[Setting, ...] = Field(min_length=1)
    measures: Measures = Measures()
    published: tuple[Published, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> "Protocol":
        for what, names in (
            ("cases", [one.name for one in self.cases]),
            ("folds", [one.name for one in self.folds]),
            ("settings", [one.name for one in self.settings]),
        ):
            if len(set(names)) < len(names):
                raise ValueError(f"{what}: each needs a name of its own, got {', '.join(names)}")
        if any(one.name == TRAINED for one in self.settings):
            raise ValueError(
                f"settings: {TRAINED} is the folder of the training; need another name"
            )
        cases = {one.name for one in self.cases}
        unknown = {one.case for one in self.published if one.case} - cases
        if unknown:
            raise ValueError(f"published: no case is called {', '.join(sorted(unknown))}")
        if len(cases) > 1 and any(one.case is None for one in self.published):
            raise ValueError("published: with several cases each row needs its case")
        if self.training and any(fold.train is None for fold in self.folds):
            raise ValueError("training: each fold needs its train scans")
        if self.measures.absent == "zero" and not self.structures:
            raise ValueError("measures: absent: zero needs structures")
        return self


_PARTS: dict[str, type[BaseModel]] = {
    "cases": Case,
    "folds": Fold,
    "training": Training,
    "settings": Setting,
    "measures": Measures,
    "published": Published,
}


def read_protocol(path: Path) -> Protocol:
    """The protocol in a YAML file.

    Raises:
        UsageError: ``E_CONFIG`` if it cannot be read or a key is unknown, missing or out of range;
            ``E_METHOD`` or ``E_SETTING`` as :func:`cohort.config.method.method_config` does.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise UsageError("E_CONFIG", f"{path} cannot be read as YAML: {error}") from None
    try:
        protocol = Protocol.model_validate(content)
    except ValidationError as error:
        wrong = "; ".join(_fault(dict(one)) for one in error.errors())
        raise UsageError("E_CONFIG", f"{path}: {wrong}") from None
    for setting in protocol.settings:
        setting.config()
    return protocol


def _fault(error: dict[str, Any]) -> str:
    """One of pydantic's errors in our words."""
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        model = _PARTS.get(str(error["loc"][0]), Protocol) if len(error["loc"]) > 1 else Protocol
        return f"unknown key {place}; possible: {', '.join(model.model_fields)}"
    if error["type"] == "missing":
        return f"{place} is missing"
    needed = error["msg"].removeprefix("Value error, ")
    return needed if not place else f"{place}: {needed}, got {error['input']!r}"
