"""What is measured of one registered pair."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cohort.data.geometry import Grid
from cohort.data.store import Subject
from triton_reg import Displacement
from triton_reg.metrics.endpoint import endpoint_error_mm, mean_length_mm
from triton_reg.metrics.jacobian import jacobian_measures
from triton_reg.metrics.overlap import dice_of_counts, label_counts
from triton_reg.metrics.similarity import ncc
from triton_reg.ops.resize import Shape, resize, resize_nearest


@dataclass(frozen=True, eq=False)
class Scan:
    """A subject as tensors with a batch of one: ``[1, 1, D, H, W]``, truth ``[1, 3, D, H, W]``.

    ``mask`` is all ones where the subject has none.
    """

    volume: Tensor
    mask: Tensor
    labels: Tensor | None = None
    to_template: Tensor | None = None
    from_template: Tensor | None = None

    @classmethod
    def of(cls, subject: Subject) -> "Scan":
        """The tensors of a stored subject; labels as int32, the mask as float32."""
        volume = _tensor(subject.volume[None])
        mask, labels = subject.mask, subject.labels
        return cls(
            volume,
            torch.ones_like(volume) if mask is None else _tensor(mask[None].astype(np.float32)),
            None if labels is None else _tensor(labels[None].astype(np.int32)),
            None if subject.to_template is None else _tensor(subject.to_template),
            None if subject.from_template is None else _tensor(subject.from_template),
        )

    def on_grid(self, shape: Shape) -> "Scan":
        """The scan on a coarser grid over the same extent: linear, labels and mask nearest."""
        if tuple(self.volume.shape[2:]) == shape:
            return self
        return Scan(
            resize(self.volume, shape),
            resize_nearest(self.mask, shape),
            None if self.labels is None else resize_nearest(self.labels, shape),
            None if self.to_template is None else _resized_vectors(self.to_template, shape),
            None if self.from_template is None else _resized_vectors(self.from_template, shape),
        )


def measure_pair(
    fixed: Scan, moving: Scan, displacement: Displacement, grid: Grid
) -> dict[str, Any]:
    """The measures of one pair, by column name; NaN never appears, what is unknown is absent.

    Args:
        fixed, moving: on the working grid.
        displacement: of this pair alone; it is judged on its own fixed grid.
        grid: the working grid.
    """
    fixed, moving = (scan.on_grid(displacement.fixed_shape) for scan in (fixed, moving))
    spacing_mm = spacing_on(grid, displacement.fixed_shape)
    vectors = displacement.full()
    jacobian = jacobian_measures(vectors)
    measures: dict[str, Any] = {
        "ncc_before": ncc(fixed.volume, moving.volume, fixed.mask).item(),
        "ncc": ncc(fixed.volume, displacement.warp(moving.volume), fixed.mask).item(),
        "folding": jacobian.folding.item(),
        "sdlogj": jacobian.sdlogj.item(),
    }
    everywhere = torch.ones_like(fixed.mask)
    measures["displacement_mean_mm"] = mean_length_mm(vectors, spacing_mm, everywhere).item()
    measures |= _overlap(fixed, moving, displacement)
    truth = true_displacement(fixed, moving)
    if truth is not None:
        inside = fixed.mask if fixed.labels is None else fixed.labels
        measures["epe_before_mm"] = mean_length_mm(truth, spacing_mm, inside).item()
        measures["epe_mm"] = endpoint_error_mm(vectors, truth, spacing_mm, inside).item()
    return {name: value for name, value in measures.items() if not _is_nan(value)}


def true_displacement(fixed: Scan, moving: Scan) -> Tensor | None:
    """The known displacement of a pair in voxels: fixed -> template -> moving; None if unknown."""
    if fixed.to_template is None or moving.from_template is None:
        return None
    shape = (fixed.volume.shape[2], fixed.volume.shape[3], fixed.volume.shape[4])
    onwards = Displacement(fixed.to_template, shape, shape)
    return fixed.to_template + onwards.warp(moving.from_template, padding="border")


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


def _overlap(fixed: Scan, moving: Scan, displacement: Displacement) -> dict[str, Any]:
    """Dice of the structures that both subjects have, before and after."""
    if fixed.labels is None or moving.labels is None:
        return {}
    before = label_counts(fixed.labels, moving.labels)
    # the label values above 0 that both have
    structures = (before[0, 1:].bool() & before[1, 1:].bool()).nonzero()[:, 0] + 1
    if not len(structures):
        return {}
    warped = warped_labels(moving.labels, displacement)
    after = label_counts(fixed.labels, warped, before.shape[1])
    # a structure that warping has moved out of the grid overlaps by nothing
    scores = dice_of_counts(after[:, structures]).nan_to_num(0.0)
    scores_before = dice_of_counts(before[:, structures])
    names = structures.tolist()
    return {
        "dice_mean": scores.mean().item(),
        "dice_before": scores_before.mean().item(),
        "dice": list(zip(names, scores.tolist(), strict=True)),
        "dice_structures_before": list(zip(names, scores_before.tolist(), strict=True)),
    }


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array)[None]


def _resized_vectors(vectors: Tensor, shape: Shape) -> Tensor:
    """Voxel vectors on another grid, in that grid's voxels."""
    factors = [(new - 1) / (old - 1) for new, old in zip(shape, vectors.shape[2:], strict=True)]
    return resize(vectors, shape) * vectors.new_tensor(factors).view(1, 3, 1, 1, 1)


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
