"""A trained PDD-Net as one file: weights, and the settings that they were trained with."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from triton_reg.features.obelisk import Obelisk
from triton_reg.methods.pdd_net import PDDNet
from triton_reg.methods.prompt_terms import PromptWeights
from triton_reg.methods.search import CubeSearch, EvenSearch, Search
from triton_reg.ops.instance_fit import FitSettings
from triton_reg.ops.match_settings import MatchSettings
from triton_reg.weights import Weights, read_kept, whole_settings, write_kept

_FORMAT = "triton-reg pdd_net 1"
_SEARCHES: dict[str, type[CubeSearch] | type[EvenSearch]] = {
    "CubeSearch": CubeSearch,
    "EvenSearch": EvenSearch,
}


def save_model(path: Path, method: PDDNet, card: Mapping[str, Any]) -> None:
    """Write a method with OBELISK features, and what is to be known of it.

    Args:
        path: a ``.safetensors`` file, replaced if it is there.
        method: whose settings and weights are kept.
        card: facts about the training; anything that JSON can hold.

    Raises:
        TypeError: if the method's features are no OBELISK.
    """
    extractor = method.features
    if not isinstance(extractor, Obelisk):
        found = type(extractor).__name__
        raise TypeError(f"save_model: features must be Obelisk, got {found}")
    settings = {
        "features": {
            name: getattr(extractor, name) for name in ("convention", "step", "window", "clip")
        },
        "stages": [{"kind": type(stage).__name__, **vars(stage)} for stage in method.stages],
        "weights": method.weights,
        "match": asdict(method.match),
        "fit": None if method.fit is None else asdict(method.fit),
        "feature_step": method.feature_step,
        "composition": method.composition,
        "prompt_weights": asdict(method.prompt_weights),
    }
    write_kept(path, extractor.weights.tensors, _FORMAT, settings, card)


def load_model(path: Path) -> PDDNet:
    """The method that :func:`save_model` wrote.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is no such file, or its weights do not fit.
    """
    tensors, settings, _ = read_kept(path, _FORMAT)
    with whole_settings(path):
        extractor = {name: _plain(value) for name, value in settings["features"].items()}
        return PDDNet(
            features=Obelisk(weights=Weights.of(tensors), **extractor),
            stages=tuple(_search(stage) for stage in settings["stages"]),
            weights=_plain(settings["weights"]),
            match=MatchSettings(**settings["match"]),
            fit=None if settings["fit"] is None else FitSettings(**settings["fit"]),
            feature_step=settings["feature_step"],
            composition=settings["composition"],
            prompt_weights=PromptWeights(**settings["prompt_weights"]),
        )


def model_card_of(path: Path) -> dict[str, Any]:
    """What :func:`save_model` was told of the training; errors as of :func:`load_model`."""
    return read_kept(path, _FORMAT).card


def _search(stage: Mapping[str, Any]) -> Search:
    own = {name: _plain(value) for name, value in stage.items() if name != "kind"}
    return _SEARCHES[stage["kind"]](**own)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
