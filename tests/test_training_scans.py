"""What of a training's pairs is measured."""

from math import isnan

import torch
from torch import Tensor

from triton_reg import Displacement, Features, Prompts, Result
from triton_reg.training.scans import PairScore, Scans, pair_scores

SHAPE = (8, 9, 10)
STRUCTURES = torch.tensor([1, 2, 5])


class Shift:
    """Moves everything by whole voxels along the first axis."""

    fingerprint = "shift"

    def __init__(self, voxels: float) -> None:
        self.voxels = voxels

    def prepare(self, volume: Tensor, mask: Tensor) -> Features:
        return volume, mask

    def register(
        self, fixed: Features, moving: Features, pairs: Tensor, prompts: Prompts | None = None
    ) -> Result:
        del moving, pairs, prompts
        vectors = torch.zeros(1, 3, *fixed[0].shape[2:])
        vectors[:, 0] = self.voxels
        return Result(Displacement(vectors, SHAPE, SHAPE))


def labels() -> Tensor:
    """Structure 1 at the near end of the first axis and 2 at the far one, of two subjects."""
    found = torch.zeros(2, 1, *SHAPE, dtype=torch.int32)
    found[0, :, 1:3], found[1, :, 2:4] = 1, 1
    found[:, :, 6:8] = 2
    return found


def scored(voxels: float, masks: Tensor | None = None, there: Tensor | None = None) -> PairScore:
    scans = Scans.of(torch.rand(2, 1, *SHAPE), labels() if there is None else there, masks)
    return pair_scores(Shift(voxels), scans, [(0, 1)], STRUCTURES)[0]


def test_pairs_are_scored_by_the_structures_that_both_have():
    assert scored(0.0).dice_before == scored(0.0).dice == 0.75
    assert scored(1.0).dice == (1 + 0.5) / 2


def test_a_structure_that_is_moved_out_of_the_grid_overlaps_by_nothing():
    there = labels()
    there[1] *= there[1] != 2
    there[1, :, 0] = 2
    assert scored(1.0, there=there).dice == (1 + 0) / 2


def test_pairs_are_scored_inside_the_masks_of_both():
    masks = torch.ones(2, 1, *SHAPE)
    masks[1, :, 5:] = 0  # with structure 2 of the moving subject
    assert scored(0.0, masks).dice_before == scored(0.0, masks).dice == 0.5
    assert scored(1.0, masks).dice == 1.0
    masks[0, :, :2] = 0  # half of structure 1 of the fixed one
    assert scored(0.0, masks).dice == 2 / 3
    masks[0, :, :4] = 0
    assert isnan(scored(0.0, masks).dice)
