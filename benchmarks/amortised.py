"""An example of amortised registration, to compare with: one network sees both volumes.

Balakrishnan et al., "VoxelMorph: a learning framework for deformable medical image registration",
IEEE TMI 2019: a U-Net takes fixed and moving volume as two channels and gives the displacement in
one pass, here as there at half the volumes' resolution. It keeps the contract of a method, but for
volumes that differ in size, which it cannot take.
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
from triton_reg.ops.feature_force import ForceSettings, feature_force
from triton_reg.ops.resize import grid_shape, resize
from triton_reg.ops.warp import warp
from triton_reg.training.augment import random_affine, random_contrast, transformed
from triton_reg.training.scans import Scans

_HALVINGS, _SLOPE = 4, 0.2
_WINDOW = (1.0, 99.0)  # percentiles
_CORRELATION = ForceSettings(loss="lncc", window=5)
_REPORT = 500  # steps


@dataclass(frozen=True, kw_only=True)
class AmortisedSettings:
    """How the network is trained.

    Attributes:
        minutes: of the processor; it stops after the step that ends beyond.
        learning_rate: of Adam.
        width: half the feature maps of a level.
        structures: so many of a pair's structures are compared in a step, at random.
        dice: weight of ``1 - soft Dice`` at half resolution; that of one minus the local
            correlation of volumes is 1.
        smoothness: weight of the displacement's roughness. With a tenth, correlation grows by
            displacements rougher than those of DIO, and structures overlap less.
        augmentation: standard deviation of the fixed subject's random affine changes. 0.03 takes a
            third of the overlap that aligned pairs begin with.
        contrast: strength of random changes of contrast, which the network sees and the loss does
            not.
        seed: of the network, the pairs and the augmentation.
    """

    minutes: float = 45.0
    learning_rate: float = 1e-3
    width: int = 16
    structures: int = 20
    dice: float = 0.5
    smoothness: float = 1.0
    augmentation: float = 0.01
    contrast: float = 0.25
    seed: int = 0


class PairUNet(nn.Module):
    """Two volumes in, a displacement out.

    Args:
        width: half the feature maps of a level.
        seed: of the initial weights; the global random state stays as it is.
    """

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        maps = 2 * width
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.down = nn.ModuleList(
                _conv(maps if level else 2, maps, stride=2) for level in range(_HALVINGS)
            )
            self.up = nn.ModuleList(_conv(2 * maps, maps) for _ in range(_HALVINGS - 1))
            self.last = _conv(maps, maps)
            # next to no displacement at first
            self.flow = nn.Conv3d(maps, 3, 3, padding=1)
            nn.init.normal_(self.flow.weight, std=1e-3)
            nn.init.zeros_(self.flow.get_parameter("bias"))

    def forward(self, fixed: Tensor, moving: Tensor) -> Tensor:
        """``[B, 1, D, H, W]`` twice -> ``[B, 3, D/2, H/2, W/2]`` in voxels of the volumes."""
        with torch.autocast("cpu", torch.bfloat16):
            found = torch.cat([fixed, moving], dim=1).to(memory_format=torch.channels_last_3d)
            skipped = []
            for block in self.down:
                found = block(found)
                skipped.append(found)
            skipped.pop()
            for block in self.up:
                beside = skipped.pop()
                found = F.interpolate(found, beside.shape[2:])
                found = block(torch.cat([found, beside], dim=1))
            found = self.last(found)
        return self.flow(found.float()).contiguous()


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
        return (windowed(volume, mask, _WINDOW) * (mask > 0),)

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
        with torch.no_grad():
            return Result(Displacement(self.network(target, source), shape, shape))


def train_amortised(scans: Scans, settings: AmortisedSettings) -> tuple[Amortised, int]:
    """A network that has learned from random ordered pairs, and the number of its steps.

    Args:
        scans: on one grid of even sizes.
    """
    network = PairUNet(settings.width, settings.seed)
    method = Amortised(network)
    (images,) = method.prepare(scans.volumes, scans.masks)
    scans = scans._replace(volumes=images)
    structures = scans.structures
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    generator = torch.Generator().manual_seed(settings.seed)
    losses, start = [], time.process_time()
    while (elapsed := time.process_time() - start) < 60 * settings.minutes:
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * (1 - elapsed / (60 * settings.minutes)) ** 0.9
        optimiser.zero_grad()
        losses.append(_descend(network, scans, structures, settings, generator))
        optimiser.step()
        if len(losses) % _REPORT == 0:
            unlike, apart, rough = map(statistics.mean, zip(*losses[-_REPORT:], strict=True))
            print(
                f"amortised: step {len(losses)}, {elapsed:.0f} s, correlation {1 - unlike:.4f}, "
                f"Dice {1 - apart:.4f}, roughness {rough:.4f}",
                flush=True,
            )
    return method, len(losses)


def _descend(
    network: PairUNet,
    scans: Scans,
    structures: Tensor,
    settings: AmortisedSettings,
    generator: torch.Generator,
) -> tuple[float, float, float]:
    """Leave the network the gradient of a random pair; the unweighted terms of its loss."""
    fixed, moving = torch.randperm(len(scans.volumes), generator=generator)[:2].tolist()
    matrix = random_affine(generator, settings.augmentation)
    target, labels = transformed(scans.volumes[[fixed]], scans.labels[[fixed]], matrix)
    source = scans.volumes[[moving]]
    coarse = network(*(_recoloured(one, settings, generator) for one in (target, source)))
    vectors = resize(coarse, grid_shape(target))
    # about what descent through a warp and the correlation would find, in a tenth of its time
    placement = torch.cat([torch.eye(3), torch.zeros(3, 1), torch.eye(3)], dim=1)[None]
    force = feature_force(target, source, vectors.detach(), placement, _CORRELATION)
    order = torch.randperm(len(structures), generator=generator)[: settings.structures]
    numbers = structures[order].view(1, -1, 1, 1, 1)
    masks = [F.avg_pool3d((one == numbers).float(), 2) for one in (labels, scans.labels[[moving]])]
    # a structure that neither shows would count as alike
    shown = masks[0].amax((2, 3, 4)) > 0
    unlike = 1 - soft_dice(masks[0], warp(masks[1], coarse / 2))[shown].mean()
    rough = roughness(vectors)
    loss = (vectors * force.gradient).sum() + settings.dice * unlike + settings.smoothness * rough
    loss.backward()
    return force.loss.item(), unlike.item(), rough.item()


def _recoloured(volume: Tensor, settings: AmortisedSettings, generator: torch.Generator) -> Tensor:
    """A prepared volume in another contrast, prepared again."""
    changed = random_contrast(volume, generator, settings.contrast)
    return windowed(changed, torch.ones_like(volume), _WINDOW)
