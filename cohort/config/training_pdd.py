"""Settings of ``cohort train``: those of the method that is trained, and of how it is trained."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cohort.config.features import AtLeastOne, Positive
from cohort.config.method import method_config
from cohort.config.pdd_net import PddNetSettings
from cohort.errors import UsageError
from triton_reg import PDDNet
from triton_reg.training.pdd_settings import UNTRAINED, TrainingSettings
from triton_reg.training.validated import Schedule

_SEARCH = ("spacing", "width", "extent")
_CUBE = ("count", "share")


class TrainingChoices(BaseModel):
    """What ``--set`` says of the training itself; what is not given is the default's."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    pairs: AtLeastOne | None = None
    learning_rate: Positive | None = None
    smoothness: float | None = Field(default=None, ge=0)
    augmentation: float | None = Field(default=None, ge=0)
    background: float | None = Field(default=None, ge=0)
    channels: AtLeastOne | None = None
    recompute: bool | None = None
    validate_every: AtLeastOne | None = None
    patience: AtLeastOne | None = None
    validation_share: float | None = Field(default=None, ge=0, lt=1)


class TrainingConfig(NamedTuple):
    """What is trained and how, as :mod:`triton_reg.training` takes it."""

    method: PDDNet
    settings: TrainingSettings
    schedule: Schedule


def training_config(
    name: str,
    file: Path | None,
    assignments: list[str],
    spacing_mm: tuple[float, float, float],
    **options: Any,
) -> TrainingConfig:
    """Settings from a YAML file of the method's, then from ``KEY=VALUE`` assignments of either.

    Args:
        name: of the method.
        file: YAML with settings of the method.
        assignments: settings of the method or of the training.
        spacing_mm: of the working grid, so that lengths are the same along every axis.
        options: ``steps``, ``supervision`` and ``seed`` of
            :class:`triton_reg.training.pdd_settings.TrainingSettings`; None for its own.

    Raises:
        UsageError: ``E_METHOD`` for a method that is not trained, ``E_SETTING`` for a setting that
            is unknown, out of range or decided by the training.
    """
    of_training, of_method = {}, []
    for text in assignments:
        key, separator, value = text.partition("=")
        if separator and key.strip() in TrainingChoices.model_fields:
            of_training[key.strip()] = yaml.safe_load(value)
        else:
            of_method.append(text)
    settings = method_config(name, file, of_method).settings
    if not isinstance(settings, PddNetSettings):
        raise UsageError("E_METHOD", f"{name} is not trained by this command; need pdd_net")
    choices = _choices(of_training)
    given = choices.model_dump(exclude_none=True)
    schedule = {
        own: given.pop(said)
        for said, own in (
            ("validate_every", "every"), ("patience", "patience"), ("validation_share", "share"),
        )
        if said in given
    }  # fmt: skip
    given |= {key: value for key, value in options.items() if value is not None}
    if settings.window is not None:
        given["window"] = settings.window
    return TrainingConfig(
        _method(settings, spacing_mm),
        replace(TrainingSettings(), **given),
        replace(Schedule(), **schedule),
    )


def _choices(values: dict[str, Any]) -> TrainingChoices:
    try:
        return TrainingChoices.model_validate(values)
    except ValidationError as error:
        wrong = "; ".join(
            f"{one['loc'][0]}: {one['msg']}, got {one['input']!r}" for one in error.errors()
        )
        known = ", ".join(TrainingChoices.model_fields)
        raise UsageError("E_SETTING", f"{wrong}. Settings of training: {known}") from None


def _method(settings: PddNetSettings, spacing_mm: tuple[float, float, float]) -> PDDNet:
    """The method to train: published where nothing is said, with one search."""
    if settings.features is not None or settings.weights is not None:
        raise UsageError(
            "E_SETTING", "features and weights are what training makes; leave both out"
        )
    update: dict[str, Any] = {}
    if settings.preset == "default":
        search = UNTRAINED.stages[0]
        update |= {
            "match_weights": UNTRAINED.weights,
            "feature_step": UNTRAINED.feature_step,
            "smoothing": UNTRAINED.match.smoothing,
        }
        if not any(getattr(settings, key) for key in _CUBE):
            update |= {key: (getattr(search, key),) for key in _SEARCH}
    unsaid = {key: value for key, value in update.items() if getattr(settings, key) is None}
    settings = settings.model_copy(update=unsaid)
    settings = settings.model_copy(update=settings.for_spacing(spacing_mm))
    method = settings.build()
    lengths = [len(getattr(settings, key) or ()) for key in (*_SEARCH, *_CUBE)]
    return replace(method, stages=method.stages[: max(*lengths, 1)])
