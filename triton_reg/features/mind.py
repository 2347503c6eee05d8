"""MIND-SSC features of a windowed volume."""

from dataclasses import dataclass

from torch import Tensor

from triton_reg.features.intensity import Window, windowed
from triton_reg.ops.mind_ssc import mind_ssc


@dataclass(frozen=True, kw_only=True)
class MindSSC:
    """Modality-independent neighbourhood descriptors, twelve channels in (0, 1].

    Heinrich et al., "Towards realtime multimodal fusion for image-guided interventions using
    self-similarities", MICCAI 2013.

    Attributes:
        radius: half width of the compared patches in voxels.
        dilation: distance of the compared patches in voxels.
        window: see :class:`triton_reg.features.intensity.Intensity`.
    """

    radius: int = 1
    dilation: int = 2
    window: Window = (1.0, 99.0)

    def __call__(self, volume: Tensor, mask: Tensor) -> Tensor:
        """Features ``[N, 12, D, H, W]`` of a volume in source units; zero outside the mask."""
        features = mind_ssc(windowed(volume, mask, self.window), self.radius, self.dilation)
        return features * (mask > 0)
