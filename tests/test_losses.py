"""What training descends on."""

import pytest
import torch

from triton_reg.losses import class_weights, label_loss, nonlocal_labels, roughness, soft_dice
from triton_reg.ops.lattice import Lattice


def test_soft_dice_of_masks_is_their_dice() -> None:
    one = torch.zeros(1, 2, 4, 4, 4)
    other = torch.zeros(1, 2, 4, 4, 4)
    one[:, 0, :2], other[:, 0, 1:3] = 1, 1
    torch.testing.assert_close(soft_dice(one, other), torch.tensor([[0.5, 1.0]]))
    assert soft_dice(one, one).min() == 1


def test_roughness_is_the_mean_square_of_differences() -> None:
    vectors = torch.zeros(1, 3, 4, 4, 4)
    assert roughness(vectors + 5) == 0
    vectors[:, 1] = 3 * torch.arange(4.0).view(4, 1, 1)  # one component in three, one axis in three
    assert roughness(vectors).item() == pytest.approx(9 / 9)


def test_a_certain_displacement_reads_the_label_there() -> None:
    masks = torch.zeros(1, 2, 9, 9, 9)
    masks[:, 0], masks[:, 1, 6:] = 1, 1
    masks[:, 0, 6:] = 0
    lattice = Lattice.corner_aligned((9, 9, 9), (3, 3, 3), 3, (0.5, 0.5, 0.5))
    probabilities = torch.zeros(1, 27, 3, 3, 3)
    probabilities[:, 22] = 1  # label (1, 0, 0): two voxels along the first axis
    found = nonlocal_labels(probabilities, masks, lattice)
    assert torch.equal(found[0, 1, :, 0, 0], torch.tensor([0.0, 1.0, 1.0]))
    assert torch.equal(found.sum(1), torch.ones(1, 3, 3, 3))


def test_the_label_loss_counts_rare_structures_more() -> None:
    weights = class_weights(torch.tensor([1000, 100, 25]))
    assert weights[0] == pytest.approx(0.15)
    assert weights[2] / weights[1] == pytest.approx(2)
    truth = torch.zeros(1, 3, 2, 2, 2)
    wrong = truth.clone()
    wrong[:, 2] = 1
    assert label_loss(wrong, truth, weights) == pytest.approx(weights[2].item() / 3)
    assert label_loss(truth, truth, weights) == 0
