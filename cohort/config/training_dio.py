"""How ``cohort train --method dio`` is told to go about it."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cohort.config.dio import DioSettings
from cohort.config.features import AtLeastOne, Positive, listed
from cohort.errors import UsageError
from triton_reg.features.architecture import Architecture
from triton_reg.training.dio_settings import TRAINED_THROUGH, DIOTrainingSettings
from triton_reg.training.recipe import DIORecipe

_NETWORK = {"network": "kind", "width": "width", "channels": "channels"}
_SUPERVISIONS = ("labels", "volumes")
_Share = Annotated[float, Field(ge=0, lt=1)]


class DioTrainingChoices(BaseModel):
    """What ``--set`` says of the training itself; what is not given is the default's."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    network: (
        Literal["unet", "unet_encoder", "lku", "lku_encoder", "lku_encoder2", "lku_mini"] | None
    ) = None
    width: AtLeastOne | None = None
    channels: AtLeastOne | None = None
    pairs: AtLeastOne | None = None
    learning_rate: Positive | None = None
    weight_decay: float | None = Field(default=None, ge=0)
    gradient_norm: Positive | None = None
    gradient: Literal["phantom", "implicit"] | None = None
    phantom_steps: AtLeastOne | None = None
    damping: float | None = Field(default=None, ge=0)
    dice: float | None = Field(default=None, ge=0)
    image: float | None = Field(default=None, ge=0)
    image_loss: Literal["mse", "lncc"] | None = None
    codes: float | None = Field(default=None, ge=0)
    warm_up: float | None = Field(default=None, ge=0, le=1)
    elastic: float | None = Field(default=None, ge=0)
    keypoints: float | None = Field(default=None, ge=0)
    structures: int | None = Field(default=None, ge=0)
    curriculum: Annotated[tuple[_Share, ...], BeforeValidator(listed)] | None = None
    augmentation: float | None = Field(default=None, ge=0)
    contrast: float | None = Field(default=None, ge=0)
    precision: Literal["float32", "bfloat16"] | None = None


def dio_recipe(
    settings: DioSettings, given: dict[str, Any], spacing_mm: tuple[float, float, float]
) -> DIORecipe:
    """The training of these settings.

    Args:
        settings: of the method, for the working grid.
        given: fields of :class:`triton_reg.training.dio_settings.DIOTrainingSettings` and of the
            network, and ``supervision``.
        spacing_mm: of the working grid.

    Raises:
        UsageError: ``E_SETTING`` for a setting that the training decides, or a supervision that
            there is not.
    """
    given = dict(given)
    supervision = given.pop("supervision", "labels")
    if supervision not in _SUPERVISIONS:
        raise UsageError("E_SETTING", f"--supervision is {supervision!r}; need labels or volumes")
    if supervision == "volumes":
        given["dice"] = 0.0
    if supervision == "volumes" and given.get("codes"):
        raise UsageError(
            "E_SETTING", "codes are of labels, which --supervision volumes leaves out; need codes=0"
        )
    if settings.features is not None or settings.weights is not None:
        raise UsageError(
            "E_SETTING", "features and weights are what training makes; leave both out"
        )
    if settings.window is not None:
        given["window"] = settings.window
    network = {own: given.pop(said) for said, own in _NETWORK.items() if said in given}
    levels = {} if settings.levels is None else {"levels": settings.levels}
    unsaid = {"iterations": TRAINED_THROUGH.iterations} if settings.iterations is None else {}
    method = settings.model_copy(update={**unsaid, "loss": settings.loss or "mse"}).build()
    try:
        architecture = Architecture(**{"kind": "unet", **network, **levels})
    except ValueError as error:
        raise UsageError("E_SETTING", str(error)) from None
    return DIORecipe(method, replace(DIOTrainingSettings(), **given), architecture, spacing_mm)
