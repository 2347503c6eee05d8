"""Training of DIO's features: gradients reach the network through the optimum."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from triton_reg.features.architecture import Architecture
from triton_reg.features.coded import CodedFeatures
from triton_reg.features.intensity import windowed
from triton_reg.features.learned import LearnedFeatures, masked_levels, network_inputs
from triton_reg.methods.dio import DIO
from triton_reg.methods.dio_solver import Sides, Solver
from triton_reg.ops.resize import grid_shape
from triton_reg.training.augment import random_affine, random_contrast, transformed_points
from triton_reg.training.dio_examples import Example, changed, structure_masks
from triton_reg.training.dio_levels import check_trainable, solved_level
from triton_reg.training.dio_settings import DIOTrainingSettings, check_network, check_told
from triton_reg.training.dio_terms import Evidence, unlike
from triton_reg.training.gradients import shorten_gradients
from triton_reg.training.parallel import add_over_processes, check_shares, own_share
from triton_reg.training.scans import Scans
from triton_reg.training.structure_loss import StructureLoss
from triton_reg.weights import Weights


class DIOTraining:
    """A feature network in training.

    Each :meth:`step` takes a random ordered pair of subjects, or several, changes them at random,
    registers their features without gradients, and descends on what the displacement of each level
    leaves unlike; the gradient passes the optimum by one of the ways of
    :mod:`triton_reg.methods.implicit`. A level's loss reaches that level's features alone. The same
    scans, settings and number of threads give the same weights, bit for bit, on a CPU, also where
    :meth:`state` was kept in between; on a GPU sums are taken in any order.

    Processes of one ``torch.distributed`` group share the pairs of each step, as those of
    :class:`triton_reg.training.pdd_net.PDDTraining` do.

    Jena et al., "Deep implicit optimization enables robust learnable features for deformable image
    registration", Medical Image Analysis 2025.

    Args:
        scans: to learn from, at least two, on one grid.
        settings: see :class:`DIOTrainingSettings`.
        method: how features are registered while they are learned; its extractor is not used.
        architecture: the network.

    Raises:
        ValueError: for fewer than two scans, nothing to descend on, or pairs that the processes
            cannot share evenly.
    """

    def __init__(
        self,
        scans: Scans,
        settings: DIOTrainingSettings,
        method: DIO,
        architecture: Architecture,
    ) -> None:
        if len(scans.volumes) < 2:
            raise ValueError(f"DIOTraining: needs at least two scans, got {len(scans.volumes)}")
        structures = scans.structures
        check_told(settings, len(structures), scans.keypoints.shape[1])
        check_trainable(method, settings)
        device = scans.volumes.device.type
        check_network(settings, architecture, grid_shape(scans.volumes), device)
        check_shares(settings.pairs)
        self.settings, self.scans = settings, scans
        self.method = replace(method, levels=architecture.levels, loss=method.loss or "mse")
        # class numbers, so that one channel a class is one comparison
        self.classes = torch.bucketize(scans.labels, structures, right=True)
        self.telling = None
        if settings.codes:
            self.telling = StructureLoss(architecture.levels, self.classes)
            architecture = replace(architecture, structures=len(structures))
        self.architecture = architecture
        self.network = architecture.build(settings.seed).to(scans.volumes.device)
        self.coded = self.network if isinstance(self.network, CodedFeatures) else None
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.done = 0

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that is learned."""
        return list(self.network.parameters())

    @property
    def parameter_count(self) -> int:
        """Numbers that are learned and kept."""
        return sum(parameter.numel() for parameter in self.parameters)

    def step(self) -> float:
        """One step; returns the mean loss of its pairs.

        Raises:
            RuntimeError: if all steps are done; DivergedError if a gradient is not finite.
        """
        if self.done >= self.settings.steps:
            raise RuntimeError(f"DIOTraining: all {self.settings.steps} steps are done")
        settings, generator = self.settings, self.generator
        for group in self.optimiser.param_groups:
            group["lr"] = settings.learning_rate * (1 - self.done / settings.steps) ** 0.9
        draws = []
        for _ in range(settings.pairs):
            rows = torch.randperm(len(self.scans.volumes), generator=generator)[:2].tolist()
            matrix = random_affine(generator, settings.augmentation)
            draws.append((rows, matrix, int(torch.randint(2**31, (1,), generator=generator))))
        self.optimiser.zero_grad()
        total = self.scans.volumes.new_zeros(())
        for (fixed, moving), matrix, seed in own_share(draws):
            loss = self.loss(fixed, moving, matrix, seed) / settings.pairs
            loss.backward()
            total += loss.detach()
        learned = [one.grad for one in self.parameters if one.grad is not None]
        add_over_processes([total, *learned])
        shorten_gradients(self.parameters, settings.gradient_norm)
        self.optimiser.step()
        self.done += 1
        return total.item()

    def loss(self, fixed: int, moving: int, matrix: Tensor, seed: int) -> Tensor:
        """What a step descends on.

        Args:
            fixed, moving: rows of the scans.
            matrix: of the fixed subject, see :func:`triton_reg.training.augment.random_affine`.
            seed: of the changes of contrast and the choice of structures.
        """
        generator = torch.Generator().manual_seed(seed)
        target, source = self._example(fixed), self._example(moving)
        if self.is_warming_up:
            matrices = matrix, random_affine(generator, self.settings.augmentation)
            target, source = (
                changed(one, given, generator, self.settings.elastic)
                for one, given in zip((target, source), matrices, strict=True)
            )
            raw = [self._raw(one, generator) for one in (target, source)]
            return self._telling_loss((target, source), raw, generator)
        target = changed(target, matrix, generator)
        raw = [self._raw(one, generator) for one in (target, source)]
        said = self._telling_loss((target, source), raw, generator)
        pair = [
            self._features(levels, one) for levels, one in zip(raw, (target, source), strict=True)
        ]
        shape = grid_shape(target.volume)
        fixed_side, moving_side = (Sides(one, [], shape) for one in pair)
        solver = Solver(self.method, fixed_side, moving_side, None)
        images = [windowed(one.volume, one.mask, self.settings.window) for one in (target, source)]
        points = self.scans.keypoints[[fixed, moving]]
        evidence = Evidence(
            (images[0], images[1]),
            self._masks(target, source, generator),
            (transformed_points(points[0], matrix, shape), points[1]),
        )
        return self._over_levels(solver, evidence) + said

    @property
    def is_warming_up(self) -> bool:
        """Whether nothing is registered yet."""
        return self.telling is not None and self.done < self.settings.warm_up * self.settings.steps

    def _telling_loss(
        self,
        examples: Sequence[Example],
        raw: Sequence[list[Tensor]],
        generator: torch.Generator,
    ) -> Tensor:
        """How badly features tell their structures, weighted; 0 where nobody asks."""
        if self.telling is None or self.coded is None:
            return raw[0][0].new_zeros(())
        losses = [
            self.telling(self.coded, levels, one.classes, generator)
            for levels, one in zip(raw, examples, strict=True)
        ]
        return self.settings.codes * torch.stack(losses).mean()

    def _over_levels(self, solver: Solver, evidence: Evidence) -> Tensor:
        """Mean over the levels that take part of what each leaves unlike at its own resolution."""
        share = self.done / self.settings.steps
        active = max(sum(begin <= share for begin in self.settings.curriculum), 1)
        solved, losses = None, []
        for level, grid in enumerate(solver.grids[:active]):
            solved = solved_level(solver, level, solved, self.settings)
            losses.append(unlike(solved.vectors, grid, evidence, self.settings))
        return torch.stack(losses).mean()

    def trained(self) -> DIO:
        """The method with what has been learned so far, for volumes in source units."""
        return self.with_model(self.model())

    def model(self) -> Mapping[str, Tensor]:
        """What has been learned so far: the network's tensors by name."""
        return {name: one.detach().clone() for name, one in self.network.state_dict().items()}

    def with_model(self, model: Mapping[str, Tensor]) -> DIO:
        """The method with what was learned at some time."""
        extractor = LearnedFeatures(
            weights=Weights.of(model),
            architecture=self.architecture,
            window=self.settings.window,
        )
        return replace(self.method, features=extractor)

    def state(self) -> dict[str, Any]:
        """All that decides the next steps, in plain values and tensors."""
        # copies: the next step changes these in place
        return deepcopy({
            "network": self.network.state_dict(), "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(), "done": self.done,
        })  # fmt: skip

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state` was taken, with the same scans and settings."""
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(deepcopy(state["optimiser"]))
        self.generator.set_state(state["generator"])
        self.done = state["done"]

    def _example(self, row: int) -> Example:
        return Example(self.scans.volumes[[row]], self.classes[[row]], self.scans.masks[[row]])

    def _raw(self, example: Example, generator: torch.Generator) -> list[Tensor]:
        """What the network makes of a volume, before codes, with gradients."""
        volume = example.volume
        if self.settings.contrast:
            volume = random_contrast(volume, generator, self.settings.contrast)
        inputs = network_inputs(self.architecture, volume, example.mask, self.settings.window)
        network = self.network if self.coded is None else self.coded.network
        is_half = self.settings.precision == "bfloat16"
        with torch.autocast(volume.device.type, torch.bfloat16, enabled=is_half):
            return network(inputs)

    def _features(self, raw: list[Tensor], example: Example) -> list[Tensor]:
        """Features of every level, with gradients."""
        levels = raw if self.coded is None else self.coded.coded(raw)
        return masked_levels(self.architecture.levels, levels, example.mask)

    def _masks(
        self, target: Example, source: Example, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        if not self.settings.dice:
            return target.volume[:, :0], source.volume[:, :0]
        return structure_masks(target, source, self.settings.structures, generator)
