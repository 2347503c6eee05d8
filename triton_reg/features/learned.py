"""Features that a trained network gives at several resolutions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triton_reg.features.architecture import Architecture
from triton_reg.features.intensity import Window, windowed
from triton_reg.features.local import LocalContrast
from triton_reg.ops.mind_ssc import mind_ssc
from triton_reg.weights import Weights

_MIND = {"radius": 1, "dilation": 2}  # of what LKU-mini takes


@dataclass(frozen=True, kw_only=True, repr=False)
class LearnedFeatures:
    """Features of a trained network of deep implicit optimisation, at several resolutions.

    Each volume goes through the network alone, so features never depend on batch mates.

    A network knows anatomy at the size, in voxels, at which it has learned it. Volumes of smaller
    voxels are therefore averaged before the network sees them, see :meth:`for_spacing`; levels that
    are finer than what it saw are interpolated from its finest.

    Attributes:
        weights: the network's, by the names of its ``state_dict``.
        architecture: the network without its weights.
        window: see :class:`triton_reg.features.intensity.Intensity`.
        scale: factor of what a call gives, for methods whose settings suit another amplitude;
            :meth:`levels_of` gives the network's own.
        local_contrast: weight of the channels of
            :class:`triton_reg.features.local.LocalContrast`, which follow the network's where it is
            not 0: what is learned tells structures apart, and contrast where exactly edges are. It
            is that of the level of full resolution, and falls with the root of a level's factor.
        spacing_mm: size of the voxels that the network has learned from; None where nobody knows.
        coarsening: the network sees means over so many voxels an axis, a power of 2.
    """

    weights: Weights
    architecture: Architecture
    window: Window = (1.0, 99.0)
    scale: float = 1.0
    local_contrast: float = 0.0
    spacing_mm: float | None = None
    coarsening: int = 1
    _network: nn.Module = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.coarsening < 1 or self.coarsening & (self.coarsening - 1):
            raise ValueError(
                f"LearnedFeatures: coarsening must be a power of 2, got {self.coarsening}"
            )
        network = self.architecture.build().requires_grad_(False)
        self.weights.checked({
            name: tuple(tensor.shape) for name, tensor in network.state_dict().items()
        })  # fmt: skip
        network.load_state_dict(dict(self.weights.tensors))
        object.__setattr__(self, "_network", network.eval())

    def __repr__(self) -> str:
        """All that decides features, as fingerprints take it; those of old stay what they were."""
        plain = {"local_contrast": 0.0, "coarsening": 1}
        kept = [one.name for one in fields(self) if one.repr and one.name != "spacing_mm"]
        shown = [name for name in kept if getattr(self, name) != plain.get(name)]
        said = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"LearnedFeatures({said})"

    def for_spacing(self, voxel_mm: float) -> "LearnedFeatures":
        """The same for volumes of such voxels.

        The coarsening is the power of 2 that brings them nearest to what the network has learned
        from, as a ratio; 1 where their voxels are larger, or nobody knows.

        Raises:
            ValueError: if the size is not positive.
        """
        if not voxel_mm > 0:
            raise ValueError(f"LearnedFeatures: the size of a voxel must be > 0, got {voxel_mm}")
        halvings = round(math.log2((self.spacing_mm or voxel_mm) / voxel_mm))
        return replace(self, coarsening=2 ** max(halvings, 0))

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
        seen = _block_means(volume.float(), self.coarsening)
        inside = F.max_pool3d((mask > 0).float(), self.coarsening, ceil_mode=True)
        inputs = network_inputs(self.architecture, seen, inside, self.window)
        with torch.no_grad():
            subjects = [network(one) for one in inputs.split(1)]
        levels = [torch.cat(parts) for parts in zip(*subjects, strict=True)]
        levels = masked_levels(self.levels, self._refined(levels), mask)
        return self._beside_contrast(levels, volume.float(), mask)

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

    def _refined(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Levels of the volume from those of what the network has seen."""
        seen = {
            factor * self.coarsening: one for factor, one in zip(self.levels, levels, strict=True)
        }
        finest = min(seen)
        return [
            seen[wanted] if wanted in seen else regridded(seen[finest], finest, wanted)
            for wanted in self.levels
        ]

    def _beside_contrast(self, levels: list[Tensor], volume: Tensor, mask: Tensor) -> list[Tensor]:
        """Levels with the channels of local contrast after their own, if it has a weight."""
        if not self.local_contrast:
            return levels
        contrast = LocalContrast(window=self.window)(volume, mask)
        both = []
        for factor, one in zip(self.levels, levels, strict=True):
            # means over large blocks say less of where edges are
            near = self.local_contrast / math.sqrt(factor) * _block_means(contrast, factor)
            joined = torch.cat([one, near], dim=1)
            both.append(joined.contiguous(memory_format=torch.channels_last_3d))
        return both


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


def masked_levels(factors: Sequence[int], levels: Sequence[Tensor], mask: Tensor) -> list[Tensor]:
    """Levels of a padded volume, cut to the mask's ``[N, 1, D, H, W]`` and set to 0 outside."""
    inside = (mask > 0).float()
    finished = []
    for factor, features in zip(factors, levels, strict=True):
        # 1 where any of the voxels below is inside
        covered = F.max_pool3d(inside, factor, ceil_mode=True)
        depth, height, width = covered.shape[2:]
        kept = features[..., :depth, :height, :width].float() * covered
        finished.append(kept.contiguous(memory_format=torch.channels_last_3d))
    return finished


def _block_means(volume: Tensor, factor: int) -> Tensor:
    """Means over blocks of so many voxels an axis; those that stick out over what they have."""
    if factor == 1:
        return volume
    return F.avg_pool3d(volume, factor, ceil_mode=True, count_include_pad=False)


def regridded(features: Tensor, factor: int, wanted: int) -> Tensor:
    """Features of blocks of ``factor`` voxels for blocks of another power of 2."""
    if wanted > factor:
        return _block_means(features, wanted // factor)
    # corners are not aligned: centres of blocks stay where they are
    return F.interpolate(features, scale_factor=factor / wanted, mode="trilinear")
