"""Training of DIO's features: what it descends on, what it repeats, and what it refuses."""

from dataclasses import replace

import pytest
import torch
from helpers import smooth_volume

from triton_reg import DIO, Architecture
from triton_reg.features.coded import CodedFeatures
from triton_reg.features.pretrained import load_features
from triton_reg.methods.level_grids import LevelGrid
from triton_reg.ops.blocks import block_means
from triton_reg.training import structure_loss
from triton_reg.training.augment import (
    random_affine,
    random_contrast,
    random_elastic,
    transformed,
    transformed_points,
)
from triton_reg.training.dio import DIOTraining
from triton_reg.training.dio_settings import DIOTrainingSettings
from triton_reg.training.dio_terms import Evidence, unlike
from triton_reg.training.gradients import DivergedError
from triton_reg.training.recipe import DIORecipe
from triton_reg.training.scans import Scans
from triton_reg.training.structure_loss import StructureLoss, block_members, drawn

SHAPE = (16, 18, 20)
SMALL = Architecture(kind="unet_encoder", width=4, channels=4)
METHOD = DIO(iterations=(8, 6, 4), loss="mse")
SETTINGS = DIOTrainingSettings(steps=20, structures=0, learning_rate=3e-3)


def scans(count: int = 4) -> Scans:
    """Balls with a shell, each somewhere else, in noise."""
    axes = [torch.arange(size).float() for size in SHAPE]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    volumes, labels, points = [], [], []
    for index in range(count):
        generator = torch.Generator().manual_seed(index)
        center = torch.tensor(SHAPE) / 2 + 3 * (torch.rand(3, generator=generator) - 0.5)
        distance = (grid - center.view(3, 1, 1, 1)).norm(dim=0)
        one = (distance < 6).int() + (distance < 3).int()
        volumes.append(100.0 * one + 10 * smooth_volume(SHAPE, index)[0, 0])
        labels.append(one)
        points.append(center[None])
    stacked = torch.stack(volumes)[:, None], torch.stack(labels)[:, None]
    return Scans.of(*stacked, keypoints=torch.stack(points))


def training(**changes) -> DIOTraining:
    return DIOTraining(scans(), replace(SETTINGS, **changes), METHOD, SMALL)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gradient": "implicit"},
        {"image": 0.0, "dice": 0.0, "keypoints": 0.1},
        {"image_loss": "lncc", "dice": 0.0},
        {"codes": 0.5, "warm_up": 0.1},
        {"phantom_steps": 3, "precision": "bfloat16"},
    ],
    ids=["phantom", "implicit", "keypoints", "image", "codes", "bfloat16"],
)
def test_every_kind_of_training_changes_what_the_network_says(changes: dict) -> None:
    made = training(**changes)
    before = made.model()
    losses = [made.step() for _ in range(4)]
    assert all(torch.isfinite(torch.tensor(losses)))
    after = made.model()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert all(one.isfinite().all() for one in after.values())


@pytest.mark.slow
def test_the_loss_falls() -> None:
    made = training(steps=40, contrast=0.0, augmentation=0.0, learning_rate=1e-2, image=0.0)
    losses = [made.step() for _ in range(40)]
    assert sum(losses[-10:]) < 0.85 * sum(losses[:10])


def test_the_same_seed_gives_the_same_bits_also_after_a_stop() -> None:
    whole, first, second = (training(codes=0.5, warm_up=0.2) for _ in range(3))
    for _ in range(6):
        whole.step()
    for _ in range(3):
        first.step()
    second.load_state(first.state())
    for _ in range(3):
        second.step()
    ours, theirs = whole.model(), second.model()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    other = training(codes=0.5, warm_up=0.2, seed=1)
    assert any(not torch.equal(ours[name], one) for name, one in other.model().items())


def test_what_was_learned_registers_as_the_recipe_says(tmp_path) -> None:
    recipe = DIORecipe(METHOD, SETTINGS, SMALL, spacing_mm=(2.0, 2.0, 2.5))
    made = recipe.start(scans())
    made.step()
    method = made.trained()
    assert method.transform == METHOD.transform
    assert recipe.facts()["method"]["network"]["kind"] == "unet_encoder"
    recipe.save(tmp_path / "features.safetensors", method, {"of": "a test"})
    assert load_features(tmp_path / "features.safetensors").spacing_mm == (2.0, 2.0, 2.5)


def test_levels_join_one_after_the_other() -> None:
    made = training(curriculum=(0.0, 0.5, 0.9))
    made.step()
    untouched = [
        parameter.grad is None or not parameter.grad.any()
        for name, parameter in made.network.named_parameters()
        if name.startswith("encoder_0")  # of the finest level
    ]
    assert all(untouched)


