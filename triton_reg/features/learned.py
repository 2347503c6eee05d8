"""Features that a trained network gives at several resolutions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triton_reg.features.architecture import Architecture
from triton_reg.features.intensity import Window, windowed
from triton_reg.features.local import LocalContrast
from triton_reg.features.repeatable import repeatable
from triton_reg.ops.blocks import block_means, continued, reblocked
from triton_reg.ops.checks import check_spacing
from triton_reg.ops.mind_ssc import mind_ssc
from triton_reg.ops.resize import Shape, Spacing
from triton_reg.weights import Weights

_MIND = {"radius": 1, "dilation": 2}  # of what LKU-mini takes


@dataclass(frozen=True, kw_only=True, repr=False)
class LearnedFeatures:
    """Features of a trained network of deep implicit optimisation, at several resolutions.

    Each volume goes through the network alone, so features never depend on batch mates.

    A network knows anatomy at the size, in voxels, at which it has learned it. Volumes of smaller
    voxels are therefore averaged before the network sees them, see :meth:`for_spacing`; levels that
    are finer than what it saw are interpolated.

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
        spacing_mm: sizes of the voxels that the network has learned from; None where nobody knows.
        coarsening: the network sees means over so many voxels along each axis, powers of 2.
    """

    weights: Weights
    architecture: Architecture
    window: Window = (1.0, 99.0)
    scale: float = 1.0
    local_contrast: float = 0.0
    spacing_mm: Spacing | None = None
    coarsening: Shape = (1, 1, 1)
    _network: nn.Module = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if any(one < 1 or one & (one - 1) for one in self.coarsening):
            raise ValueError(
                f"LearnedFeatures: coarsening must be powers of 2, got {self.coarsening}"
            )
        if not (math.isfinite(self.local_contrast) and self.local_contrast >= 0):
            raise ValueError(
                f"LearnedFeatures: local_contrast must be 0 or more, got {self.local_contrast}"
            )
        if self.spacing_mm is not None:
            check_spacing("LearnedFeatures", self.spacing_mm, "spacing_mm")
        with torch.device("cpu"):  # whatever the process's default is: weights are copied into it
            network = self.architecture.build().requires_grad_(False)
        self.weights.checked({
            name: tuple(tensor.shape) for name, tensor in network.state_dict().items()
        })  # fmt: skip
        network.load_state_dict(dict(self.weights.tensors))
        object.__setattr__(self, "_network", network.eval())

    def __repr__(self) -> str:
        """All that decides features, as fingerprints take it; those of old stay what they were."""
        names = ["weights", "architecture", "window", "scale"]
        if self.coarsening != (1, 1, 1):
            names.append("coarsening")
        said = [f"{name}={getattr(self, name)!r}" for name in names]
        if self.local_contrast:
            said.append(f"beside={self._contrast!r} * {self.local_contrast!r} / sqrt(level)")
        return f"LearnedFeatures({', '.join(said)})"

    def for_spacing(self, voxel_mm: Spacing) -> "LearnedFeatures":
        """The same for volumes of such voxels, fixed and moving alike.

        The coarsening of each axis is the power of 2 that brings them nearest to what the network
        has learned from, as a ratio; 1 where their voxels are larger, or nobody knows.

        Args:
            voxel_mm: sizes of the volumes' voxels.

        Raises:
            ValueError: if a size is not positive.
        """
        check_spacing("LearnedFeatures", voxel_mm, "voxel_mm")
        learned = self.spacing_mm or voxel_mm
        ratios = (math.log2(one / own) for one, own in zip(learned, voxel_mm, strict=True))
        depth, height, width = (2 ** max(round(ratio), 0) for ratio in ratios)
        return replace(self, coarsening=(depth, height, width))

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

        Raises:
            ValueError: if a feature is not finite, as with damaged weights.
        """
        network = self._network.to(volume.device)
        seen, inside = self._coarsened(volume.float(), (mask > 0).float())
        inputs = network_inputs(self.architecture, seen, inside, self.window)
        with torch.no_grad(), repeatable(volume.device):
            subjects = [network(one) for one in inputs.split(1)]
        levels = [torch.cat(parts) for parts in zip(*subjects, strict=True)]
        if not all(one.isfinite().all() for one in levels):
            # some methods would take them for features without contrast, and move nothing
            raise ValueError("LearnedFeatures: a feature is not finite; are the weights damaged?")
        levels = masked_levels(self.levels, self._on_volume(levels), mask)
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

    @property
    def _contrast(self) -> LocalContrast:
        return LocalContrast(window=self.window)

    def _coarsened(self, volume: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What the network sees of volumes ``[N, 1, D, H, W]``, and which of it has a voxel inside
        the mask; both go on beyond far ends that do not fill a block."""
        whole, inside = continued(volume, self.coarsening), continued(mask, self.coarsening)
        return F.avg_pool3d(whole, self.coarsening), F.max_pool3d(inside, self.coarsening)

    def _on_volume(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Levels of the volume from those of what the network has seen.

        Each comes from the coarsest of these whose blocks are nowhere larger, or else the finest.
        """
        widest = max(self.coarsening)
        found = []
        for wanted in self.levels:
            fitting = [at for at, own in enumerate(self.levels) if own * widest <= wanted]
            chosen = fitting[0] if fitting else len(levels) - 1
            depth, height, width = (self.levels[chosen] * one for one in self.coarsening)
            found.append(reblocked(levels[chosen], (depth, height, width), wanted))
        return found

    def _beside_contrast(self, levels: list[Tensor], volume: Tensor, mask: Tensor) -> list[Tensor]:
        """Levels with the channels of local contrast after their own, if it has a weight."""
        if not self.local_contrast:
            return levels
        contrast = self._contrast(volume, mask)
        both = []
        for factor, one in zip(self.levels, levels, strict=True):
            # means over large blocks say less of where edges are
            near = self.local_contrast / math.sqrt(factor) * block_means(contrast, factor)
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
    unit = architecture.unit
    return continued(inputs, (unit, unit, unit))


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
