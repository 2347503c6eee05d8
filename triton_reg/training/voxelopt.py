"""A small feature network, and the loop that trains one through VoxelOpt with soft argmins."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triton_reg.features.conv_units import seeded
from triton_reg.features.intensity import Window
from triton_reg.features.network import NetworkFeatures
from triton_reg.losses import roughness, soft_dice
from triton_reg.methods.voxelopt_soft import SoftVoxelOpt
from triton_reg.ops.resize import resize_reference
from triton_reg.ops.warp import warp_reference
from triton_reg.training.gradients import shorten_gradients


class FeatureNet(nn.Module):
    """Three 3x3x3 convolutions that normalise each volume by its own statistics.

    ``[N, 1, D, H, W]`` -> ``[N, channels, D, H, W]`` in (0, 1), which is the range that VoxelOpt's
    published entropy temperature suits.

    Args:
        channels: of the features.
        width: channels in between.
        seed: of the initial weights; the global random state stays as it is.
    """

    def __init__(self, channels: int = 8, width: int = 16, seed: int = 0) -> None:
        super().__init__()
        with seeded(seed):
            self.first = nn.Conv3d(1, width, 3, padding=1)
            self.second = nn.Conv3d(width, width, 3, padding=2, dilation=2)
            self.last = nn.Conv3d(width, channels, 3, padding=4, dilation=4)

    def forward(self, volume: Tensor) -> Tensor:
        """Features of a batch of volumes."""
        features = F.leaky_relu(F.instance_norm(self.first(volume)), 0.1)
        features = F.leaky_relu(F.instance_norm(self.second(features)), 0.1)
        return torch.sigmoid(F.instance_norm(self.last(features)))


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How :func:`train_features` goes about it.

    Attributes:
        steps: pairs that are registered, one a step.
        learning_rate: of Adam; falls to zero along half a cosine.
        smoothness: weight of the mean squared forward difference of the displacement.
        gradient_norm: gradients longer than this are shortened to it.
        seed: of the choice of pairs.
        window: of the volumes, see :class:`triton_reg.features.intensity.Intensity`.
    """

    steps: int = 450
    learning_rate: float = 5e-3
    smoothness: float = 0.3
    gradient_norm: float = 1.0
    seed: int = 0
    window: Window = (1.0, 99.0)


def train_features(
    network: nn.Module,
    volumes: Tensor,
    labels: Tensor,
    method: SoftVoxelOpt,
    settings: TrainingSettings,
    progress: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Fit a network, in place, so that VoxelOpt overlaps labels with its features.

    Each step takes a random ordered pair, registers it with soft argmins, and descends on
    ``1 - soft Dice`` of the warped labels plus the roughness of the displacement. The same network,
    data, settings and number of threads give the same weights, bit for bit.

    Args:
        network: ``[1, 1, D, H, W]`` in [0, 1] -> ``[1, C, D, H, W]``.
        volumes: ``[N, 1, D, H, W]`` in source units, on one grid.
        labels: ``[N, 1, D, H, W]`` integers; 0 is background.
        method: what is trained through; its own extractor is not used.
        settings: see :class:`TrainingSettings`.
        progress: called after each step with its number, from 1, and its loss.

    Returns:
        The loss of each step.

    Raises:
        ValueError: if there are fewer than two volumes, no labels, or shapes that differ.
        DivergedError: if a gradient is not finite.
    """
    structures, volumes = _structures(volumes, labels), volumes.float()
    features = NetworkFeatures(network=network, window=settings.window, trainable=True)
    method = replace(method, voxelopt=replace(method.voxelopt, features=features))
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    generator = torch.Generator().manual_seed(settings.seed)
    network.train()
    losses = []
    for step in range(1, settings.steps + 1):
        pair = torch.randperm(len(volumes), generator=generator)[:2]
        masks = (labels[pair] == structures.view(1, -1, 1, 1, 1)).to(volumes)
        loss = registration_loss(method, volumes[pair], masks, settings.smoothness)
        optimiser.zero_grad()
        loss.backward()
        shorten_gradients(network.parameters(), settings.gradient_norm)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if progress is not None:
            progress(step, losses[-1])
    return losses


def registration_loss(
    method: SoftVoxelOpt, volumes: Tensor, masks: Tensor, smoothness: float
) -> Tensor:
    """``1 - soft Dice + smoothness * roughness`` of one pair, on the grid of its displacement.

    Args:
        method: with the extractor whose gradients are wanted.
        volumes: ``[2, 1, D, H, W]`` in source units, fixed before moving.
        masks: ``[2, M, D, H, W]``, one channel a structure, of both.
        smoothness: weight of :func:`triton_reg.losses.roughness`.
    """
    features = method.prepare(volumes, torch.ones_like(volumes))
    fixed, moving = zip(*(level.split(1) for level in features), strict=True)
    pairs = torch.zeros(1, 2, dtype=torch.int32, device=volumes.device)
    displacement = method.register(fixed, moving, pairs).displacement
    shape = displacement.fixed_shape
    target, source = resize_reference(masks, shape).split(1)
    warped = warp_reference(source, displacement.vectors, shape)
    return 1 - soft_dice(target, warped).mean() + smoothness * roughness(displacement.vectors)


def _structures(volumes: Tensor, labels: Tensor) -> Tensor:
    """The label values to overlap, from data that can be trained on."""
    if volumes.dim() != 5 or len(volumes) < 2 or labels.shape != volumes.shape:
        raise ValueError(
            "train_features: needs volumes and labels [N, 1, D, H, W] of at least two subjects, "
            f"got {list(volumes.shape)} and {list(labels.shape)}"
        )
    structures = labels[labels > 0].unique()
    if not len(structures):
        raise ValueError("train_features: needs labels other than 0, got none")
    return structures