def test_points_move_with_their_volume() -> None:
    volume = torch.zeros(1, 1, 30, 30, 30)
    volume[..., 12, 17, 9] = 1
    smooth = torch.nn.functional.avg_pool3d(volume, 5, 1, 2)
    matrix = random_affine(torch.Generator().manual_seed(3), 0.1)
    moved, _ = transformed(smooth, torch.zeros_like(volume).int(), matrix)
    weights = moved[0, 0] / moved.sum()
    axes = torch.stack(torch.meshgrid(*[torch.arange(30.0)] * 3, indexing="ij"))
    found = (axes * weights).flatten(1).sum(1)
    expected = transformed_points(torch.tensor([[12.0, 17.0, 9.0]]), matrix, (30, 30, 30))[0]
    assert torch.allclose(found, expected, atol=0.1)


def test_keypoints_cost_their_distance_in_voxels_of_the_volume() -> None:
    nothing = torch.zeros(1, 0, *SHAPE), torch.zeros(1, 0, *SHAPE)
    points = torch.tensor([[8.0, 9.0, 10.0], [torch.nan] * 3])
    evidence = Evidence(nothing, nothing, (points, points + torch.tensor([2.0, 0.0, 1.0])))
    settings = DIOTrainingSettings(image=0.0, dice=0.0, keypoints=1.0)
    for factor in (1, 2):
        grid = LevelGrid.over(SHAPE, factor)
        still = torch.zeros(1, 3, *grid.shape)
        there = torch.tensor([2.0, 0.0, 1.0]).view(1, 3, 1, 1, 1).expand_as(still) / factor
        assert unlike(still, grid, evidence, settings).item() == pytest.approx(5.0)
        assert unlike(there, grid, evidence, settings).item() == pytest.approx(0.0, abs=1e-8)


def test_contrast_changes_but_not_the_range() -> None:
    volume = 50 + 100 * smooth_volume(SHAPE, 1)
    changed = random_contrast(volume, torch.Generator().manual_seed(0), 0.2)
    assert not torch.equal(changed, volume)
    assert volume.min() - 20 < changed.min()
    assert changed.max() < 2.2 * volume.max()
    assert torch.corrcoef(torch.stack([changed.flatten(), volume.flatten()]))[0, 1] > 0.8


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_telling_structures_costs_entropy_and_overlap() -> None:
    classes = scans(1).labels
    network = replace(SMALL, levels=(1,), structures=int(classes.max())).build()
    assert isinstance(network, CodedFeatures)
    raw = torch.randn(1, SMALL.channels, *SHAPE, generator=generator())
    loss = StructureLoss((1,), classes)
    assert loss.weights[0] == 1
    assert (loss.weights[1:-1] > 1).all()  # they are smaller than the background
    assert loss.weights[-1] == 0  # of what lies outside of a volume
    own, codes = classes.flatten().long(), torch.cat([torch.zeros(1, 4), network.codes.detach()])
    apart = raw[0].flatten(1).T[:, None] - codes
    told = torch.softmax(-apart.square().sum(2), dim=1)
    here = torch.nn.functional.one_hot(own, len(codes)).float()
    weight = loss.weights[own]
    entropy = -(weight * (told * here).sum(1).log()).sum() / weight.sum()
    dice = (2 * (told * here).sum(0) + 1) / (told + here).sum(0).add(1)
    found = loss(network, [raw], classes, generator())
    assert found.item() == pytest.approx((entropy + 1 - dice[1:].mean()).item(), rel=1e-5)


def test_what_tells_the_structures_costs_less_at_every_level() -> None:
    classes = scans(1).labels
    network = replace(SMALL, structures=int(classes.max())).build()
    assert isinstance(network, CodedFeatures)
    codes = torch.cat([torch.zeros(1, SMALL.channels), network.codes.detach()])
    whole = codes[classes[0, 0].long()].permute(3, 0, 1, 2)[None]
    told = [block_means(whole, factor) for factor in SMALL.levels]
    loss = StructureLoss(SMALL.levels, classes)
    costs = [loss(network, levels, classes, generator()).item() for levels in (
        told, [0 * one for one in told], [one.flip(2) for one in told]
    )]  # fmt: skip
    assert costs[0] < 0.8 * min(costs[1:])


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_members_of_blocks_are_their_voxels_also_at_the_far_ends(factor: int) -> None:
    classes = torch.randint(4, (5, 6, 7), generator=generator())
    whole = torch.nn.functional.one_hot(classes, 4).permute(3, 0, 1, 2)[None].float()
    expected = block_means(whole, factor)[0].flatten(1).T
    members = block_members(classes, factor, 4)
    counts = torch.nn.functional.one_hot(members, 5).sum(1)[:, :4].float()
    assert torch.allclose(counts / counts.sum(1, keepdim=True), expected)


