"""The contract that every registration method keeps, and the two-line way to use one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from triton_reg.displacement import Displacement

# opaque to everyone but the method that made it; first dimension of each tensor: subjects
Features = tuple[Tensor, ...]


class FeatureExtractor(Protocol):
    """A frozen dataclass of settings that turns volumes into features, subject by subject."""

    def __call__(self, volume: Tensor, mask: Tensor) -> Tensor:
        """``[N, 1, D, H, W]`` in source units and a mask of that shape -> ``[N, C, D, H, W]``."""
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


class Method(Protocol):
    """A registration method: features once a subject, then a displacement for each pair."""

    @property
    def fingerprint(self) -> str:
        """A digest of every setting and version that results depend on."""
        ...

    def prepare(self, volume: Tensor, mask: Tensor) -> Features:
        """Features of ``N`` subjects from volumes ``[N, 1, D, H, W]`` in source units.

        ``mask`` has the volume's shape, is all ones where there is none, and says where to look.
        """
        ...

    def register(self, fixed: Features, moving: Features, pairs: Tensor) -> Result:
        """Register ``B`` pairs; ``pairs [B, 2]`` int32 holds row numbers into fixed and moving."""
        ...


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
        fixed_volume, moving_volume: ``[D, H, W]`` in source units, floating point and finite.

    Returns:
        A result with a batch of one.

    Raises:
        ValueError: if a volume is not three-dimensional or not finite.
    """
    features = []
    for name, volume in {"fixed_volume": fixed_volume, "moving_volume": moving_volume}.items():
        if volume.dim() != 3:
            raise ValueError(f"register_pair: {name} must be [D, H, W], got {list(volume.shape)}")
        if not volume.isfinite().all():
            raise ValueError(f"register_pair: {name} must be finite, got NaN or infinite voxels")
        features.append(method.prepare(volume[None, None], torch.ones_like(volume)[None, None]))
    pairs = torch.zeros(1, 2, dtype=torch.int32, device=fixed_volume.device)
    fixed, moving = features
    return method.register(fixed, moving, pairs)
