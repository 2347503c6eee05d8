"""Settings of ``--method voxelopt``."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from cohort.errors import UsageError
from triton_reg import (
    FeatureExtractor,
    Intensity,
    LevelSettings,
    LocalContrast,
    MindSSC,
    NetworkFeatures,
    SegmentationUNet,
    VoxelOpt,
)

_UNTRUSTED = (
    "features=torchscript would run the program in {} with your rights; "
    "if you trust those who made it, give --trust-code on this command"
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
    features: Literal["mind", "local", "intensity", "unet", "torchscript"] | None = Field(
        default=None, description="what is compared; local, with the other presets mind"
    )
    weights: Path | None = Field(
        default=None, description="checkpoint of features=unet, file of features=torchscript"
    )
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
    precision: Literal["fast", "exact"] | None = Field(
        default=None, description="storage on GPUs: fast is fp16, exact float32 as on CPUs"
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
    masked: bool | None = Field(
        default=None,
        description="compare inside both masks alone; true for a cohort with masks. With false,"
        " features are zero outside of a mask",
    )

    @model_validator(mode="after")
    def _belong_together(self) -> "VoxelOptSettings":
        for name, owners in (
            ("mind_radius", ("mind",)),
            ("mind_dilation", ("mind",)),
            ("weights", ("unet", "torchscript")),
        ):
            if getattr(self, name) is not None and self._extractor not in owners:
                belongs = f"{name} belongs to features={' or '.join(owners)}"
                raise ValueError(f"{belongs}, not {self._extractor}")
        return self

    @property
    def _extractor(self) -> str:
        return self.features or ("local" if self.preset == "default" else "mind")

    def build(self, *, trust_code: bool = False) -> VoxelOpt:
        """The method with these settings; see :meth:`MethodConfig.build`."""
        method = _PRESETS[self.preset]()
        features = self._features(self.window or method.features.window, trust_code)
        level = replace(method.level, **self._given(LevelSettings))
        own = {
            name: value
            for name, value in self._given(VoxelOpt).items()
            if name not in ("features", "level")
        }
        return replace(method, features=features, level=level, **own)

    def _features(self, window: tuple[float, float], trust_code: bool) -> FeatureExtractor:
        match self._extractor:
            case "mind":
                given = {"radius": self.mind_radius, "dilation": self.mind_dilation}
                chosen = {name: value for name, value in given.items() if value is not None}
                return MindSSC(**chosen, window=window)
            case "local":
                return LocalContrast(window=window)
            case "intensity":
                return Intensity(window=window)
            case "unet":
                return self._from_file(SegmentationUNet.load, "checkpoint of the U-Net")
            case _:
                if self.weights is not None and not trust_code:
                    raise UsageError("E_TRUST", _UNTRUSTED.format(self.weights))
                return self._from_file(NetworkFeatures.load_torchscript, "network to run")

    def _from_file(self, load: Callable[..., FeatureExtractor], what: str) -> FeatureExtractor:
        if self.weights is None:
            raise UsageError(
                "E_WEIGHTS", f"features={self.features} needs weights=FILE, its {what}"
            )
        given = {} if self.window is None else {"window": self.window}
        try:
            return load(self.weights, **given)
        except (OSError, TypeError, ValueError, UnpicklingError) as error:
            raise UsageError("E_WEIGHTS", f"{self.weights} is no {what}: {error}") from None

    def _given(self, settings: type) -> dict[str, Any]:
        """The fields of a dataclass of settings that have a value here."""
        names = {field.name for field in fields(settings)}
        return {name: value for name, value in self if name in names and value is not None}
