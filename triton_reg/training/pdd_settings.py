"""How PDD-Net is trained, and what it is before."""

from dataclasses import dataclass
from typing import Literal

from triton_reg.features.intensity import Window
from triton_reg.methods.pdd_net import PDDNet
from triton_reg.methods.search import EvenSearch
from triton_reg.ops.match_settings import MatchSettings

Supervision = Literal["labels", "mind"]
# one search, whose labels reach what alignment leaves; regulariser and weights as published
UNTRAINED = PDDNet(
    stages=(EvenSearch(spacing=4, width=7, extent=6),),
    weights=(1.0, 1.0, 1.0, 1.0),
    match=MatchSettings(),
    feature_step=2,
)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How :class:`triton_reg.training.pdd_net.PDDTraining` goes about it.

    Attributes:
        steps: of Adam.
        pairs: that are matched in each step, whose gradients are averaged.
        learning_rate: of Adam; falls to zero along half a cosine. The released script's is the same
            and does not fall.
        smoothness: weight of the squared differences of neighbouring displacements, in shares of
            half the volume's extent and summed over the axes; 2 is the released script's.
        augmentation: standard deviation of the fixed subject's random affine changes.
        background: weight of the background in the label loss.
        supervision: ``"labels"`` descends on the non-local label loss, ``"mind"`` on the difference
            of MIND descriptors between the fixed and the warped moving volume.
        recompute: whether the backward pass computes features again instead of keeping what is in
            between: less memory, more time.
        channels: of the features; 16 and 24 are published.
        seed: of the network, the pairs and the augmentation.
        window: of the volumes, see :class:`triton_reg.features.intensity.Intensity`.
    """

    steps: int = 400
    pairs: int = 1
    learning_rate: float = 5e-3
    smoothness: float = 0.5
    augmentation: float = 0.0375
    background: float = 0.15
    supervision: Supervision = "labels"
    recompute: bool = True
    channels: int = 8
    seed: int = 0
    window: Window = (1.0, 99.0)
