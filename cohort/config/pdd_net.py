"""Settings of ``--method pdd_net``."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from cohort.config.features import (
    AtLeastOne,
    FeatureName,
    Positive,
    PromptedSettings,
    listed,
)
from cohort.errors import UsageError
from triton_reg import (
    CubeSearch,
    EvenSearch,
    FeatureExtractor,
    FitSettings,
    MatchSettings,
    MindSSC,
    PDDNet,
)
from triton_reg.methods.pdd_model import load_model
from triton_reg.methods.search import Search

_FEATURES: dict[str, FeatureName] = {"default": "local", "v01": "mind", "two_warp": "obelisk"}
_CUBE = ("count", "share")
_EVEN = ("spacing", "extent")

_Lengths = Annotated[tuple[Positive, ...], BeforeValidator(listed)]
_Counts = Annotated[tuple[AtLeastOne, ...], BeforeValidator(listed)]


class PddNetSettings(PromptedSettings):
    """Settings of ``--method pdd_net``; what is not given is the preset's."""

    preset: Literal["default", "v01", "two_warp"] = Field(
        default="default", description="where the other settings start from"
    )
    spacing: _Lengths | None = Field(
        default=None, description="distance of control points in voxels, one a stage"
    )
    extent: _Lengths | None = Field(
        default=None, description="largest displacement in voxels, one a stage"
    )
    count: _Counts | None = Field(
        default=None, description="control points along every axis, one a stage; as published"
    )
    share: _Lengths | None = Field(
        default=None, description="largest displacement, of half the volume's extent; as published"
    )
    width: _Counts | None = Field(
        default=None, description="displacement labels along every axis, odd, one a stage"
    )
    voxel: Annotated[tuple[Positive, Positive, Positive], Field()] | None = Field(
        default=None,
        description="size of a voxel along each axis for spacing and extent; the cohort's, its"
        " smallest being 1",
    )
    feature_step: int | None = Field(
        default=None, ge=1, le=8, description="voxels an axis that features are averaged over"
    )
    match_weights: Annotated[tuple[float, float, float, float], Field()] | None = Field(
        default=None, description="the published alphas 0, 2, 3 and 5"
    )
    smoothing: (
        Literal["min_convolution", "exact_min_convolution", "mean_field", "gaussian", "none"] | None
    ) = Field(default=None, description="what a round of messages does")
    iterations: int | None = Field(default=None, ge=0, le=8, description="rounds of messages")
    curvature: float | None = Field(
        default=None, gt=0, description="of the exact min-convolution's parabolas"
    )
    sigma: float | None = Field(
        default=None, gt=0, description="of smoothing=gaussian, in control points"
    )
    fit: bool | None = Field(
        default=None, description="instance optimisation: fit a smooth field to the probabilities"
    )
    fit_iterations: int | None = Field(default=None, ge=1, description="its steps; 50")
    fit_rate: float | None = Field(default=None, gt=0, description="its learning rate; 0.02")
    fit_smoothness: float | None = Field(
        default=None, ge=0, description="its weight of differences between neighbours; 1.5"
    )
    composition: Literal["control", "full"] | None = Field(
        default=None, description="where stages are composed; full as published"
    )

    @model_validator(mode="after")
    def _one_kind_of_search(self) -> "PddNetSettings":
        cube, even = (
            [name for name in names if getattr(self, name) is not None]
            for names in (_CUBE, (*_EVEN, "voxel"))
        )
        if cube and even:
            raise ValueError(f"{cube[0]} and {even[0]} belong to different kinds of search")
        return self

    @property
    def extractor(self) -> FeatureName:
        """Local contrast by default, OBELISK where the preset is published with its weights."""
        return self.features or _FEATURES[self.preset]

    def for_spacing(self, spacing_mm: tuple[float, float, float]) -> dict[str, Any]:
        """See :meth:`FeatureSettings.for_spacing`; lengths where voxels are no cubes."""
        told = super().for_spacing(spacing_mm)
        smallest = min(spacing_mm)
        if self.voxel is not None or max(spacing_mm) - smallest < 1e-6 * smallest or self._is_cube:
            return told
        return told | {"voxel": tuple(mm / smallest for mm in spacing_mm)}

    @property
    def _is_cube(self) -> bool:
        """Whether control points are counted, not measured out."""
        given = any(getattr(self, name) is not None for name in _CUBE)
        return given or (self.preset != "default" and self.spacing is None and self.extent is None)

    def build(self, *, trust_code: bool = False) -> PDDNet:
        """The method with these settings; see :meth:`MethodConfig.build`."""
        method = self._start(trust_code)
        own = {
            "weights": self.match_weights,
            "feature_step": self.feature_step,
            "composition": self.composition,
        }
        return replace(
            method,
            stages=self._stages(method.stages),
            match=replace(method.match, **self.given(MatchSettings)),
            fit=self._fit(method.fit),
            prompt_weights=self.prompted(method.prompt_weights),
            **_known(own),
        )

    def _start(self, trust_code: bool) -> PDDNet:
        """What the preset, or a trained model's file, says."""
        is_model = self.weights is not None and self.weights.suffix == ".safetensors"
        if self.extractor == "obelisk" and self.preset == "default" and is_model:
            method = self.from_weights(load_model, "model that cohort train has written")
        elif self.extractor == "obelisk" and self.preset == "two_warp":
            method = self.from_weights(PDDNet.two_warp, "published weights of the two-warp script")
        else:
            features = self.built_features(MindSSC().window, trust_code=trust_code)
            starts = {"default": _default, "v01": PDDNet.v01, "two_warp": PDDNet.two_warp}
            return starts[self.preset](features)
        if self.window is None:
            return method
        return replace(method, features=replace(method.features, window=self.window, clip=True))

    def _stages(self, preset: tuple[Search, ...]) -> tuple[Search, ...]:
        """The preset's searches, with what is given in place of theirs.

        A single value holds for all of them; three single values that say all there is to know of a
        search are one.
        """
        given = {name: getattr(self, name) for name in (*_CUBE, *_EVEN, "width")}
        given = _known(given)
        if not given and self.voxel is None:
            return preset
        whole = any({*kind, "width"} <= given.keys() for kind in (_CUBE, _EVEN))
        numbers = {len(values) for values in given.values()} - {1} or {1 if whole else len(preset)}
        if len(numbers) > 1:
            raise UsageError("E_SETTING", f"one value a stage: {given} name different numbers")
        count = numbers.pop()
        return tuple(self._stage(given, stage, preset[min(stage, len(preset) - 1)], count)
                     for stage in range(count))  # fmt: skip

    def _stage(
        self, given: dict[str, tuple[float, ...]], stage: int, preset: Search, count: int
    ) -> Search:
        own: dict[str, Any] = {
            name: values[stage if len(values) == count else 0] for name, values in given.items()
        }
        kind = (
            CubeSearch if set(own) & set(_CUBE) else EvenSearch if set(own) & set(_EVEN) else None
        )
        if kind is None or isinstance(preset, kind):
            if self.voxel is not None and isinstance(preset, EvenSearch):
                own["voxel"] = self.voxel
            return _checked(lambda: replace(preset, **own))
        needed = {field.name for field in fields(kind)} - {"voxel"}
        if own.keys() < needed:
            missing = ", ".join(sorted(needed - own.keys()))
            raise UsageError(
                "E_SETTING", f"{', '.join(own)}: this kind of search needs {missing} too"
            )
        return _checked(lambda: kind(**own))

    def _fit(self, preset: FitSettings | None) -> FitSettings | None:
        given = _known({
            "iterations": self.fit_iterations,
            "learning_rate": self.fit_rate,
            "smoothness": self.fit_smoothness,
        })  # fmt: skip
        wanted = self.fit if self.fit is not None else preset is not None or bool(given)
        return replace(preset or FitSettings(), **given) if wanted else None


def _default(features: FeatureExtractor) -> PDDNet:
    return PDDNet(features=features)


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _checked(build: Callable[[], Search]) -> Search:
    try:
        return build()
    except ValueError as error:
        raise UsageError("E_SETTING", str(error)) from None
