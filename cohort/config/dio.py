"""Settings of ``--method dio``."""

from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from cohort.config.features import (
    AtLeastOne,
    FeatureName,
    Positive,
    PromptedSettings,
    listed,
)
from cohort.errors import UsageError
from triton_reg import DIO, DescentSettings, Intensity, Regularisers


class DioSettings(PromptedSettings):
    """Settings of ``--method dio``; what is not given is the preset's."""

    default_features: ClassVar[FeatureName] = "intensity"
    from_files: ClassVar[tuple[FeatureName, ...]] = ("learned", "unet", "torchscript")

    preset: Literal["default", "published"] = Field(
        default="default", description="where the other settings start from"
    )
    features: (
        Literal["mind", "local", "intensity", "learned", "pretrained", "unet", "torchscript"] | None
    ) = Field(default=None, description="what is compared; intensity")
    transform: Literal["freeform", "diffeomorphic", "svf", "bspline", "affine", "rigid"] | None = (
        Field(default=None, description="what the displacement is; diffeomorphic")
    )
    first: Literal["affine", "rigid"] | None = Field(
        default=None, description="a linear map that is found before"
    )
    loss: Literal["mse", "lncc"] | None = Field(
        default=None, description="how features are compared; lncc for intensity, else mse"
    )
    lncc_window: int | None = Field(
        default=None, ge=3, description="width of lncc's cubes in voxels of a level, odd; 3"
    )
    levels: Annotated[tuple[AtLeastOne, ...], BeforeValidator(listed)] | None = Field(
        default=None,
        description="how much coarser each level is, coarsest first, for features without levels of"
        " their own; 4,2,1",
    )
    iterations: Annotated[tuple[AtLeastOne, ...], BeforeValidator(listed)] | None = Field(
        default=None, description="at most, on each level"
    )
    optimiser: Literal["adam", "sgd"] | None = Field(default=None, description="adam")
    rate: float | None = Field(
        default=None, gt=0, description="step, in voxels of the level; what suits the transform"
    )
    eps: float | None = Field(
        default=None,
        gt=0,
        description="gradients much below it move less than those above; 4 for lncc, 0.7 for mse",
    )
    gradient_sigma: float | None = Field(
        default=None, ge=0, description="smoothing of the gradient, in voxels of the level; 0.5"
    )
    vector_sigma: float | None = Field(
        default=None, ge=0, description="smoothing of the vectors after each step; 0.3"
    )
    stop_tolerance: float | None = Field(
        default=None, gt=0, description="share of the loss that counts as progress; 0.0005"
    )
    stop_patience: AtLeastOne | None = Field(
        default=None, description="iterations without progress after which a pair stops; 10"
    )
    diffusion: float | None = Field(default=None, ge=0, description="weight of first derivatives")
    bending: float | None = Field(default=None, ge=0, description="weight of second derivatives")
    total_variation: float | None = Field(
        default=None, ge=0, description="weight of the length of first derivatives"
    )
    jacobian: float | None = Field(default=None, ge=0, description="weight of folding")
    spline_spacing: Positive | None = Field(
        default=None, description="distance of bspline's control points in voxels; 4"
    )
    voxel: Annotated[tuple[Positive, Positive, Positive], Field()] | None = Field(
        default=None, description="size of a voxel along each axis; the cohort's"
    )
    masked: bool | None = Field(
        default=None, description="compare inside both masks alone; true for a cohort with masks"
    )
    diagnose: bool | None = Field(
        default=None,
        description="also say how much of each step lies along the moving volume's gradient",
    )

    def for_spacing(self, spacing_mm: tuple[float, float, float]) -> dict[str, Any]:
        """See :meth:`FeatureSettings.for_spacing`; lengths where voxels are no cubes."""
        told = super().for_spacing(spacing_mm)
        smallest = min(spacing_mm)
        if self.voxel is not None or max(spacing_mm) - smallest < 1e-6 * smallest:
            return told
        return told | {"voxel": tuple(mm / smallest for mm in spacing_mm)}

    def build(self, *, trust_code: bool = False) -> DIO:
        """The method with these settings; see :meth:`MethodConfig.build`."""
        features = self.built_features(Intensity().window, trust_code=trust_code)
        start = DIO.published() if self.preset == "published" else DIO()
        rule = _changed(
            start.descent.rule, tolerance=self.stop_tolerance, patience=self.stop_patience
        )
        descent = replace(start.descent, rule=rule, **self.given(DescentSettings))
        nested = {"features", "descent", "regularisers"}
        own = {name: one for name, one in self.given(DIO).items() if name not in nested}
        if self.lncc_window is not None:
            own["window"] = self.lncc_window
        else:
            own.pop("window", None)  # that of the intensities
        try:
            return replace(
                start,
                features=features,
                descent=descent,
                regularisers=replace(start.regularisers, **self.given(Regularisers)),
                prompt_weights=self.prompted(start.prompt_weights),
                **own,
            )
        except ValueError as error:
            raise UsageError("E_SETTING", str(error)) from None


def _changed(settings: Any, **values: Any) -> Any:
    return replace(settings, **{name: one for name, one in values.items() if one is not None})
