"""How DIO's features are trained."""

from dataclasses import dataclass
from typing import Literal

from triton_reg.features.architecture import Architecture
from triton_reg.features.intensity import Window
from triton_reg.methods.dio import DIO
from triton_reg.ops.checks import check_choice
from triton_reg.ops.feature_force import Loss
from triton_reg.ops.resize import Shape

# how features are registered while they are learned: less thoroughly than later
TRAINED_THROUGH = DIO(transform="diffeomorphic", loss="mse", iterations=(40, 25, 15))


@dataclass(frozen=True, kw_only=True)
class DIOTrainingSettings:
    """How :class:`triton_reg.training.dio.DIOTraining` goes about it.

    Attributes:
        steps: of AdamW.
        pairs: that are registered in each step, whose gradients are averaged.
        learning_rate: of AdamW; falls to zero as ``(1 - t)^0.9``.
        weight_decay: of AdamW.
        gradient_norm: gradients longer than this are shortened to it.
        gradient: how gradients pass the optimum: ``"phantom"`` by a few more steps of the
            optimiser, ``"implicit"`` by the implicit function theorem, see
            :mod:`triton_reg.methods.implicit`.
        phantom_steps: how many they are.
        damping: of ``"implicit"``, as a share of the mean diagonal of its blocks.
        reach: of ``"implicit"``: sigma, in voxels of a level, of the neighbourhood whose features
            answer together.
        dice: weight of ``1 - soft Dice`` of the warped labels.
        image: weight of the difference of fixed and warped volume.
        image_loss: that difference: ``"mse"`` or ``"lncc"``.
        codes: weight of how badly features tell their structures, each of which then has a code,
            see :class:`triton_reg.features.coded.CodedFeatures`. It says at every voxel what they
            should tell apart, where the optimum has but one gradient a pair.
        warm_up: share of the steps at the start in which only that is descended on, and nothing is
            registered.
        elastic: standard deviation, in voxels, of smooth random deformations in those steps.
        keypoints: weight of the squared distance, in voxels, between keypoints.
        structures: so many of a pair's structures are compared in a step, at random; 0 for all.
        curriculum: shares of the steps after which one more level, from the coarsest, takes part.
        augmentation: standard deviation of the fixed subject's random affine changes.
        contrast: strength of random changes of both subjects' contrast: gamma, bias field, noise.
        precision: ``"bfloat16"`` runs the network's convolutions in half the time on CPUs and GPUs
            that have it; the optimiser, losses and weights stay float32.
        seed: of the network, the pairs and the augmentation.
        window: of the volumes, see :class:`triton_reg.features.intensity.Intensity`.
    """

    steps: int = 600
    pairs: int = 1
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    gradient_norm: float = 10.0
    gradient: Literal["phantom", "implicit"] = "phantom"
    phantom_steps: int = 1
    damping: float = 0.3
    reach: float = 2.0
    dice: float = 1.0
    image: float = 1.0
    image_loss: Loss = "mse"
    codes: float = 0.0
    warm_up: float = 0.0
    elastic: float = 2.5
    keypoints: float = 0.0
    structures: int = 32
    curriculum: tuple[float, ...] = (0.0, 0.05, 0.15)
    augmentation: float = 0.0375
    contrast: float = 0.2
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    window: Window = (1.0, 99.0)

    def __post_init__(self) -> None:
        for name, known in (("gradient", ("phantom", "implicit")),
                            ("precision", ("float32", "bfloat16"))):  # fmt: skip
            check_choice("DIOTrainingSettings", name, getattr(self, name), known)
        if min(self.steps, self.pairs, self.phantom_steps) < 1:
            raise ValueError(
                "DIOTrainingSettings: steps, pairs and phantom_steps must be at least 1, got "
                f"{self.steps}, {self.pairs} and {self.phantom_steps}"
            )


def check_told(settings: DIOTrainingSettings, structures: int, keypoints: int) -> None:
    """Raise ``ValueError`` if there is nothing to descend on, or what has a weight is not there."""
    if settings.codes and not structures:
        raise ValueError("DIOTraining: codes are of structures, and the scans have no labels")
    if settings.keypoints and not keypoints:
        raise ValueError(
            f"DIOTraining: keypoints={settings.keypoints:g} weighs keypoints, as many of every"
            " scan, and there are none"
        )
    labelled = (settings.dice or settings.codes) and structures
    if not (settings.image or labelled or settings.keypoints):
        raise ValueError(
            "DIOTraining: needs a weight for the image loss, labels and one for Dice or codes, or"
            " keypoints and one for them"
        )


def check_network(
    settings: DIOTrainingSettings, architecture: Architecture, shape: Shape, device: str
) -> None:
    """Raise ``ValueError`` if a level never takes part, or where torch's gradients are wrong.

    On CPUs, those of a bfloat16 convolution that is wider than its grid (torch 2.13).
    """
    if len(settings.curriculum) < len(architecture.levels):
        raise ValueError(
            f"DIOTraining: curriculum must say when each of the levels {architecture.levels} "
            f"begins to take part, got {settings.curriculum}"
        )
    kernel = 5 if architecture.kind.startswith("lku") else 3
    smallest = min(-(-size // architecture.unit) for size in shape)
    if settings.precision == "bfloat16" and device == "cpu" and smallest < kernel:
        raise ValueError(
            f"DIOTraining: precision bfloat16 needs {(kernel - 1) * architecture.unit + 1} voxels "
            f"an axis for {architecture.kind} on a CPU, where torch's gradients of convolutions "
            f"wider than their grid are wrong; got {shape}. Use float32"
        )
