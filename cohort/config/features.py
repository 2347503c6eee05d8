"""Settings of what is compared, whatever the method."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from cohort.errors import UsageError
from triton_reg import (
    FeatureExtractor,
    Intensity,
    LearnedFeatures,
    LocalContrast,
    MindSSC,
    NetworkFeatures,
    Obelisk,
    Pretrained,
    PromptWeights,
    SegmentationUNet,
)
from triton_reg.features.pretrained import load_features

FeatureName = Literal[
    "mind", "local", "intensity", "learned", "pretrained", "unet", "obelisk", "torchscript"
]

_PRETRAINED = "brain-t1"
_LEARNED: tuple[FeatureName, ...] = ("learned", "pretrained")
_PROMPTS = {"labels": ("labels",), "keypoints": ("keypoints",), "both": ("labels", "keypoints")}
_UNTRUSTED = (
    "features=torchscript would run the program in {} with your rights; "
    "if you trust those who made it, give --trust-code on this command"
)


def listed(value: Any) -> Any:
    """A single value where a list is wanted."""
    return value if isinstance(value, (list, tuple)) else [value]


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if not bounds[0] < bounds[1]:
        raise ValueError("the first must be below the second")
    return bounds


Positive = Annotated[float, Field(gt=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
Ascending = AfterValidator(_ascending)


class FeatureSettings(BaseModel):
    """What methods share; each method's own settings are a final class of these and its own."""

    # a run keeps them as JSON, which knows no infinity
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    default_features: ClassVar[FeatureName] = "mind"
    from_files: ClassVar[tuple[FeatureName, ...]] = ("learned", "unet", "obelisk", "torchscript")

    preset: str = Field(default="default", description="where the other settings start from")
    features: FeatureName | None = Field(default=None, description="what is compared")
    weights: Path | None = Field(
        default=None,
        description="file of features=learned, unet, obelisk or torchscript",
    )
    pretrained: str | None = Field(
        default=None, description="name of features that come with the package: brain-t1"
    )
    feature_scale: float | None = Field(
        default=None, gt=0, description="factor of learned features; what was kept with them"
    )
    local_contrast: float | None = Field(
        default=None,
        ge=0,
        description="weight of local contrast beside learned features; what was kept with them",
    )
    voxel_mm: tuple[Positive, Positive, Positive] | None = Field(
        default=None,
        description="sizes of a voxel, by which learned features see volumes as coarse as those"
        " that they have learned from; the cohort's",
    )
    window: Annotated[tuple[float, float], Ascending] | None = Field(
        default=None, description="intensity window: percentiles such as 1,99 or source units"
    )
    mind_radius: int | None = Field(
        default=None, ge=0, description="half width of MIND's patches in voxels; 1"
    )
    mind_dilation: int | None = Field(
        default=None, ge=1, description="distance of MIND's patches in voxels; 2"
    )

    @model_validator(mode="after")
    def _belong_together(self) -> "FeatureSettings":
        for name, owners in (
            ("mind_radius", ("mind",)),
            ("mind_dilation", ("mind",)),
            ("weights", self.from_files),
            ("pretrained", ("pretrained",)),
            ("feature_scale", _LEARNED),
            ("local_contrast", _LEARNED),
            ("voxel_mm", _LEARNED),
        ):
            if getattr(self, name) is not None and self.extractor not in owners:
                belongs = f"{name} belongs to features={' or '.join(owners)}"
                raise ValueError(f"{belongs}, not {self.extractor}")
        return self

    @property
    def extractor(self) -> FeatureName:
        """The features that are meant where none are named."""
        return self.features or self.default_features

    @property
    def is_learned(self) -> bool:
        """Whether they are those of a network of deep implicit optimisation."""
        return self.extractor in _LEARNED

    @property
    def prompt_kinds(self) -> tuple[str, ...]:
        """What of each pair the method is told beside the volumes: labels, keypoints."""
        return ()

    def for_spacing(self, spacing_mm: tuple[float, float, float]) -> dict[str, Any]:
        """What the voxels of a working grid say of these settings, unless they are given.

        Raises:
            UsageError: ``E_WEIGHTS`` if a file of learned features is of no use.
        """
        if not self.is_learned or self.voxel_mm is not None:
            return {}
        is_known = self.learned_from().spacing_mm is not None
        return {"voxel_mm": tuple(spacing_mm)} if is_known else {}

    def built_features(
        self, default_window: tuple[float, float], *, trust_code: bool
    ) -> FeatureExtractor:
        """The extractor with these settings; see :meth:`MethodConfig.build`."""
        window = self.window or default_window
        match self.extractor:
            case "mind":
                given = {"radius": self.mind_radius, "dilation": self.mind_dilation}
                chosen = {name: value for name, value in given.items() if value is not None}
                return MindSSC(**chosen, window=window)
            case "local":
                return LocalContrast(window=window)
            case "intensity":
                return Intensity(window=window)
            case "learned" | "pretrained":
                return self._changed(self.learned_from())
            case "unet":
                return self._from_file(SegmentationUNet.load, "checkpoint of the U-Net")
            case "obelisk":
                return self._from_file(Obelisk.load, "weights of OBELISK")
            case _:
                if self.weights is not None and not trust_code:
                    raise UsageError("E_TRUST", _UNTRUSTED.format(self.weights))
                return self._from_file(NetworkFeatures.load_torchscript, "network to run")

    def learned_from(self) -> LearnedFeatures:
        """Learned features as their file has them, where :attr:`is_learned`.

        Raises:
            UsageError: ``E_WEIGHTS`` if the file is of no use, ``E_SETTING`` for an unknown name.
        """
        if self.extractor == "learned":
            return self.from_weights(load_features, "file of learned features")
        try:
            return Pretrained(self.pretrained or _PRETRAINED).features
        except ValueError as error:
            raise UsageError("E_SETTING", str(error)) from None

    def _changed(self, features: LearnedFeatures) -> LearnedFeatures:
        """The same with these settings."""
        changed = {
            "window": self.window,
            "scale": self.feature_scale,
            "local_contrast": self.local_contrast,
        }
        said = {name: one for name, one in changed.items() if one is not None}
        own = replace(features, **said)
        return own if self.voxel_mm is None else own.for_spacing(self.voxel_mm)

    def _from_file(self, load: Callable[..., FeatureExtractor], what: str) -> FeatureExtractor:
        given = {} if self.window is None else {"window": self.window}
        return self.from_weights(lambda path: load(path, **given), what)

    def from_weights(self, load: Callable[[Path], Any], what: str) -> Any:
        """What a function makes of the weights' file.

        Raises:
            UsageError: ``E_WEIGHTS`` if there is no file, or it is of no use.
        """
        if self.weights is None:
            raise UsageError(
                "E_WEIGHTS", f"features={self.extractor} needs weights=FILE, its {what}"
            )
        try:
            return load(self.weights)
        except (OSError, TypeError, ValueError, UnpicklingError) as error:
            raise UsageError("E_WEIGHTS", f"{self.weights} is no {what}: {error}") from None

    def given(self, settings: type) -> dict[str, Any]:
        """The fields of a dataclass of settings that have a value here."""
        names = {field.name for field in fields(settings)}
        return {name: value for name, value in self if name in names and value is not None}


class PromptedSettings(FeatureSettings):
    """What methods share that can be told of a pair's own labels and keypoints."""

    prompts: Literal["labels", "keypoints", "both"] | None = Field(
        default=None,
        description="what the method is told of each pair beside the volumes; measures of it are"
        " then no test of the method",
    )
    prompt_labels: float | None = Field(
        default=None, ge=0, description="weight of prompted labels beside the features; 1"
    )
    prompt_keypoints: float | None = Field(
        default=None, ge=0, description="weight of prompted keypoints; 1"
    )
    prompt_radius: float | None = Field(
        default=None, gt=0, description="how far a prompted keypoint counts, in voxels; 8"
    )

    @property
    def prompt_kinds(self) -> tuple[str, ...]:
        """See :attr:`FeatureSettings.prompt_kinds`."""
        return _PROMPTS[self.prompts] if self.prompts else ()

    def prompted(self, weights: PromptWeights) -> PromptWeights:
        """Weights of prompts with what is given in place of theirs."""
        said = {
            "labels": self.prompt_labels,
            "keypoints": self.prompt_keypoints,
            "radius": self.prompt_radius,
        }
        return replace(weights, **{name: one for name, one in said.items() if one is not None})
