"""Files that keep learned features, and those that come with the package."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from triton_reg.features.architecture import Architecture
from triton_reg.features.learned import LearnedFeatures
from triton_reg.ops.resize import Spacing
from triton_reg.weights import Weights, read_kept, whole_settings, write_kept

_FORMAT = "triton-reg features 1"
_SUFFIX = ".safetensors"
_FOLDER = Path(__file__).parents[1] / "pretrained"


def save_features(path: Path, features: LearnedFeatures, card: Mapping[str, Any]) -> None:
    """Write features as one file, and what is to be known of them.

    Args:
        path: a ``.safetensors`` file, replaced if it is there.
        features: whose settings and weights are kept, but for the coarsening, which is the
            volumes' affair.
        card: facts about the training; anything that JSON can hold.
    """
    settings = {
        "architecture": asdict(features.architecture),
        "window": features.window,
        "scale": features.scale,
        "local_contrast": features.local_contrast,
        "spacing_mm": features.spacing_mm,
    }
    write_kept(path, features.weights.tensors, _FORMAT, settings, card)


def load_features(path: Path) -> LearnedFeatures:
    """The features that :func:`save_features` wrote.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is no such file, or its weights do not fit.
    """
    tensors, settings, _ = read_kept(path, _FORMAT)
    with whole_settings(path):
        # files from before they were known lack spacing and contrast
        architecture, spacing = settings["architecture"], settings.get("spacing_mm")
        architecture["levels"] = tuple(architecture["levels"])
        return LearnedFeatures(
            weights=Weights.of(tensors),
            architecture=Architecture(**architecture),
            window=tuple(settings["window"]),
            scale=settings["scale"],
            local_contrast=settings.get("local_contrast", 0.0),
            spacing_mm=None if spacing is None else tuple(spacing),
        )


def card_of(path: Path) -> dict[str, Any]:
    """What :func:`save_features` was told of the training; errors as of :func:`load_features`."""
    return read_kept(path, _FORMAT).card


@dataclass(frozen=True, repr=False)
class Pretrained:
    """Learned features that come with the package, by name.

    Attributes:
        name: of a file in ``triton_reg/pretrained``, without its ending.
        voxel_mm: size of the volumes' voxels, or sizes along each axis, see
            :meth:`LearnedFeatures.for_spacing`; None for those that the network has learned from.
    """

    name: str
    voxel_mm: float | Spacing | None = None
    _features: LearnedFeatures = field(init=False, compare=False)

    def __post_init__(self) -> None:
        known = sorted(path.stem for path in _FOLDER.glob(f"*{_SUFFIX}"))
        if self.name not in known:
            there = ", ".join(known) or "none"
            raise ValueError(f"Pretrained: no features {self.name!r}; there are: {there}")
        features = load_features(_FOLDER / f"{self.name}{_SUFFIX}")
        if self.voxel_mm is not None:
            one = self.voxel_mm
            features = features.for_spacing(one if isinstance(one, tuple) else (one, one, one))
        object.__setattr__(self, "_features", features)

    def __repr__(self) -> str:
        return f"Pretrained({self.name!r}, {self._features!r})"

    @property
    def features(self) -> LearnedFeatures:
        """What the name stands for, to change its window or scale."""
        return self._features

    @property
    def architecture(self) -> Architecture:
        """Of the network."""
        return self._features.architecture

    @property
    def levels(self) -> tuple[int, ...]:
        """See :attr:`LearnedFeatures.levels`."""
        return self._features.levels

    def levels_of(self, volume: Tensor, mask: Tensor) -> list[Tensor]:
        """See :meth:`LearnedFeatures.levels_of`."""
        return self._features.levels_of(volume, mask)

    def __call__(self, volume: Tensor, mask: Tensor) -> Tensor:
        """See :class:`LearnedFeatures`."""
        return self._features(volume, mask)
