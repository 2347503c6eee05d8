"""Settings that people write, in YAML or as ``--set KEY=VALUE``, and the methods they build."""

from dataclasses import fields, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from cohort.errors import UsageError
from triton_reg import (
    FeatureExtractor,
    Intensity,
    LevelSettings,
    LocalContrast,
    Method,
    MindSSC,
    SegmentationUNet,
    VoxelOpt,
)

_PRESETS = {"default": VoxelOpt, "parity": VoxelOpt.parity, "paper": VoxelOpt.paper}


def _listed(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else [value]


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if not bounds[0] < bounds[1]:
        raise ValueError("the first must be below the second")
    return bounds


_Positive = Annotated[float, Field(gt=0)]
_AtLeastOne = Annotated[int, Field(ge=1)]


class VoxelOptSettings(BaseModel):
    """Settings of ``--method voxelopt``; what is not given is the preset's."""

    # a run keeps them as JSON, which knows no infinity
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    preset: Literal["default", "parity", "paper"] = Field(
        default="default", description="where the other settings start from"
    )
    features: Literal["mind", "local", "intensity", "unet"] | None = Field(
        default=None, description="what is compared; local, with the other presets mind"
    )
    weights: Path | None = Field(default=None, description="checkpoint of features=unet")
    window: Annotated[tuple[float, float], AfterValidator(_ascending)] | None = Field(
        default=None, description="intensity window: percentiles such as 1,99 or source units"
    )
    mind_radius: int | None = Field(
        default=None, ge=0, description="half width of MIND's patches in voxels; 1"
    )
    mind_dilation: int | None = Field(
        default=None, ge=1, description="distance of MIND's patches in voxels; 2"
    )
    downsample: Literal[1, 2] | None = Field(
        default=None, description="2 matches on the halved grid"
    )
    levels: int | None = Field(default=None, ge=1, le=8, description="pyramid levels at most")
    solves: Annotated[tuple[_AtLeastOne, ...], BeforeValidator(_listed)] | None = Field(
        default=None,
        min_length=1,
        description="solves at each level, finest first; the last one repeats",
    )
    squarings: int | None = Field(
        default=None, ge=0, le=12, description="steps of scaling and squaring"
    )
    radius: Literal[1, 2, 3] | None = Field(default=None, description="search radius in voxels")
    smoothing: Literal["adaptive", "adaptive-paper", "isotropic", "released"] | None = Field(
        default=None, description="how the cost volume and the displacement are smoothed"
    )
    sigma_range: Annotated[tuple[_Positive, _Positive], AfterValidator(_ascending)] | None = Field(
        default=None, description="narrowest and widest adaptive filter in voxels"
    )
    alpha: float | None = Field(
        default=None, gt=0, description="width of the paper's adaptive filter"
    )
    tap_radius: int | None = Field(default=None, ge=1, le=8, description="half width of the filter")
    passes: int | None = Field(default=None, ge=1, le=9, description="passes of the filter")
    filter_cost: bool | None = Field(default=None, description="smooth the cost volume too")
    entropy_radius: Literal[1, 2, 3] | None = Field(
        default=None, description="search radius whose entropy is taken"
    )
    couplings: Annotated[tuple[_Positive, ...], BeforeValidator(_listed)] | None = Field(
        default=None, description="weights of the coupled argmins, one an iteration"
    )

    @model_validator(mode="after")
    def _belong_together(self) -> "VoxelOptSettings":
        for name, owner in (
            ("mind_radius", "mind"),
            ("mind_dilation", "mind"),
            ("weights", "unet"),
        ):
            if getattr(self, name) is not None and self._extractor != owner:
                raise ValueError(f"{name} belongs to features={owner}, not {self._extractor}")
        return self

    @property
    def _extractor(self) -> str:
        return self.features or ("local" if self.preset == "default" else "mind")

    def build(self) -> VoxelOpt:
        """The method with these settings."""
        method = _PRESETS[self.preset]()
        features = self._features(self.window or method.features.window)
        level = replace(method.level, **self._given(LevelSettings))
        own = {
            name: value
            for name, value in self._given(VoxelOpt).items()
            if name not in ("features", "level")
        }
        return replace(method, features=features, level=level, **own)

    def _features(self, window: tuple[float, float]) -> FeatureExtractor:
        match self._extractor:
            case "mind":
                given = {"radius": self.mind_radius, "dilation": self.mind_dilation}
                chosen = {name: value for name, value in given.items() if value is not None}
                return MindSSC(**chosen, window=window)
            case "local":
                return LocalContrast(window=window)
            case "intensity":
                return Intensity(window=window)
            case _:
                return self._unet()

    def _unet(self) -> SegmentationUNet:
        if self.weights is None:
            raise UsageError("E_WEIGHTS", "features=unet needs weights=FILE, its checkpoint")
        try:
            if self.window is None:
                return SegmentationUNet.load(self.weights)
            return SegmentationUNet.load(self.weights, self.window)
        except (OSError, TypeError, ValueError, UnpicklingError) as error:
            message = f"{self.weights} is no checkpoint of the U-Net: {error}"
            raise UsageError("E_WEIGHTS", message) from None

    def _given(self, settings: type) -> dict[str, Any]:
        """The fields of a dataclass of settings that have a value here."""
        names = {field.name for field in fields(settings)}
        return {name: value for name, value in self if name in names and value is not None}


_METHODS: dict[str, type[VoxelOptSettings]] = {"voxelopt": VoxelOptSettings}


class MethodConfig(BaseModel):
    """A method by name with its settings, as a run keeps it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["voxelopt"] = "voxelopt"
    settings: VoxelOptSettings = VoxelOptSettings()

    def build(self) -> Method:
        """The method itself: what a worker calls before its first pair."""
        return self.settings.build()


def method_config(name: str, file: Path | None, assignments: list[str]) -> MethodConfig:
    """Settings from a YAML file, then from ``KEY=VALUE`` assignments.

    Raises:
        UsageError: ``E_METHOD`` for an unknown method, ``E_SETTING`` for a setting that is unknown,
            malformed or out of range; the message lists what is possible.
    """
    if name not in _METHODS:
        raise UsageError("E_METHOD", f"unknown method {name!r}; known: {', '.join(_METHODS)}")
    settings = {} if file is None else _read_yaml(file)
    settings |= dict(_assignment(text) for text in assignments)
    try:
        return MethodConfig.model_validate({"name": name, "settings": settings})
    except ValidationError as error:
        wrong = "; ".join(_fault(dict(one)) for one in error.errors())
        known = ", ".join(_METHODS[name].model_fields)
        message = f"{wrong}. Settings of {name}: {known}"
        raise UsageError("E_SETTING", message) from None


def _fault(error: dict[str, Any]) -> str:
    """One of pydantic's errors, whose place starts with ``settings``, in our words."""
    setting = ".".join(str(part) for part in error["loc"][1:])
    if error["type"] == "extra_forbidden":
        return f"unknown setting {setting!r}"
    needed = error["msg"].removeprefix("Value error, ")
    if not setting:  # two settings that do not go together
        return needed
    return f"{setting}: {needed}, got {error['input']!r}"


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError("E_CONFIG", f"{file} cannot be read as YAML: {error}") from None
    if not isinstance(content, dict):
        found = type(content).__name__
        raise UsageError("E_CONFIG", f"{file} must hold KEY: VALUE lines, found a {found}")
    return content


def _assignment(text: str) -> tuple[str, Any]:
    """``window=(1, 99)``, ``window=1,99`` and ``window=[1, 99]`` all give a list of numbers."""
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise UsageError("E_SETTING", f"--set needs KEY=VALUE, got {text!r}")
    value = value.strip()
    if value.startswith("(") and value.endswith(")"):
        value = value[1:-1]
    if "," in value and not value.startswith("["):
        value = f"[{value.rstrip(',')}]"
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        raise UsageError("E_SETTING", f"--set {text!r}: the value cannot be read") from None
