"""Settings of ``--method voxelopt``."""

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from cohort.config.features import (
    Ascending,
    AtLeastOne,
    FeatureName,
    FeatureSettings,
    Positive,
    listed,
)
from triton_reg import LevelSettings, VoxelOpt

_PRESETS = {"default": VoxelOpt, "parity": VoxelOpt.parity, "paper": VoxelOpt.paper}


class VoxelOptSettings(FeatureSettings):
    """Settings of ``--method voxelopt``; what is not given is the preset's."""

    from_files: ClassVar[tuple[FeatureName, ...]] = ("learned", "unet", "torchscript")

    preset: Literal["default", "parity", "paper"] = Field(
        default="default", description="where the other settings start from"
    )
    features: (
        Literal["mind", "local", "intensity", "learned", "pretrained", "unet", "torchscript"] | None
    ) = Field(default=None, description="what is compared; local, with the other presets mind")
    downsample: Literal[1, 2] | None = Field(
        default=None, description="2 matches on the halved grid"
    )
    levels: int | None = Field(default=None, ge=1, le=8, description="pyramid levels at most")
    solves: Annotated[tuple[AtLeastOne, ...], BeforeValidator(listed)] | None = Field(
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
    sigma_range: Annotated[tuple[Positive, Positive], Ascending] | None = Field(
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
    couplings: Annotated[tuple[Positive, ...], BeforeValidator(listed)] | None = Field(
        default=None, description="weights of the coupled argmins, one an iteration"
    )
    masked: bool | None = Field(
        default=None,
        description="compare inside both masks alone; true for a cohort with masks. With false,"
        " features are zero outside of a mask",
    )

    @property
    def extractor(self) -> FeatureName:
        """VoxelOpt's own default is local contrast; the published presets have MIND."""
        return self.features or ("local" if self.preset == "default" else "mind")

    def build(self, *, trust_code: bool = False) -> VoxelOpt:
        """The method with these settings; see :meth:`MethodConfig.build`."""
        method = _PRESETS[self.preset]()
        features = self.built_features(method.features.window, trust_code=trust_code)
        level = replace(method.level, **self.given(LevelSettings))
        own = {
            name: value
            for name, value in self.given(VoxelOpt).items()
            if name not in ("features", "level")
        }
        return replace(method, features=features, level=level, **own)
