"""Training of PDD-Net: features and match weights that bring labels, or contrast, together."""

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from triton_reg.features.intensity import windowed
from triton_reg.features.obelisk import Obelisk, ObeliskNet
from triton_reg.losses import class_weights, label_loss, nonlocal_labels, roughness
from triton_reg.methods.pdd_net import PDDNet
from triton_reg.ops.dense_match import dense_match
from triton_reg.ops.lattice import Lattice
from triton_reg.ops.mind_ssc import mind_ssc
from triton_reg.ops.resize import grid_shape, resize_reference
from triton_reg.ops.warp import warp_reference
from triton_reg.training.augment import random_affine, transformed
from triton_reg.training.gradients import shorten_gradients
from triton_reg.training.parallel import add_over_processes, check_shares, own_share
from triton_reg.training.pdd_settings import UNTRAINED, TrainingSettings
from triton_reg.training.scans import Scans
from triton_reg.weights import Weights

_MIND_RADIUS, _MIND_DILATION = 1, 2


_MATCH_WEIGHTS = "match weights"  # beside the network's names, none of which has a space


class PDDTraining:
    """OBELISK and the weights of a match, in training.

    Each :meth:`step` takes a random ordered pair of subjects, or several, changes the fixed one by
    a random affine map, matches the two and descends with Adam. The same scans, settings and number
    of threads give the same weights, bit for bit, also where :meth:`state` was kept in between.

    Several processes that have joined a ``torch.distributed`` group share the pairs of each step,
    each with a training of its own, made from the same scans and settings, that stays the same as
    the others'. ``settings.pairs`` must be a multiple of their number.

    Heinrich, "Closing the gap between deep and conventional image registration using probabilistic
    dense displacement networks", MICCAI 2019. While it trains, each volume is normalised by its own
    statistics; :meth:`trained` measures those of all training volumes, which it uses from then on.

    Args:
        scans: to learn from, at least two.
        settings: see :class:`TrainingSettings`.
        method: whose first search, match, feature step and initial weights are used; its extractor
            is not. Further stages are kept in :meth:`trained`.

    Raises:
        ValueError: if there are fewer than two scans, no labels to learn from, or pairs that the
            processes cannot share evenly.
    """

    def __init__(
        self, scans: Scans, settings: TrainingSettings, method: PDDNet = UNTRAINED
    ) -> None:
        if len(scans.volumes) < 2:
            raise ValueError(f"PDDTraining: needs at least two scans, got {len(scans.volumes)}")
        structures = scans.structures
        if settings.supervision == "labels" and not len(structures):
            raise ValueError(
                "PDDTraining: supervision by labels needs labels other than 0, got none"
            )
        check_shares(settings.pairs)
        self.settings, self.method = settings, method
        self.volumes = windowed(scans.volumes, scans.masks, settings.window)
        # class numbers, so that one channel a class is one comparison
        self.classes = torch.bucketize(scans.labels, structures, right=True)
        counts = self.classes.flatten().bincount(minlength=len(structures) + 1)
        self.class_weights = class_weights(counts, settings.background)
        network = ObeliskNet(settings.channels, method.feature_step, seed=settings.seed)
        self.network = network.to(scans.volumes.device)
        self.weights = nn.Parameter(self.volumes.new_tensor(method.weights))
        self.optimiser = torch.optim.Adam(self.parameters, lr=settings.learning_rate)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.done = 0

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that is learned: the network's, and the match's weights."""
        return [*self.network.parameters(), self.weights]

    @property
    def parameter_count(self) -> int:
        """Numbers that are learned."""
        return sum(parameter.numel() for parameter in self.parameters)

    def step(self) -> float:
        """One step; returns the mean loss of its pairs.

        Raises:
            DivergedError: if a gradient is not finite.
        """
        settings, generator = self.settings, self.generator
        share = self.done / settings.steps
        for group in self.optimiser.param_groups:
            group["lr"] = settings.learning_rate * (1 + math.cos(math.pi * share)) / 2
        draws = [
            (
                torch.randperm(len(self.volumes), generator=generator)[:2].tolist(),
                random_affine(generator, settings.augmentation),
            )
            for _ in range(settings.pairs)
        ]
        self.optimiser.zero_grad()
        total = self.volumes.new_zeros(())
        for (fixed, moving), matrix in own_share(draws):
            loss = self.loss(fixed, moving, matrix) / settings.pairs
            loss.backward()
            total += loss.detach()
        add_over_processes([total, *(one.grad for one in self.parameters if one.grad is not None)])
        shorten_gradients(self.parameters, math.inf)
        self.optimiser.step()
        self.done += 1
        return total.item()

    def loss(self, fixed: int, moving: int, matrix: Tensor) -> Tensor:
        """What a step descends on.

        Args:
            fixed, moving: rows of the scans.
            matrix: of the fixed subject, see :func:`triton_reg.training.augment.random_affine`.
        """
        target, classes = transformed(self.volumes[[fixed]], self.classes[[fixed]], matrix)
        source = self.volumes[[moving]]
        search, shape = self.method.stages[0], grid_shape(source)
        points, reach = search.points(shape), search.reach(shape)
        features = [self._features(volume) for volume in (target, source)]
        size = grid_shape(features[1])
        match = dense_match(
            resize_reference(features[0], points),
            features[1],
            self.weights,
            Lattice.corner_aligned(size, points, search.width, reach),
            self.method.match,
            keep_probabilities=self.settings.supervision == "labels",
        )
        shares = match.mean * match.mean.new_tensor(reach).view(1, 3, 1, 1, 1)
        shares = shares / (search.width // 2)
        smooth = self.settings.smoothness * 3 * roughness(shares)
        if self.settings.supervision == "mind":
            return _mind_loss(target, source, shares) + smooth
        over_labels = Lattice.corner_aligned(shape, points, search.width, reach)
        masks = self._masks(self.classes[[moving]])
        estimate = nonlocal_labels(match.probabilities, masks, over_labels)
        truth = resize_reference(self._masks(classes), points)
        return label_loss(estimate, truth, self.class_weights.to(truth)) + smooth

    def trained(self) -> PDDNet:
        """The method with what has been learned so far, for volumes in source units."""
        return self.with_model(self.model())

    def model(self) -> Mapping[str, Tensor]:
        """What has been learned so far: the network's tensors by name, and the match's weights.

        The network normalises by the mean statistics of the training volumes, measured in a pass of
        its own: those that a running mean gathers lag behind the weights.
        """
        network = ObeliskNet(self.settings.channels, self.method.feature_step)
        network.load_state_dict(self.network.state_dict())
        _settle(network.to(self.volumes.device), self.volumes)
        return {**network.state_dict(), _MATCH_WEIGHTS: self.weights.detach().clone()}

    def with_model(self, model: Mapping[str, Tensor]) -> PDDNet:
        """The method with what was learned at some time."""
        extractor = Obelisk(
            weights=Weights.of(
                {name: one for name, one in model.items() if name != _MATCH_WEIGHTS}
            ),
            step=self.method.feature_step,
            window=self.settings.window,
        )
        first, second, third, fourth = model[_MATCH_WEIGHTS].tolist()
        return replace(self.method, features=extractor, weights=(first, second, third, fourth))

    def state(self) -> dict[str, Any]:
        """All that decides the next steps, in plain values and tensors."""
        # copies: the next step changes what these are in place
        return deepcopy({
            "network": self.network.state_dict(),
            "weights": self.weights.detach(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "done": self.done,
        })  # fmt: skip

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state` was taken, with the same scans and settings."""
        self.network.load_state_dict(state["network"])
        with torch.no_grad():
            self.weights.copy_(state["weights"])
        self.optimiser.load_state_dict(deepcopy(state["optimiser"]))
        self.generator.set_state(state["generator"])
        self.done = state["done"]

    def _features(self, volume: Tensor) -> Tensor:
        if not self.settings.recompute:
            return self.network(volume)
        return checkpoint(self.network, volume, use_reentrant=False)

    def _masks(self, classes: Tensor) -> Tensor:
        """Class numbers ``[1, 1, D, H, W]`` -> one channel a class."""
        numbers = torch.arange(len(self.class_weights), device=classes.device)
        return (classes == numbers.view(1, -1, 1, 1, 1)).to(self.volumes)


def _settle(network: ObeliskNet, volumes: Tensor) -> None:
    """Let a network normalise by the mean statistics of the volumes."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.reset_running_stats()
            module.momentum = None  # the mean of all calls
    network.train()
    with torch.no_grad():
        for volume in volumes.split(1):
            network(volume)
    network.eval()


def _mind_loss(target: Tensor, source: Tensor, shares: Tensor) -> Tensor:
    """Mean squared difference of MIND between a volume and another that is warped onto it.

    Args:
        target, source: ``[1, 1, D, H, W]`` in [0, 1].
        shares: displacement at the control points, in shares of half the extent.
    """
    shape = grid_shape(target)
    extent = shares.new_tensor([(size - 1) / 2 for size in shape]).view(1, 3, 1, 1, 1)
    descriptors = mind_ssc(source, _MIND_RADIUS, _MIND_DILATION)
    warped = warp_reference(descriptors, shares * extent, shape, padding="border")
    return (mind_ssc(target, _MIND_RADIUS, _MIND_DILATION) - warped).square().mean()
