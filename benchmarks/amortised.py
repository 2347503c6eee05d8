"""An example of amortised registration, to compare with: one network sees both volumes.

Balakrishnan et al., "VoxelMorph: a learning framework for deformable medical image registration",
IEEE TMI 2019: a U-Net takes fixed and moving volume as two channels and gives the displacement in
one pass. It keeps the contract of a method, but for volumes that differ in size, which it cannot
take.
"""

# ruff: noqa: T201

import statistics
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triton_reg import Displacement, Features, Prompts, Result
from triton_reg.features.intensity import windowed
from triton_reg.features.network import network_digest
from triton_reg.losses import roughness, soft_dice
from triton_reg.methods.checks import refuse_prompts
from triton_reg.ops.resize import grid_shape
from triton_reg.ops.warp import warp
from triton_reg.training.augment import random_affine, transformed
from triton_reg.training.scans import Scans

_HALVINGS, _SLOPE = 4, 0.2


@dataclass(frozen=True, kw_only=True)
class AmortisedSettings:
    """How the network is trained.

    Attributes:
        minutes: of the processor; it stops after the step that ends beyond.
        learning_rate: of Adam.
        width: feature maps at full resolution; twice as many below.
        structures: so many of a pair's structures are compared in a step, at random.
        image, dice, smoothness: weights of the squared difference of windowed volumes, of
            ``1 - soft Dice``, and of the displacement's roughness.
        augmentation: standard deviation of the fixed subject's random affine changes.
        seed: of the network, the pairs and the augmentation.
    """

    minutes: float = 8.0
    learning_rate: float = 1e-3
    width: int = 16
    structures: int = 40
    image: float = 1.0
    dice: float = 1.0
    smoothness: float = 0.1
    augmentation: float = 0.0375
    seed: int = 0


class PairUNet(nn.Module):
    """Two volumes in, a displacement out.

    Args:
        width: feature maps at full resolution.
        seed: of the initial weights; the global random state stays as it is.
    """

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = _conv(2, width)
            wide = [width] + [2 * width] * _HALVINGS
            self.down = nn.ModuleList(
                _conv(wide[level], wide[level + 1], stride=2) for level in range(_HALVINGS)
            )
            self.up = nn.ModuleList(
                _conv(2 * width + wide[level], 2 * width) for level in reversed(range(_HALVINGS))
            )
            # next to no displacement at first
            self.flow = nn.Conv3d(2 * width, 3, 3, padding=1)
            nn.init.normal_(self.flow.weight, std=1e-3)

    def forward(self, fixed: Tensor, moving: Tensor) -> Tensor:
        """``[B, 1, D, H, W]`` twice, sizes divisible by 16 -> ``[B, 3, D, H, W]`` in voxels."""
        skipped = [self.first(torch.cat([fixed, moving], dim=1))]
        for block in self.down:
            skipped.append(block(skipped[-1]))
        found = skipped.pop()
        for block in self.up:
            beside = skipped.pop()
            found = F.interpolate(found, beside.shape[2:])
            found = block(torch.cat([found, beside], dim=1))
        return self.flow(found)


def _conv(before: int, after: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv3d(before, after, 3, stride, 1), nn.LeakyReLU(_SLOPE))


@dataclass(frozen=True, eq=False)
class Amortised:
    """A trained network as a method.

    Attributes:
        network: of volumes in [0, 1].
    """

    network: PairUNet

    @property
    def fingerprint(self) -> str:
        """A digest of the network."""
        return network_digest(self.network)

    def prepare(self, volume: Tensor, mask: Tensor) -> Features:
        """The windowed volume, zero outside the mask."""
        return (windowed(volume, mask, (1.0, 99.0)) * (mask > 0),)

    def register(
        self, fixed: Features, moving: Features, pairs: Tensor, prompts: Prompts | None = None
    ) -> Result:
        """One pass of the network.

        Raises:
            ValueError: if the volumes differ in size, or there are prompts.
        """
        refuse_prompts("Amortised.register", prompts)
        target, source = (one[0][rows] for one, rows in zip((fixed, moving), pairs.T, strict=True))
        if target.shape != source.shape:
            raise ValueError(
                "Amortised.register: needs volumes of one size, got "
                f"{list(target.shape)} and {list(source.shape)}"
            )
        shape = grid_shape(target)
        missing = [-size % 2**_HALVINGS for size in shape]
        after = [0, missing[2], 0, missing[1], 0, missing[0]]
        with torch.no_grad():
            vectors = self.network(*(F.pad(one, after, "replicate") for one in (target, source)))
        depth, height, width = shape
        cut = vectors[..., :depth, :height, :width].contiguous()
        return Result(Displacement(cut, shape, shape))


def train_amortised(scans: Scans, settings: AmortisedSettings) -> tuple[Amortised, int]:
    """A network that has learned from random ordered pairs, and the number of its steps.

    Args:
        scans: on one grid, sizes divisible by 16.
    """
    network = PairUNet(settings.width, settings.seed)
    method = Amortised(network)
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    generator = torch.Generator().manual_seed(settings.seed)
    losses, start = [], time.process_time()
    while (elapsed := time.process_time() - start) < 60 * settings.minutes:
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * (1 - elapsed / (60 * settings.minutes)) ** 0.9
        optimiser.zero_grad()
        loss = _loss(method, scans, settings, generator)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        if len(losses) % 50 == 0:
            mean = statistics.mean(losses[-50:])
            print(f"amortised: step {len(losses)}, {elapsed:.0f} s, loss {mean:.4f}", flush=True)
    return method, len(losses)


def _loss(
    method: Amortised, scans: Scans, settings: AmortisedSettings, generator: torch.Generator
) -> Tensor:
    """Of one random pair."""
    fixed, moving = torch.randperm(len(scans.volumes), generator=generator)[:2].tolist()
    matrix = random_affine(generator, settings.augmentation)
    volume, labels = transformed(scans.volumes[[fixed]], scans.labels[[fixed]], matrix)
    _, mask = transformed(scans.volumes[[fixed]], scans.masks[[fixed]], matrix)
    (target,) = method.prepare(volume, mask)
    (source,) = method.prepare(scans.volumes[[moving]], scans.masks[[moving]])
    with torch.autocast("cpu", torch.bfloat16):
        vectors = method.network(target, source)
    vectors = vectors.float()
    order = torch.randperm(len(scans.structures), generator=generator)[: settings.structures]
    numbers = scans.structures[order].view(1, -1, 1, 1, 1)
    masks = [(one == numbers).float() for one in (labels, scans.labels[[moving]])]
    warped = warp(torch.cat([source, masks[1]], dim=1), vectors)
    # a structure that neither shows would count as alike
    shown = masks[0].amax((2, 3, 4)) > 0
    unlike = 1 - soft_dice(masks[0], warped[:, 1:])[shown].mean()
    image = (target - warped[:, :1]).square().mean()
    return (
        settings.image * image + settings.dice * unlike + settings.smoothness * roughness(vectors)
    )
