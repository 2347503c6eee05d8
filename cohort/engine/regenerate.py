"""Any pair once more: with the same bits, as pictures rather than a row."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cohort.data.one_thread import one_thread
from cohort.engine.registered_pair import spacing_on, warped_labels
from cohort.engine.workbench import Workbench
from triton_reg.displacement import jacobian_determinant


@dataclass(frozen=True, eq=False)
class PairImages:
    """A pair to look at, as arrays on the grid of its measures.

    Attributes:
        fixed, moving, warped: float32 ``[D, H, W]`` in source units.
        fixed_labels, moving_labels, warped_labels: uint16, or None.
        displacement: float32 ``[3, D, H, W]`` in voxels.
        jacobian: float32 ``[D - 2, H - 2, W - 2]``, determinant at the interior voxels.
        spacing_mm: of that grid.
    """

    fixed: np.ndarray
    moving: np.ndarray
    warped: np.ndarray
    fixed_labels: np.ndarray | None
    moving_labels: np.ndarray | None
    warped_labels: np.ndarray | None
    displacement: np.ndarray
    jacobian: np.ndarray
    spacing_mm: tuple[float, float, float]


def regenerate_pair(workbench: Workbench, fixed: str, moving: str) -> PairImages:
    """Register a pair once more and return what there is to see.

    Raises:
        SubjectError: if one of the subjects is broken or has changed since.
    """
    with one_thread(), torch.inference_mode():
        displacement = workbench.register(fixed, moving)
        shape = displacement.fixed_shape
        target = workbench.subject(fixed).scan.on_grid(shape)
        source = workbench.subject(moving).scan.on_grid(shape)
        moved = None if source.labels is None else warped_labels(source.labels, displacement)
        vectors = displacement.full()
        return PairImages(
            fixed=target.volume[0, 0].numpy(),
            moving=source.volume[0, 0].numpy(),
            warped=displacement.warp(source.volume)[0, 0].numpy(),
            fixed_labels=_labels(target.labels),
            moving_labels=_labels(source.labels),
            warped_labels=_labels(moved),
            displacement=vectors[0].numpy(),
            jacobian=jacobian_determinant(vectors)[0].numpy(),
            spacing_mm=spacing_on(workbench.store.grid, shape),
        )


def _labels(labels: Tensor | None) -> np.ndarray | None:
    return None if labels is None else labels[0, 0].numpy().astype(np.uint16)
