"""Locally normalised intensities of a windowed volume."""

from dataclasses import dataclass

import torch
from torch import Tensor

from triton_reg.features.intensity import Window, windowed
from triton_reg.ops.local_contrast import local_contrast


@dataclass(frozen=True, kw_only=True)
class LocalContrast:
    """Intensity relative to the mean and standard deviation around it, and the intensity itself.

    Contrast tells where edges are, whatever the bias field; intensity tells tissues apart that have
    the same edges. Four channels instead of MIND's twelve make the cost volume three times cheaper.

    Attributes:
        widths: odd sides in voxels of the cubes that are averaged over; one channel each.
        floor: added to the standard deviation, in units of the window.
        scale: of the contrast; with the matcher's entropy temperature it sets how much two voxels
            must differ to be told apart.
        intensity: scale of the last channel, the windowed intensity; 0 leaves it out.
        window: see :class:`triton_reg.features.intensity.Intensity`.
    """

    widths: tuple[int, ...] = (5, 9, 15)
    floor: float = 0.02
    scale: float = 0.6
    intensity: float = 1.0
    window: Window = (1.0, 99.0)

    def __call__(self, volume: Tensor, mask: Tensor) -> Tensor:
        """Features ``[N, C, D, H, W]`` of a volume in source units; zero outside the mask."""
        inside = windowed(volume, mask, self.window)
        channels = [self.scale * local_contrast(inside, self.widths, self.floor)]
        if self.intensity:
            channels.append(self.intensity * inside)
        return torch.cat(channels, dim=1) * (mask > 0)
