"""A training that is looked at from time to time, and stops when it no longer helps."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from triton_reg.method import Method
from triton_reg.training.folds import some_pairs
from triton_reg.training.parallel import add_over_processes, own_share
from triton_reg.training.recipe import Training
from triton_reg.training.scans import Scans, pair_scores


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When a training is looked at.

    Attributes:
        every: steps between two validations.
        patience: validations without a better Dice after which it stops.
        share: of the subjects to learn from that are kept for it; the others are trained on.
    """

    every: int = 50
    patience: int = 4
    share: float = 0.1


class ValidatedTraining:
    """Steps of a training, the Dice of other subjects in between, and the best weights so far.

    Args:
        training: what is stepped.
        steps: at most.
        validation: subjects that are not trained on; their ordered pairs, at most
            :data:`triton_reg.training.folds.MOST_PAIRS`, are registered, by the processes of one
            ``torch.distributed`` group together. None for a training that runs to its end, whose
            last weights count; as it does where no pair has a structure to compare.
        structures: label values ``[M]`` to score.
        schedule: see :class:`Schedule`.
        seed: of the choice of pairs.
    """

    def __init__(
        self,
        training: Training,
        steps: int,
        validation: Scans | None,
        structures: Tensor,
        schedule: Schedule,
        seed: int = 0,
    ) -> None:
        self.training, self.validation, self.steps = training, validation, steps
        self.structures, self.schedule = structures, schedule
        self.losses: list[float] = []
        self.dices: dict[int, float] = {}
        self.best: Mapping[str, Tensor] | None = None
        self.pairs = [] if validation is None else some_pairs(len(validation.volumes), seed)
        self._looked_at = 0  # the step of the last validation

    @property
    def best_step(self) -> int:
        """The step with the best Dice, 0 before the first validation."""
        return max(self.dices, key=self.dices.__getitem__, default=0)

    @property
    def is_due(self) -> bool:
        """Whether a validation comes before the next step."""
        done = self.training.done
        is_time = done % self.schedule.every == 0 or done == self.steps
        return self.validation is not None and done != self._looked_at and is_time

    @property
    def is_over(self) -> bool:
        """Whether all steps are done, or the last validations were no better than the best."""
        if self.is_due:
            return False
        done = self.training.done
        waited = sum(step > self.best_step for step in self.dices)
        return done >= self.steps or waited >= self.schedule.patience

    def step(self) -> None:
        """One step; :meth:`validate` first where that is due."""
        self.losses.append(self.training.step())

    def validate(self) -> None:
        """Mean Dice of the validating pairs with what is learned so far.

        Interrupted, it has not happened.
        """
        model = self.training.model()
        dices = [one for one in self._dices_with(model) if isfinite(one)]
        done = self.training.done
        if dices:  # else nobody shares a structure: that says nothing of the weights
            self.dices[done] = fmean(dices)
            if self.best_step == done:
                self.best = model
        self._looked_at = done  # last: what is interrupted before is done again

    def result(self) -> Method:
        """The method of the best validation, or of the last step where there is none."""
        best = self.training.model() if self.best is None else self.best
        return self.training.with_model(best)

    def state(self) -> dict[str, Any]:
        """All that decides how it goes on, in plain values and tensors."""
        best = None if self.best is None else dict(self.best)
        told = {"losses": self.losses, "dices": self.dices, "best": best}
        told["looked_at"] = self._looked_at
        return {"training": self.training.state(), **told}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state` was taken, with the same subjects and settings."""
        self.training.load_state(state["training"])
        self.losses, self.dices = list(state["losses"]), dict(state["dices"])
        self.best = state["best"]
        self._looked_at = state.get("looked_at", self.training.done)  # old ones kept no step before

    def _dices_with(self, model: Mapping[str, Tensor]) -> list[float]:
        """Of every validating pair; each process of a group registers its share of them."""
        assert self.validation is not None
        found = self.validation.volumes.new_zeros(len(self.pairs), dtype=torch.float64)
        own = own_share(range(len(self.pairs)))
        pairs = [self.pairs[at] for at in own]
        method = self.training.with_model(model)
        scores = pair_scores(method, self.validation, pairs, self.structures)
        for at, score in zip(own, scores, strict=True):
            found[at] = score.dice
        add_over_processes([found])  # the others have zeros there, so that no bit changes
        return found.tolist()
