"""One registered pair and what several of its measures need, each made once."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cohort.data.geometry import Grid
from cohort.engine.scan import Scan
from triton_reg import Displacement
from triton_reg.metrics.overlap import label_counts, warped_label_counts
from triton_reg.ops.resize import Shape


@dataclass(frozen=True, eq=False)
class RegisteredPair:
    """Two scans on the grid of their displacement.

    Attributes:
        fixed, moving: on the fixed grid of ``displacement``.
        displacement: of this pair alone.
        grid: the working grid.
        backward: of the pair the other way round, if that was registered too.
    """

    fixed: Scan
    moving: Scan
    displacement: Displacement
    grid: Grid
    backward: Displacement | None = None

    @classmethod
    def of(
        cls,
        fixed: Scan,
        moving: Scan,
        displacement: Displacement,
        grid: Grid,
        backward: Displacement | None = None,
    ) -> "RegisteredPair":
        """From scans on the working grid."""
        shape = displacement.fixed_shape
        return cls(fixed.on_grid(shape), moving.on_grid(shape), displacement, grid, backward)

    @cached_property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Of the displacement's grid."""
        return spacing_on(self.grid, self.displacement.fixed_shape)

    @cached_property
    def vectors(self) -> Tensor:
        """The displacement at every fixed voxel, ``[1, 3, D, H, W]``."""
        return self.displacement.full()

    @cached_property
    def warped_volume(self) -> Tensor:
        """``[1, 1, D, H, W]``."""
        return self.displacement.warp(self.moving.volume)

    @cached_property
    def compared(self) -> tuple[Tensor, Tensor]:
        """Where the two are compared, before and after: inside both masks."""
        if not self.moving.is_masked:
            return self.fixed.mask, self.fixed.mask
        warped = self.displacement.warp(self.moving.mask, interpolation="nearest")
        return self.fixed.mask * self.moving.mask, self.fixed.mask * warped

    @property
    def is_masked(self) -> bool:
        """Whether some of the volume is not compared."""
        return self.fixed.is_masked or self.moving.is_masked

    @property
    def has_labels(self) -> bool:
        """Whether both scans have labels."""
        return self.fixed.labels is not None and self.moving.labels is not None

    @cached_property
    def labels_before(self) -> tuple[Tensor, Tensor]:
        """Fixed and moving labels where compared before; both scans must have some."""
        return self._inside(self.fixed.labels, 0), self._inside(self.moving.labels, 0)

    @cached_property
    def labels_after(self) -> tuple[Tensor, Tensor]:
        """Fixed and warped labels where compared after; both scans must have some."""
        assert self.moving.labels is not None
        warped = warped_labels(self.moving.labels, self.displacement)
        return self._inside(self.fixed.labels, 1), self._inside(warped, 1)

    @cached_property
    def counts_before(self) -> Tensor:
        """:func:`label_counts` of :attr:`labels_before`."""
        return label_counts(*self.labels_before)

    @cached_property
    def counts_after(self) -> Tensor:
        """:func:`label_counts` of :attr:`labels_after`."""
        fixed, moving = self.fixed.labels, self.moving.labels
        if fixed is not None and fixed.is_cuda and moving is not None and not self.is_masked:
            # one sweep; on a CPU the warped labels are made once for this and for surfaces
            bins = self.counts_before.shape[1]
            return warped_label_counts(fixed, moving, self.displacement, bins)
        return label_counts(*self.labels_after, self.counts_before.shape[1])

    @cached_property
    def structures(self) -> Tensor:
        """``[M]``: the label values above 0 that both scans have."""
        fixed_sizes, moving_sizes, _ = self.counts_before
        return (fixed_sizes[1:].bool() & moving_sizes[1:].bool()).nonzero()[:, 0] + 1

    def _inside(self, labels: Tensor | None, when: int) -> Tensor:
        assert labels is not None
        return labels * (self.compared[when] > 0) if self.is_masked else labels


def spacing_on(grid: Grid, shape: Shape) -> tuple[float, float, float]:
    """Spacing in mm of a grid of ``shape`` with the working grid's corner voxels."""
    first, second, third = (
        mm * (full - 1) / (size - 1)
        for mm, full, size in zip(grid.spacing_mm, grid.shape, shape, strict=True)
    )
    return first, second, third


def warped_labels(labels: Tensor, displacement: Displacement) -> Tensor:
    """Labels ``[1, 1, D, H, W]`` on the fixed grid, each voxel the nearest one's value."""
    # float32 holds every uint16 label exactly
    return displacement.warp(labels.float(), interpolation="nearest").to(labels.dtype)


def true_displacement(fixed: Scan, moving: Scan) -> Tensor | None:
    """The known displacement of a pair in voxels: fixed -> template -> moving; None if unknown."""
    if fixed.to_template is None or moving.from_template is None:
        return None
    shape = (fixed.volume.shape[2], fixed.volume.shape[3], fixed.volume.shape[4])
    onwards = Displacement(fixed.to_template, shape, shape)
    return fixed.to_template + onwards.warp(moving.from_template, padding="border")


def still(displacement: Displacement) -> Displacement:
    """No displacement, between the same grids."""
    shapes = displacement.fixed_shape, displacement.moving_shape
    return Displacement(torch.zeros_like(displacement.vectors), *shapes)
