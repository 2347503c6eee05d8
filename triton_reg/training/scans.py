"""Subjects to train on, and how well a method overlaps their labels."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from triton_reg.displacement import Displacement
from triton_reg.method import Method
from triton_reg.metrics.jacobian import jacobian_measures
from triton_reg.metrics.overlap import dice


class Scans(NamedTuple):
    """Subjects on one grid.

    Attributes:
        volumes: ``[N, 1, D, H, W]`` in source units.
        labels: ``[N, 1, D, H, W]`` integers, 0 is background; all 0 where there are none.
        masks: ``[N, 1, D, H, W]``, above 0 where intensities count.
        keypoints: ``[N, K, 3]`` in voxels, point k of one subject corresponding to that of another;
            NaN where unknown. K may be 0.
    """

    volumes: Tensor
    labels: Tensor
    masks: Tensor
    keypoints: Tensor

    @classmethod
    def of(
        cls,
        volumes: Tensor,
        labels: Tensor | None = None,
        masks: Tensor | None = None,
        keypoints: Tensor | None = None,
    ) -> "Scans":
        """Volumes with what is known of them.

        Raises:
            ValueError: if shapes differ.
        """
        given = {"volumes": volumes, "labels": labels, "masks": masks}
        shapes = {name: list(one.shape) for name, one in given.items() if one is not None}
        if volumes.dim() != 5 or any(shape != shapes["volumes"] for shape in shapes.values()):
            raise ValueError(f"Scans: needs tensors of one shape [N, 1, D, H, W], got {shapes}")
        return cls(
            volumes,
            torch.zeros_like(volumes, dtype=torch.int32) if labels is None else labels,
            torch.ones_like(volumes) if masks is None else masks,
            volumes.new_zeros(len(volumes), 0, 3) if keypoints is None else keypoints,
        )

    def to(self, device: torch.device) -> "Scans":
        """The same on another device."""
        return Scans(*(one.to(device) for one in self))

    def only(self, rows: Sequence[int]) -> "Scans":
        """Some of the subjects, in this order."""
        chosen = torch.as_tensor(rows, dtype=torch.int64)
        return Scans(*(one[chosen] for one in self))

    @property
    def structures(self) -> Tensor:
        """The label values, without the background: ``[M]``, ascending."""
        return self.labels[self.labels > 0].unique()


class PairScore(NamedTuple):
    """Measures of one pair: mean Dice over the structures before and after registration, sd of
    ln det J, and the share of voxels that fold."""

    fixed: int
    moving: int
    dice_before: float
    dice: float
    sdlogj: float
    folding: float


def pair_scores(
    method: Method, scans: Scans, pairs: Sequence[tuple[int, int]], structures: Tensor
) -> list[PairScore]:
    """Register pairs, and measure each; labels are warped to the nearest voxel.

    Structures are compared where both have them inside the masks of both. One that is moved out of
    there overlaps by nothing.

    Args:
        method: what registers.
        scans: fixed and moving subjects.
        pairs: rows of fixed and moving subjects.
        structures: label values ``[M]`` to score.
    """
    rows = sorted({row for pair in pairs for row in pair})
    at = {row: place for place, row in enumerate(rows)}
    scores = []
    with torch.inference_mode():
        prepared = [method.prepare(scans.volumes[[row]], scans.masks[[row]]) for row in rows]
        for fixed, moving in pairs:
            pair = torch.zeros(1, 2, dtype=torch.int32, device=scans.volumes.device)
            given = prepared[at[fixed]], prepared[at[moving]]
            displacement = method.register(*given, pair).displacement
            before, after = _overlaps(scans, fixed, moving, displacement, structures)
            smooth = jacobian_measures(displacement.full())
            values = before, after, smooth.sdlogj, smooth.folding
            scores.append(PairScore(fixed, moving, *(value.item() for value in values)))
    return scores


def _overlaps(
    scans: Scans, fixed: int, moving: int, displacement: Displacement, structures: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean Dice of a pair before and after; NaN where the two share no structure."""
    labels, mask = scans.labels[[moving]], scans.masks[[moving]] > 0
    moved = displacement.warp(labels.to(scans.volumes), interpolation="nearest").to(labels.dtype)
    seen = mask
    if not mask.all():
        seen = displacement.warp(mask.to(scans.volumes), interpolation="nearest") > 0
    of_fixed = scans.masks[[fixed]] > 0
    before, after = (
        dice(scans.labels[[fixed]] * inside, one * inside, structures)
        for one, inside in ((labels, of_fixed & mask), (moved, of_fixed & seen))
    )
    return before.nanmean(), after.nan_to_num(0.0)[before.isfinite()].mean()
