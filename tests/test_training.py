"""Training of a feature network through VoxelOpt, on a problem of two subjects."""

import copy

import pytest
import torch
from helpers import ellipsoids, smooth_volume
from torch import Tensor

from triton_reg import LevelSettings, SoftVoxelOpt, VoxelOpt
from triton_reg.training.voxelopt import (
    FeatureNet,
    TrainingSettings,
    train_features,
)

SHAPE = (16, 16, 16)
METHOD = SoftVoxelOpt(
    voxelopt=VoxelOpt(
        level=LevelSettings(passes=1, couplings=(0.1, 1.0)), levels=2, solves=(1,), squarings=3
    ),
    temperature=0.05,
)


def problem() -> tuple[Tensor, Tensor]:
    """Two subjects whose structures differ in place; intensities tell them, among much noise."""
    shifts = ((1.5, 0.0, -1.0), (-1.0, 1.0, 0.5))
    labels = [torch.from_numpy(ellipsoids(SHAPE, shift).astype("int32")) for shift in shifts]
    noise = [smooth_volume(SHAPE, seed)[0, 0] for seed in range(2)]
    volumes = [one.float() + 2 * other for one, other in zip(labels, noise, strict=True)]
    return torch.stack(volumes)[:, None], torch.stack(labels)[:, None]


def trained(seed: int = 0, steps: int = 4) -> tuple[FeatureNet, list[float]]:
    network = FeatureNet(channels=4, width=4, seed=3)
    settings = TrainingSettings(steps=steps, learning_rate=0.03, seed=seed)
    return network, train_features(network, *problem(), METHOD, settings)


def test_the_loss_falls() -> None:
    _, losses = trained(steps=6)
    assert len(losses) == 6
    assert losses[-1] < 0.5 * losses[0]


def test_the_same_seed_gives_the_same_weights_bit_for_bit() -> None:
    torch.manual_seed(1)
    first, losses = trained()
    torch.manual_seed(2)
    again, same = trained()
    assert losses == same
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    untrained = FeatureNet(channels=4, width=4, seed=3)
    assert not torch.equal(first.first.weight, untrained.first.weight)
    assert trained(seed=4)[1] != losses


def test_the_networks_own_seed_leaves_the_global_one_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    one, other = FeatureNet(seed=1), FeatureNet(seed=2)
    assert torch.equal(torch.rand(3), expected)
    assert not torch.equal(one.last.weight, other.last.weight)


def test_features_lie_in_the_unit_interval_and_ignore_batch_mates() -> None:
    volumes, _ = problem()
    network = FeatureNet().eval()
    features = network(volumes)
    assert features.shape == (2, 8, *SHAPE)
    assert 0 < features.min() < 0.3
    assert 0.7 < features.max() < 1
    torch.testing.assert_close(features[:1], network(volumes[:1]))


def test_progress_is_told_and_the_data_are_left_alone() -> None:
    volumes, labels = problem()
    copies = copy.deepcopy((volumes, labels))
    seen: list[tuple[int, float]] = []
    settings = TrainingSettings(steps=2)
    losses = train_features(
        FeatureNet(2, 2), volumes, labels, METHOD, settings, lambda *one: seen.append(one)
    )
    assert seen == list(enumerate(losses, start=1))
    assert torch.equal(volumes, copies[0])
    assert torch.equal(labels, copies[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v, y: (v[:1], y[:1]), r"at least two subjects, got \[1, 1, 16, 16, 16\]"),
        (lambda v, y: (v, y[..., 1:]), r"got \[2, 1, 16, 16, 16\] and \[2, 1, 16, 16, 15\]"),
        (lambda v, y: (v, torch.zeros_like(y)), "needs labels other than 0, got none"),
    ],
)
def test_data_of_no_use_are_refused(change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train_features(FeatureNet(), *change(*problem()), METHOD, TrainingSettings(steps=1))
