"""What is trained and how: one contract, so that whoever runs a training need not know which."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from triton_reg.features.architecture import Architecture
from triton_reg.features.learned import LearnedFeatures
from triton_reg.features.pretrained import save_features
from triton_reg.method import Method
from triton_reg.methods.dio import DIO
from triton_reg.methods.pdd_model import save_model
from triton_reg.methods.pdd_net import PDDNet
from triton_reg.ops.resize import Spacing
from triton_reg.training.dio import DIOTraining
from triton_reg.training.dio_settings import DIOTrainingSettings
from triton_reg.training.pdd_net import PDDTraining
from triton_reg.training.pdd_settings import TrainingSettings
from triton_reg.training.scans import Scans
from triton_reg.training.structure_loss import ARITHMETIC


class Training(Protocol):
    """A method in training, stepped from outside."""

    done: int

    @property
    def parameter_count(self) -> int:
        """Numbers that are learned."""
        ...

    def step(self) -> float:
        """One step; returns its loss."""
        ...

    def model(self) -> Mapping[str, Tensor]:
        """What has been learned so far, by name."""
        ...

    def with_model(self, model: Mapping[str, Tensor]) -> Method:
        """The method with what was learned at some time."""
        ...

    def state(self) -> dict[str, Any]:
        """All that decides the next steps, in plain values and tensors."""
        ...

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state` was taken."""
        ...


class Recipe(Protocol):
    """What to train, before there are scans."""

    @property
    def name(self) -> str:
        """Of the method."""
        ...

    @property
    def steps(self) -> int:
        """At most."""
        ...

    @property
    def seed(self) -> int:
        """Of all that is random."""
        ...

    @property
    def needs_labels(self) -> bool:
        """Whether there is nothing to learn from without labels."""
        ...

    def start(self, scans: Scans) -> Training:
        """A training that has not begun."""
        ...

    def facts(self) -> dict[str, Any]:
        """All that decides what is learned, as plain values: ``method`` and ``settings``."""
        ...

    def save(self, path: Path, method: Method, card: Mapping[str, Any]) -> None:
        """Write what was learned to a ``.safetensors`` file."""
        ...


@dataclass(frozen=True)
class PDDRecipe:
    """Training of PDD-Net; see :class:`triton_reg.training.pdd_net.PDDTraining`."""

    method: PDDNet
    settings: TrainingSettings
    name: str = "pdd_net"

    @property
    def steps(self) -> int:
        """At most."""
        return self.settings.steps

    @property
    def seed(self) -> int:
        """Of all that is random."""
        return self.settings.seed

    @property
    def needs_labels(self) -> bool:
        """Unless volumes alone are looked at."""
        return self.settings.supervision == "labels"

    def start(self, scans: Scans) -> PDDTraining:
        """A training that has not begun."""
        return PDDTraining(scans, self.settings, self.method)

    def facts(self) -> dict[str, Any]:
        """The searches, the match and the settings."""
        method = self.method
        return {
            "method": {
                "name": self.name,
                "stages": [{"kind": type(one).__name__, **asdict(one)} for one in method.stages],
                "match": asdict(method.match),
                "initial_weights": list(method.weights),
                "feature_step": method.feature_step,
            },
            "settings": asdict(self.settings),
        }

    def save(self, path: Path, method: Method, card: Mapping[str, Any]) -> None:
        """Write the trained method."""
        assert isinstance(method, PDDNet)
        save_model(path, method, card)


@dataclass(frozen=True)
class DIORecipe:
    """Training of DIO's features; see :class:`triton_reg.training.dio.DIOTraining`."""

    method: DIO
    settings: DIOTrainingSettings
    architecture: Architecture
    spacing_mm: Spacing | None = None  # of the scans, where it is known
    name: str = "dio"

    @property
    def steps(self) -> int:
        """At most."""
        return self.settings.steps

    @property
    def seed(self) -> int:
        """Of all that is random."""
        return self.settings.seed

    @property
    def needs_labels(self) -> bool:
        """Unless volumes alone are looked at."""
        return self.settings.dice > 0 or self.settings.codes > 0

    def start(self, scans: Scans) -> DIOTraining:
        """A training that has not begun."""
        return DIOTraining(scans, self.settings, self.method, self.architecture)

    def facts(self) -> dict[str, Any]:
        """The network, the optimiser that it is trained through, and the settings."""
        method, network = self.method, asdict(self.architecture)
        if self.settings.codes:
            network["structures"] = "those of the labels"
        elif not self.architecture.structures:
            del network["structures"]  # as it was before there were any
        return {
            "method": {
                "name": self.name,
                "transform": method.transform,
                "iterations": list(method.iterations),
                "descent": asdict(method.descent),
                "network": network,
            },
            "settings": asdict(self.settings),
            **({"structure_loss": ARITHMETIC} if self.settings.codes else {}),
        }

    def save(self, path: Path, method: Method, card: Mapping[str, Any]) -> None:
        """Write the trained features, which any method can use."""
        assert isinstance(method, DIO)
        assert isinstance(method.features, LearnedFeatures)
        save_features(path, replace(method.features, spacing_mm=self.spacing_mm), card)