def test_some_voxels_speak_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    classes = scans(1).labels.clone()
    rare = int(classes.max()) + 1
    classes[0, 0, 4, 4, 3:6] = rare  # most draws miss it
    network = replace(SMALL, levels=(1,), structures=rare).build()
    assert isinstance(network, CodedFeatures)
    raw = torch.randn(1, SMALL.channels, *SHAPE, generator=generator())
    loss = StructureLoss((1,), classes)
    whole = loss(network, [raw], classes, generator())
    monkeypatch.setattr(structure_loss, "_MOST_VOXELS", 200)
    members = block_members(classes[0, 0].long(), 1, loss.count)
    some = drawn(members, loss.count, generator())
    assert len(some.rows) == 400
    assert some.stands_for.sum() == pytest.approx(len(members))
    assert torch.equal(some.there, torch.bincount(classes.flatten().long()).float())
    structured = (members[some.rows] > 0).any(1)
    assert some.stands_for[structured].sum() == pytest.approx((members > 0).sum().item())
    draws = generator()
    found = torch.stack([loss(network, [raw], classes, draws) for _ in range(40)])
    assert found.mean().item() == pytest.approx(whole.item(), rel=0.02)


def test_nothing_is_registered_while_codes_are_learned(monkeypatch) -> None:
    made = training(codes=1.0, warm_up=0.1, steps=20)
    monkeypatch.setattr(made, "_over_levels", lambda *_: pytest.fail("it was"))
    made.step()
    made.step()
    assert not made.is_warming_up
    with pytest.raises(pytest.fail.Exception, match="it was"):
        made.step()


def test_an_elastic_change_is_smooth_and_as_large_as_asked() -> None:
    volume = torch.arange(24.0).view(1, 1, 24, 1, 1).expand(1, 1, 24, 24, 24).contiguous()
    offsets = random_elastic(torch.Generator().manual_seed(1), volume, 1.5)
    moved, same = transformed(volume, volume.int(), torch.eye(3, 4)[None], offsets)
    apart = (moved - volume)[0, 0, 4:-4]  # positions along the first axis, in voxels
    assert 0.3 < apart.std() < 1.5
    assert apart.diff(dim=2).abs().max() < 1
    inner = (slice(None), slice(None), *3 * [slice(5, -5)])
    assert (same - moved.round())[inner].abs().max() <= 1
    still, _ = transformed(volume, volume.int(), torch.eye(3, 4)[None], 0 * offsets)
    assert torch.allclose(still, volume, atol=1e-4)


def test_nothing_to_learn_from_is_refused() -> None:
    bare = Scans.of(scans().volumes)
    with pytest.raises(ValueError, match="at least two scans, got 1"):
        DIOTraining(scans(1), SETTINGS, METHOD, SMALL)
    with pytest.raises(ValueError, match="needs a weight for the image loss, labels"):
        DIOTraining(bare, replace(SETTINGS, image=0.0), METHOD, SMALL)


def test_bfloat16_is_refused_where_its_gradients_are_wrong() -> None:
    wide = Architecture(kind="lku", width=4, channels=4)
    half = replace(SETTINGS, precision="bfloat16")
    with pytest.raises(ValueError, match="bfloat16 needs 65 voxels an axis for lku on a CPU"):
        DIOTraining(scans(), half, METHOD, wide)
    assert DIOTraining(scans(), half, METHOD, SMALL).done == 0


def test_levels_that_never_take_part_are_refused() -> None:
    deep = replace(SMALL, levels=(8, 4, 2, 1))
    method = replace(METHOD, levels=deep.levels, iterations=(8, 8, 6, 4))
    with pytest.raises(ValueError, match=r"curriculum must say when each of the levels \(8, 4, 2"):
        DIOTraining(scans(), SETTINGS, method, deep)


def test_a_kept_state_does_not_change_with_further_steps() -> None:
    made, other, third = training(), training(), training()
    made.step()
    kept = made.state()
    made.step()
    for one in (other, third):
        one.load_state(kept)
        one.step()
        assert all(torch.equal(part, one.model()[name]) for name, part in made.model().items())


def test_no_step_follows_the_last() -> None:
    made = training(steps=1)
    made.step()
    with pytest.raises(RuntimeError, match="all 1 steps are done"):
        made.step()


def test_weights_of_what_is_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="keypoints=2 weighs keypoints, as many of every scan"):
        DIOTraining(Scans.of(scans().volumes), replace(SETTINGS, keypoints=2.0), METHOD, SMALL)


def test_a_training_that_diverges_says_so() -> None:
    made = training(learning_rate=1e30)
    with pytest.raises(DivergedError, match="not finite: the training has diverged; a lower"):
        [made.step() for _ in range(SETTINGS.steps)]
