"""Features that a trained network gives at several resolutions, and the files that keep them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triton_reg.features.architecture import Architecture
from triton_reg.features.intensity import Window, windowed
from triton_reg.ops.mind_ssc import mind_ssc
from triton_reg.weights import Weights, read_kept, write_kept

_FORMAT = "triton-reg features 1"
_SUFFIX = ".safetensors"
_FOLDER = Path(__file__).parents[1] / "pretrained"
_MIND = {"radius": 1, "dilation": 2}  # of what LKU-mini takes


@dataclass(frozen=True, kw_only=True)
class LearnedFeatures:
    """Features of a trained network of deep implicit optimisation, at several resolutions.

    Each volume goes through the network alone, so features never depend on batch mates.

    Attributes:
        weights: the network's, by the names of its ``state_dict``.
        architecture: the network without its weights.
        window: see :class:`triton_reg.features.intensity.Intensity`.
        scale: factor of what a call gives, for methods whose settings suit another amplitude;
            :meth:`levels_of` gives the network's own.
    """

    weights: Weights
    architecture: Architecture
    window: Window = (1.0, 99.0)
    scale: float = 1.0
    _network: nn.Module = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        network = self.architecture.build().requires_grad_(False)
        self.weights.checked({
            name: tuple(tensor.shape) for name, tensor in network.state_dict().items()
        })  # fmt: skip
        network.load_state_dict(dict(self.weights.tensors))
        object.__setattr__(self, "_network", network.eval())

    @property
    def levels(self) -> tuple[int, ...]:
        """How much coarser than the volume each level is, coarsest first."""
        return self.architecture.levels

    def levels_of(self, volume: Tensor, mask: Tensor) -> list[Tensor]:
        """Features of each level, coarse to fine.

        Args:
            volume: ``[N, 1, D, H, W]`` in source units.
            mask: of the same shape.

        Returns:
            For each level ``[N, C, ceil(D / level), ceil(H / level), ceil(W / level)]``, float32,
            in channels-last memory order, and zero where no voxel is inside the mask. Voxel i
            covers the volume's voxels from ``i * level``.
        """
        network = self._network.to(volume.device)
        inputs = network_inputs(self.architecture, volume, mask, self.window)
        with torch.no_grad():
            subjects = [network(one) for one in inputs.split(1)]
        levels = [torch.cat(parts) for parts in zip(*subjects, strict=True)]
        return masked_levels(self.architecture, levels, mask)

    def __call__(self, volume: Tensor, mask: Tensor) -> Tensor:
        """Features ``[N, C, D, H, W]`` of the level of full resolution, times the scale.

        Raises:
            ValueError: if the architecture has no such level.
        """
        if self.architecture.levels[-1] != 1:
            raise ValueError(
                "LearnedFeatures: features on the volume's own grid need an architecture with "
                f"level 1, got levels {self.architecture.levels}"
            )
        return self.levels_of(volume, mask)[-1] * self.scale


def network_inputs(
    architecture: Architecture, volume: Tensor, mask: Tensor, window: Window = (1.0, 99.0)
) -> Tensor:
    """What a network gets for volumes ``[N, 1, D, H, W]`` in source units, in float32.

    That is the windowed volume, or its MIND-SSC for LKU-mini, continued beyond the far ends by its
    edge voxels until its sizes are divisible by :attr:`Architecture.unit`.
    """
    inputs = windowed(volume.float(), mask, window)
    if architecture.kind == "lku_mini":
        inputs = mind_ssc(inputs, **_MIND)
    missing = [-size % architecture.unit for size in volume.shape[2:]]
    return F.pad(inputs, [0, missing[2], 0, missing[1], 0, missing[0]], mode="replicate")


def masked_levels(
    architecture: Architecture, levels: Sequence[Tensor], mask: Tensor
) -> list[Tensor]:
    """Levels of a padded volume, cut to the mask's ``[N, 1, D, H, W]`` and set to 0 outside."""
    inside = (mask > 0).float()
    finished = []
    for factor, features in zip(architecture.levels, levels, strict=True):
        # 1 where any of the voxels below is inside
        covered = F.max_pool3d(inside, factor, ceil_mode=True)
        depth, height, width = covered.shape[2:]
        kept = features[..., :depth, :height, :width].float() * covered
        finished.append(kept.contiguous(memory_format=torch.channels_last_3d))
    return finished


def save_features(path: Path, features: LearnedFeatures, card: Mapping[str, Any]) -> None:
    """Write features as one file, and what is to be known of them.

    Args:
        path: a ``.safetensors`` file, replaced if it is there.
        features: whose settings and weights are kept.
        card: facts about the training; anything that JSON can hold.
    """
    settings = {
        "architecture": asdict(features.architecture),
        "window": features.window,
        "scale": features.scale,
    }
    write_kept(path, features.weights.tensors, _FORMAT, settings, card)


def load_features(path: Path) -> LearnedFeatures:
    """The features that :func:`save_features` wrote.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is no such file, or its weights do not fit.
    """
    tensors, settings, _ = read_kept(path, _FORMAT)
    architecture = settings["architecture"]
    architecture["levels"] = tuple(architecture["levels"])
    return LearnedFeatures(
        weights=Weights.of(tensors),
        architecture=Architecture(**architecture),
        window=tuple(settings["window"]),
        scale=settings["scale"],
    )


def card_of(path: Path) -> dict[str, Any]:
    """What :func:`save_features` was told of the training; errors as of :func:`load_features`."""
    return read_kept(path, _FORMAT).card


@dataclass(frozen=True, repr=False)
class Pretrained:
    """Learned features that come with the package, by name.

    Attributes:
        name: of a file in ``triton_reg/pretrained``, without its ending.
    """

    name: str
    _features: LearnedFeatures = field(init=False, compare=False)

    def __post_init__(self) -> None:
        known = sorted(path.stem for path in _FOLDER.glob(f"*{_SUFFIX}"))
        if self.name not in known:
            there = ", ".join(known) or "none"
            raise ValueError(f"Pretrained: no features {self.name!r}; there are: {there}")
        object.__setattr__(self, "_features", load_features(_FOLDER / f"{self.name}{_SUFFIX}"))

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
