"""The contract that every registration method keeps, and the two-line way to use one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from triton_reg.displacement import Displacement

# opaque to everyone but the method that made it; first dimension of each tensor: subjects
Features = tuple[Tensor, ...]


class FeatureExtractor(Protocol):
    """A frozen dataclass of settings that turns volumes into features, subject by subject."""

    def __call__(self, volume: Tensor, mask: Tensor) -> Tensor:
        """``[N, 1, D, H, W]`` in source units and a mask of that shape -> ``[N, C, D, H, W]``.

        The features' grid may be coarser, with the same corner voxels, for methods that say so.
        """
        ...


@dataclass(frozen=True, eq=False)
class Result:
    """What registering ``B`` pairs gives.

    Attributes:
        displacement: fixed -> moving positions of each pair.
        extras: further tensors with first dimension ``B``, by name.
    """

    displacement: Displacement
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    def of(self, row: int) -> "Result":
        """The result of one pair, with a batch of one."""
        own, part = self.displacement, slice(row, row + 1)
        return Result(
            replace(own, vectors=own.vectors[part]),
            {name: one[part] for name, one in self.extras.items()},
        )


@dataclass(frozen=True, eq=False)
class Prompts:
    """What is known of ``B`` pairs beside their volumes; a method that takes prompts heeds it.

    Attributes:
        fixed_labels, moving_labels: integers ``[B, 1, D, H, W]``; 0 is unknown. Structures that
            both have should lie on each other.
        fixed_keypoints, moving_keypoints: ``[B, K, 3]`` in voxels, axis order of the volumes. Point
            k of one should lie on point k of the other; NaN where a pair has fewer.
    """

    fixed_labels: Tensor | None = None
    moving_labels: Tensor | None = None
    fixed_keypoints: Tensor | None = None
    moving_keypoints: Tensor | None = None

    def __post_init__(self) -> None:
        both = {
            "labels": (self.fixed_labels, self.moving_labels),
            "keypoints": (self.fixed_keypoints, self.moving_keypoints),
        }
        for kind, (fixed, moving) in both.items():
            if (fixed is None) != (moving is None):
                raise ValueError(f"Prompts: needs {kind} of both, fixed and moving, or of neither")
            if fixed is not None and moving is not None and fixed.shape != moving.shape:
                raise ValueError(
                    f"Prompts: fixed and moving {kind} must share one shape, got "
                    f"{list(fixed.shape)} and {list(moving.shape)}"
                )

    def of(self, row: int) -> "Prompts":
        """The prompts of one pair, with a batch of one."""
        own = (one if one is None else one[row : row + 1] for one in vars(self).values())
        return Prompts(*own)

    @staticmethod
    def together(pairs: Sequence["Prompts"]) -> "Prompts":
        """Prompts of several pairs as one; where keypoints are fewer, NaN stands for the rest.

        Raises:
            ValueError: if some pairs have a kind that others lack.
        """
        parts = {}
        for name in vars(pairs[0]):
            own = [one for pair in pairs if (one := getattr(pair, name)) is not None]
            if own and len(own) < len(pairs):
                raise ValueError(f"Prompts: needs {name} of all {len(pairs)} pairs or of none")
            if own and name.endswith("keypoints"):
                most = max(one.shape[1] for one in own)
                own = [F.pad(one, (0, 0, 0, most - one.shape[1]), value=torch.nan) for one in own]
            parts[name] = torch.cat(own) if own else None
        return Prompts(**parts)


class Method(Protocol):
    """A registration method: features once a subject, then a displacement for each pair."""

    @property
    def fingerprint(self) -> str:
        """A digest of every setting and version that results depend on."""
        ...

    def prepare(self, volume: Tensor, mask: Tensor) -> Features:
        """Features of ``N`` subjects from volumes ``[N, 1, D, H, W]`` in source units.

        ``mask`` has the volume's shape, is all ones where there is none, and says where to look.
        Methods compute in float32, of float64 volumes in float64.

        Raises:
            ValueError: if volume or mask has another shape, or a voxel is NaN, or infinite inside
                the mask.
        """
        ...

    def register(
        self, fixed: Features, moving: Features, pairs: Tensor, prompts: Prompts | None = None
    ) -> Result:
        """Register ``B`` pairs; ``pairs [B, 2]`` holds row numbers into fixed and moving.

        Raises:
            TypeError: if pairs are neither int32 nor int64.
            ValueError: if pairs are not such rows, or there are prompts and the method takes none.
        """
        ...


@runtime_checkable
class ShowsFeatures(Protocol):
    """A method whose features people can look at."""

    def feature_levels(self, features: Features) -> list[Tensor]:
        """The features of each level, ``[N, C, d, h, w]``, coarsest first."""
        ...


def at_least_float32(features: Tensor) -> Tensor:
    """Features that were kept in half precision, as methods compute with them."""
    return features.float() if features.element_size() < 4 else features


def collate(features: list[Features]) -> Features:
    """Features of several subjects as one, in the order of the list.

    Raises:
        ValueError: if the list is empty or the subjects' features differ in shape.
    """
    if not features:
        raise ValueError("collate: needs the features of at least one subject, got none")
    shapes = [[tuple(part.shape[1:]) for part in subject] for subject in features]
    if any(subject != shapes[0] for subject in shapes):
        raise ValueError(f"collate: subjects must share their features' shapes, got {shapes}")
    return tuple(torch.cat(parts) for parts in zip(*features, strict=True))


def register_pair(method: Method, fixed_volume: Tensor, moving_volume: Tensor) -> Result:
    """Register one moving volume to one fixed volume.

    Args:
        method: any registration method.
        fixed_volume, moving_volume: ``[D, H, W]`` in source units, float32 or float64, and finite.

    Returns:
        A result with a batch of one.

    Raises:
        TypeError: if a volume is no tensor of float32 or float64.
        ValueError: if a volume is not three-dimensional or not finite.
    """
    features = []
    for name, volume in {"fixed_volume": fixed_volume, "moving_volume": moving_volume}.items():
        if not isinstance(volume, Tensor):
            kind = type(volume)
            raise TypeError(
                f"register_pair: {name} must be a torch tensor, such as torch.from_numpy makes of "
                f"an array, got {kind.__module__}.{kind.__qualname__}"
            )
        if volume.dim() != 3:
            raise ValueError(f"register_pair: {name} must be [D, H, W], got {list(volume.shape)}")
        if volume.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"register_pair: {name} must be float32 or float64, got {volume.dtype}")
        if not volume.isfinite().all():
            raise ValueError(f"register_pair: {name} must be finite, got NaN or infinite voxels")
        features.append(method.prepare(volume[None, None], torch.ones_like(volume)[None, None]))
    pairs = torch.zeros(1, 2, dtype=torch.int32, device=fixed_volume.device)
    fixed, moving = features
    return method.register(fixed, moving, pairs)
