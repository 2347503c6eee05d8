"""A training that is looked at from time to time, and stops when it no longer helps."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from math import isfinite
from typing import Any

from torch import Tensor

from triton_reg.method import Method
from triton_reg.training.recipe import Training
from triton_reg.training.scans import Scans, mean_dice, pair_scores


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
        validation: subjects that are not trained on; all their ordered pairs are registered. None
            for a training that runs to its end, whose last weights count; as it does where no
            pair has a structure to compare.
        structures: label values ``[M]`` to score.
        schedule: see :class:`Schedule`.
    """

    def __init__(
        self,
        training: Training,
        steps: int,
        validation: Scans | None,
        structures: Tensor,
        schedule: Schedule,
    ) -> None:
        self.training, self.validation, self.steps = training, validation, steps
        self.structures, self.schedule = structures, schedule
        self.losses: list[float] = []
        self.dices: dict[int, float] = {}
        self.best: Mapping[str, Tensor] | None = None

    @property
    def best_step(self) -> int:
        """The step with the best Dice, 0 before the first validation."""
        return max(self.dices, key=self.dices.__getitem__, default=0)

    @property
    def is_over(self) -> bool:
        """Whether all steps are done, or the last validations were no better than the best."""
        done = self.training.done
        waited = sum(step > self.best_step for step in self.dices)
        return done >= self.steps or waited >= self.schedule.patience

    def step(self) -> None:
        """One step, and a validation where one is due."""
        self.losses.append(self.training.step())
        done = self.training.done
        is_due = done % self.schedule.every == 0 or done == self.steps
        if self.validation is not None and is_due:
            self._validate(self.validation)

    def result(self) -> Method:
        """The method of the best validation, or of the last step where there is none."""
        best = self.training.model() if self.best is None else self.best
        return self.training.with_model(best)

    def state(self) -> dict[str, Any]:
        """All that decides how it goes on, in plain values and tensors."""
        best = None if self.best is None else dict(self.best)
        told = {"losses": self.losses, "dices": self.dices, "best": best}
        return {"training": self.training.state(), **told}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state` was taken, with the same subjects and settings."""
        self.training.load_state(state["training"])
        self.losses, self.dices = list(state["losses"]), dict(state["dices"])
        self.best = state["best"]

    def _validate(self, scans: Scans) -> None:
        model = self.training.model()
        method = self.training.with_model(model)
        pairs = list(permutations(range(len(scans.volumes)), 2))
        scores = pair_scores(method, scans, pairs, self.structures)
        if not any(isfinite(score.dice) for score in scores):
            return  # nobody shares a structure: that says nothing of the weights
        self.dices[self.training.done] = mean_dice(scores)
        if self.best_step == self.training.done:
            self.best = model
