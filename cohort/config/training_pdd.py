"""How ``cohort train --method pdd_net`` is told to go about it."""

from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from cohort.config.features import AtLeastOne, Positive
from cohort.config.pdd_net import PddNetSettings
from cohort.errors import UsageError
from triton_reg import PDDNet
from triton_reg.training.pdd_settings import UNTRAINED, TrainingSettings
from triton_reg.training.recipe import PDDRecipe

_SEARCH = ("spacing", "width", "extent")
_CUBE = ("count", "share")
_SUPERVISIONS = ("labels", "mind")


class PddTrainingChoices(BaseModel):
    """What ``--set`` says of the training itself; what is not given is the default's."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    pairs: AtLeastOne | None = None
    learning_rate: Positive | None = None
    smoothness: float | None = Field(default=None, ge=0)
    augmentation: float | None = Field(default=None, ge=0)
    background: float | None = Field(default=None, ge=0)
    channels: AtLeastOne | None = None
    recompute: bool | None = None


def pdd_recipe(settings: PddNetSettings, given: dict[str, Any]) -> PDDRecipe:
    """The training of these settings.

    Args:
        settings: of the method, with lengths for the working grid.
        given: fields of :class:`triton_reg.training.pdd_settings.TrainingSettings`.

    Raises:
        UsageError: ``E_SETTING`` for a setting that the training decides, or a supervision that
            there is not.
    """
    supervision = given.get("supervision", "labels")
    if supervision not in _SUPERVISIONS:
        raise UsageError("E_SETTING", f"--supervision is {supervision!r}; need labels or mind")
    if settings.window is not None:
        given = {**given, "window": settings.window}
    return PDDRecipe(_method(settings), replace(TrainingSettings(), **given))


def _method(settings: PddNetSettings) -> PDDNet:
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
    method = settings.build()
    lengths = [len(getattr(settings, key) or ()) for key in (*_SEARCH, *_CUBE)]
    return replace(method, stages=method.stages[: max(*lengths, 1)])
