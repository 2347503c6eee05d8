"""Settings of ``cohort train``: those of the method that is trained, and of how it is trained."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cohort.config.dio import DioSettings
from cohort.config.features import AtLeastOne
from cohort.config.method import Settings, method_config
from cohort.config.pdd_net import PddNetSettings
from cohort.config.training_dio import DioTrainingChoices, dio_recipe
from cohort.config.training_pdd import PddTrainingChoices, pdd_recipe
from cohort.errors import UsageError
from triton_reg.training.recipe import Recipe
from triton_reg.training.validated import Schedule

TRAINED = ("pdd_net", "dio")
_OF_TRAINING = "Settings of training: "
_SCHEDULE = {"validate_every": "every", "patience": "patience", "validation_share": "share"}


class ScheduleChoices(BaseModel):
    """What ``--set`` says of when a training is looked at."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    validate_every: AtLeastOne | None = None
    patience: AtLeastOne | None = None
    validation_share: float | None = Field(default=None, ge=0, lt=1)


class TrainingConfig(NamedTuple):
    """What is trained and how, and when it is looked at."""

    recipe: Recipe
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
        options: ``steps``, ``supervision`` and ``seed``; None for the method's own.

    Raises:
        UsageError: ``E_METHOD`` for a method that is not trained, ``E_SETTING`` for a setting that
            is unknown, out of range or decided by the training.
    """
    if name not in TRAINED:
        trained = " or ".join(TRAINED)
        raise UsageError("E_METHOD", f"{name} is not trained by this command; need {trained}")
    choices: type[BaseModel] = PddTrainingChoices if name == "pdd_net" else DioTrainingChoices
    of_schedule, left = _taken(assignments, ScheduleChoices)
    of_training, of_method = _taken(left, choices)
    known = [*choices.model_fields, *ScheduleChoices.model_fields]
    schedule = _checked(ScheduleChoices, of_schedule, known).model_dump(exclude_none=True)
    given = _checked(choices, of_training, known).model_dump(exclude_none=True)
    given |= {key: value for key, value in options.items() if value is not None}
    settings = _of_method(name, file, of_method, known)
    return TrainingConfig(
        _recipe(settings, spacing_mm, given),
        replace(Schedule(), **{_SCHEDULE[key]: value for key, value in schedule.items()}),
    )


def _of_method(name: str, file: Path | None, assignments: list[str], known: list[str]) -> Settings:
    """Settings of the method; what it does not know may be a misspelt one of the training."""
    try:
        return method_config(name, file, assignments).settings
    except UsageError as error:
        if error.code != "E_SETTING":
            raise
        raise UsageError(error.code, f"{error.message}. {_OF_TRAINING}{', '.join(known)}") from None


def _recipe(
    settings: Settings, spacing_mm: tuple[float, float, float], given: dict[str, Any]
) -> Recipe:
    assert isinstance(settings, PddNetSettings | DioSettings)
    on_grid = settings.model_copy(update=settings.for_spacing(spacing_mm))
    if isinstance(on_grid, PddNetSettings):
        return pdd_recipe(on_grid, given)
    return dio_recipe(on_grid, given, spacing_mm)


def _taken(assignments: list[str], choices: type[BaseModel]) -> tuple[dict[str, Any], list[str]]:
    """The assignments that a model knows, and the others."""
    taken, left = {}, []
    for text in assignments:
        key, separator, value = text.partition("=")
        if separator and key.strip() in choices.model_fields:
            value = value.strip()
            try:
                taken[key.strip()] = yaml.safe_load(f"[{value}]" if "," in value else value)
            except (yaml.YAMLError, RecursionError):
                said = f"--set {text!r}: the value cannot be read"
                raise UsageError("E_SETTING", said) from None
        else:
            left.append(text)
    return taken, left


def _checked(model: type[BaseModel], values: dict[str, Any], known: list[str]) -> BaseModel:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        wrong = "; ".join(
            f"{one['loc'][0]}: {one['msg']}, got {one['input']!r}" for one in error.errors()
        )
        message = f"{wrong}. {_OF_TRAINING}{', '.join(known)}"
        raise UsageError("E_SETTING", message) from None
