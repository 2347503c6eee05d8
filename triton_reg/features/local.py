"""Locally normalised intensities of a windowed volume."""

from dataclasses import dataclass

from torch import Tensor

from triton_reg.features.intensity import Window, windowed
from triton_reg.ops.local_contrast import local_contrast


@dataclass(frozen=True, kw_only=True)
class LocalContrast:
    """Intensity relative to the mean and standard deviation around it; one channel a width.

    Two channels instead of MIND's twelve make the cost volume six times cheaper.

    Attributes:
        widths: odd sides in voxels of the cubes that are averaged over.
        floor: added to the standard deviation, in units of the window.
        scale: of the features; together with the matcher's entropy temperature it sets how much
            two voxels must differ to be told apart.
        window: see :class:`triton_reg.features.intensity.Intensity`.
    """

    widths: tuple[int, ...] = (5, 9)
    floor: float = 0.02
    scale: float = 0.25
    window: Window = (1.0, 99.0)

    def __call__(self, volume: Tensor, mask: Tensor) -> Tensor:
        """Features ``[N, len(widths), D, H, W]`` of a volume; zero outside the mask."""
        contrast = local_contrast(windowed(volume, mask, self.window), self.widths, self.floor)
        return self.scale * contrast * (mask > 0)
