"""Any pair once more: with the same bits, as pictures rather than a row."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from cohort.data.one_thread import one_thread
from cohort.engine.feature_maps import feature_maps
from cohort.engine.registered_pair import spacing_on, warped_labels
from cohort.engine.workbench import Workbench
from triton_reg.displacement import jacobian_determinant
from triton_reg.ops.resize import Shape, resize


@dataclass(frozen=True, eq=False)
class PairImages:
    """A pair to look at, as arrays on the grid of its measures.

    Attributes:
        fixed, moving, warped: float32 ``[D, H, W]`` in source units.
        fixed_labels, moving_labels, warped_labels: uint16, or None.
        displacement: float32 ``[3, D, H, W]`` in voxels.
        jacobian: float32 ``[D - 2, H - 2, W - 2]``, determinant at the interior voxels.
        spacing_mm: of that grid.
        spread_mm: float32 ``[D, H, W]``, standard deviation of the displacement's probabilities;
            None if the method gives none.
        features: of the fixed subject by level, as colours, uint8 ``[3, D, H, W]``; see
            :func:`cohort.engine.feature_maps.feature_maps`.
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
    spread_mm: np.ndarray | None = None
    features: Mapping[str, np.ndarray] = field(default_factory=dict)


def regenerate_pair(workbench: Workbench, fixed: str, moving: str) -> PairImages:
    """Register a pair once more and return what there is to see.

    Raises:
        SubjectError: if one of the subjects is broken or has changed since.
    """
    with one_thread(), torch.inference_mode():
        result = workbench.register(fixed, moving)
        displacement = result.displacement
        shape = displacement.fixed_shape
        target = workbench.subject(fixed).scan.on_grid(shape)
        source = workbench.subject(moving).scan.on_grid(shape)
        moved = None if source.labels is None else warped_labels(source.labels, displacement)
        vectors, spacing_mm = displacement.full(), spacing_on(workbench.store.grid, shape)
        return PairImages(
            fixed=target.volume[0, 0].numpy(force=True),
            moving=source.volume[0, 0].numpy(force=True),
            warped=displacement.warp(source.volume)[0, 0].numpy(force=True),
            fixed_labels=_labels(target.labels),
            moving_labels=_labels(source.labels),
            warped_labels=_labels(moved),
            displacement=vectors[0].numpy(force=True),
            jacobian=jacobian_determinant(vectors)[0].numpy(force=True),
            spacing_mm=spacing_mm,
            spread_mm=_spread_mm(result.extras, shape, spacing_mm),
            features=feature_maps(workbench.method, workbench.subject(fixed).features, shape),
        )


def _labels(labels: Tensor | None) -> np.ndarray | None:
    return None if labels is None else labels[0, 0].numpy(force=True).astype(np.uint16)


def _spread_mm(
    extras: Mapping[str, Tensor], shape: Shape, spacing_mm: tuple[float, float, float]
) -> np.ndarray | None:
    """Root of the variances along the three axes, at every voxel."""
    if "covariance" not in extras:
        return None
    variances = extras["covariance"][:, :3].clamp_min(0)
    squares = variances.new_tensor(spacing_mm).square().view(1, 3, 1, 1, 1)
    return resize((variances * squares).sum(1, keepdim=True).sqrt(), shape)[0, 0].numpy(force=True)
