"""Training of PDD-Net, on a problem of three small subjects."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import ellipsoids, smooth_volume
from torch.multiprocessing.spawn import ProcessExitedException, spawn

from triton_reg import EvenSearch, Obelisk, PDDNet
from triton_reg.methods.pdd_model import load_model, save_model
from triton_reg.training.augment import random_affine, transformed
from triton_reg.training.folds import MOST_PAIRS, held_back, some_pairs
from triton_reg.training.parallel import ProcessesLostError
from triton_reg.training.pdd_net import PDDTraining
from triton_reg.training.pdd_settings import UNTRAINED, TrainingSettings
from triton_reg.training.scans import Scans, pair_scores
from triton_reg.training.validated import Schedule, ValidatedTraining

SHAPE = (16, 18, 20)
SETTINGS = TrainingSettings(steps=12, channels=4, augmentation=0.0, smoothness=0.1)
METHOD = replace(UNTRAINED, stages=(EvenSearch(spacing=4, width=5, extent=4),))
STRUCTURES = torch.tensor([1, 2])


def scans(count: int = 3) -> Scans:
    """Shifted ellipsoids of two structures, with some texture."""
    shifts = [(1.5, 0.0, -1.0), (-1.5, 1.5, 1.0), (0.0, -1.5, 1.5), (1.0, 1.0, 0.0)][:count]
    labels = [torch.from_numpy(ellipsoids(SHAPE, shift).astype("int32")) for shift in shifts]
    texture = [smooth_volume(SHAPE, seed)[0, 0] for seed in range(count)]
    volumes = [one.float() + 0.2 * other for one, other in zip(labels, texture, strict=True)]
    return Scans.of(torch.stack(volumes)[:, None], torch.stack(labels)[:, None])


def trained(settings: TrainingSettings = SETTINGS) -> tuple[PDDTraining, list[float]]:
    training = PDDTraining(scans(), settings, METHOD)
    return training, [training.step() for _ in range(settings.steps)]


def mean_dice(method: PDDNet) -> float:
    pairs = [(0, 1), (1, 2), (2, 0)]
    scores = pair_scores(method, scans(), pairs, STRUCTURES)
    return sum(score.dice for score in scores) / len(scores)


def same(one: PDDTraining, other: PDDTraining) -> bool:
    return all(map(torch.equal, one.parameters, other.parameters))


@pytest.mark.parametrize("supervision", ["labels", "mind"])
def test_what_is_learned_overlaps_better(supervision) -> None:
    settings = replace(SETTINGS, supervision=supervision, steps=25)
    before = PDDTraining(scans(), settings, METHOD).trained()
    training, losses = trained(settings)
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert mean_dice(training.trained()) > mean_dice(before) + 0.02


def test_the_same_seed_gives_the_same_weights_bit_for_bit() -> None:
    torch.manual_seed(1)
    one, losses = trained()
    torch.manual_seed(2)
    other, again = trained()
    assert losses == again
    assert same(one, other)
    assert one.weights.tolist() != [1, 1, 1, 1]  # the match's weights are learned too
    assert not same(one, trained(replace(SETTINGS, seed=1))[0])


def test_keeping_less_in_memory_changes_no_gradient() -> None:
    one, losses = trained(replace(SETTINGS, recompute=True))
    other, again = trained(replace(SETTINGS, recompute=False))
    assert losses == again
    assert same(one, other)


def test_a_training_goes_on_from_its_state_bit_for_bit(tmp_path: Path) -> None:
    whole = validated()
    while not whole.is_over:
        advance(whole)
    first, second = validated(), validated()
    while first.training.done < 6:
        advance(first)
    assert first.is_due  # and is so after it went on
    torch.save(first.state(), tmp_path / "state.pt")
    second.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    while not second.is_over:
        advance(second)
    assert second.losses == whole.losses
    assert second.dices == whole.dices
    assert same(second.training, whole.training)
    assert second.result().fingerprint == whole.result().fingerprint


def validated(patience: int = 9, steps: int = 12) -> ValidatedTraining:
    training = PDDTraining(scans(), replace(SETTINGS, steps=steps), METHOD)
    schedule = Schedule(every=3, patience=patience)
    return ValidatedTraining(training, steps, scans(4).only([3, 1]), STRUCTURES, schedule)


def advance(course: ValidatedTraining) -> None:
    if course.is_due:
        course.validate()
    else:
        course.step()


def test_a_validation_that_was_interrupted_before_it_was_noted_is_due_again() -> None:
    class Interrupted(dict[int, float]):
        def __setitem__(self, step: int, dice: float) -> None:
            raise KeyboardInterrupt

    course = validated()
    while not course.is_due:
        course.step()
    course.dices = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        course.validate()
    assert course.is_due


def test_a_training_stops_when_it_no_longer_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    course = validated(patience=2, steps=30)
    dices = iter([0.5, 0.7, 0.6, 0.65, 0.9])
    score = pair_scores(METHOD, scans(), [(0, 1)], STRUCTURES)[0]
    monkeypatch.setattr(
        "triton_reg.training.validated.pair_scores",
        lambda _, __, pairs, ___: [
            score._replace(dice=dice) for dice in [next(dices)] for _ in pairs
        ],
    )
    best = None
    while not course.is_over:
        advance(course)
        if course.training.done == 6:
            best = course.training.trained().fingerprint
    assert course.dices == {3: 0.5, 6: 0.7, 9: 0.6, 12: 0.65}
    assert course.best_step == 6
    assert course.result().fingerprint == best


@pytest.mark.slow
def test_two_processes_with_a_pair_each_are_one_with_two(tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=3, pairs=2)
    alone, losses = trained(settings)
    spawn(in_group, (tmp_path, settings), nprocs=2)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found["losses"] == losses
        assert all(map(torch.equal, found["parameters"], alone.parameters))


def in_group(rank: int, folder: Path, settings: TrainingSettings) -> None:
    """One of two processes that train together."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2
    )
    with pytest.raises(ValueError, match="pairs must be a multiple of the 2 processes, got 3"):
        trained(replace(settings, pairs=3))
    training, losses = trained(settings)
    parameters = [one.detach() for one in training.parameters]
    torch.save({"losses": losses, "parameters": parameters}, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_a_process_that_dies_is_named_by_the_others(tmp_path: Path) -> None:
    with pytest.raises(ProcessExitedException):  # of the one that killed itself
        spawn(left_alone, (tmp_path,), nprocs=2)
    assert "another process of this training is gone" in (tmp_path / "said").read_text()


def left_alone(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2
    )
    training = PDDTraining(scans(), replace(SETTINGS, pairs=2), METHOD)
    training.step()
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # spawn ends the others of itself
    try:
        training.step()
    except ProcessesLostError as error:
        (folder / "said").write_text(str(error))


@pytest.mark.slow
def test_processes_share_a_validation_and_agree_on_it(tmp_path: Path) -> None:
    alone = validated_course()
    spawn(validated_in_group, (tmp_path,), nprocs=2)
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt", weights_only=True) == alone.dices


def validated_course() -> ValidatedTraining:
    """A training to its end whose three validating subjects have six pairs."""
    training = PDDTraining(scans(), replace(SETTINGS, steps=2, pairs=2), METHOD)
    schedule = Schedule(every=1)
    course = ValidatedTraining(training, 2, scans(4).only([3, 1, 0]), STRUCTURES, schedule)
    while not course.is_over:
        advance(course)
    return course


def validated_in_group(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2
    )
    torch.save(validated_course().dices, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_a_validation_has_a_bounded_number_of_pairs_of_its_seed() -> None:
    assert some_pairs(3, 0) == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    chosen = some_pairs(100, 4)
    assert len(set(chosen)) == MOST_PAIRS == 200
    assert all(fixed != moving for fixed, moving in chosen)
    assert chosen == some_pairs(100, 4) != some_pairs(100, 5)
    many = Scans.of(torch.zeros(100, 1, 2, 2, 2))
    training = PDDTraining(scans(), SETTINGS, METHOD)
    assert ValidatedTraining(training, 1, many, STRUCTURES, Schedule(), 4).pairs == chosen


def test_without_validation_the_last_weights_count() -> None:
    course = validated()
    course.validation = None
    while not course.is_over:
        course.step()
    assert len(course.losses) == 12
    assert course.result().fingerprint == course.training.trained().fingerprint


def test_a_saved_model_gives_the_features_that_it_was_saved_with(tmp_path: Path) -> None:
    training, _ = trained()
    method, volumes = training.trained(), scans().volumes
    save_model(tmp_path / "model.safetensors", method, {"steps": 12})
    loaded = load_model(tmp_path / "model.safetensors")
    assert loaded.fingerprint == method.fingerprint
    ones = torch.ones_like(volumes)
    assert torch.equal(loaded.features(volumes, ones), method.features(volumes, ones))


def test_a_trained_network_takes_volumes_one_by_one() -> None:
    method, volumes = trained()[0].trained(), scans().volumes
    together = method.features(volumes, torch.ones_like(volumes))
    alone = method.features(volumes[1:2], torch.ones_like(volumes[1:2]))
    torch.testing.assert_close(together[1:2], alone)


def test_the_statistics_are_those_of_the_training_volumes() -> None:
    training, _ = trained()
    method = training.trained()
    assert isinstance(method.features, Obelisk)
    kept = method.features.weights.tensors["batch0.running_mean"]
    network = training.network
    inputs = [
        network.layer0(torch.nn.functional.avg_pool3d(volume, 3, stride=2, padding=1))
        for volume in training.volumes.split(1)
    ]
    means = torch.stack([one.mean((0, 2, 3, 4)) for one in inputs]).mean(0)
    torch.testing.assert_close(kept, means.detach())


def test_parameters_are_counted_with_the_weights_of_the_match() -> None:
    assert PDDTraining(scans(), TrainingSettings(channels=8), METHOD).parameter_count == (
        2 * 16 * 3 + 4 * 125 + 8 + 64 * 32 + 64 + 32 * 32 * 27 + 64 + 32 * 8 + 8 + 4
    )


def test_no_change_is_the_identity_and_labels_stay_whole_numbers() -> None:
    both = scans()
    volume, labels = both.volumes[:1], both.labels[:1]
    matrix = random_affine(torch.Generator().manual_seed(0), 0.0)
    same_volume, same_labels = transformed(volume, labels, matrix)
    torch.testing.assert_close(same_volume, volume, atol=1e-4, rtol=0)
    assert torch.equal(same_labels, labels)
    matrix[0, 2, 3] = 2 * 4 / (SHAPE[0] - 1)  # x, y, z: the first axis comes last
    _, moved = transformed(volume, labels, matrix)
    assert torch.equal(moved[:, :, :-4], labels[:, :, 4:])
    assert moved.dtype == labels.dtype
    assert not moved[:, :, -4:].any()


def test_folds_hold_back_as_many_each_and_nobody_twice() -> None:
    folds = held_back(40, 3, seed=0)
    assert [len(fold) for fold in folds] == [13, 13, 13]
    assert len({row for fold in folds for row in fold}) == 39
    assert held_back(40, 3, seed=0) == folds
    assert held_back(40, 3, seed=1) != folds
    with pytest.raises(ValueError, match="at least 2 folds of 2 subjects each, got 5 subjects"):
        held_back(5, 3, seed=0)


@pytest.mark.parametrize(
    ("of", "settings", "message"),
    [
        (lambda: scans(1), SETTINGS, "needs at least two scans, got 1"),
        (lambda: Scans.of(scans().volumes), SETTINGS, "labels other than 0, got none"),
        (lambda: Scans.of(scans().volumes, scans().labels[..., 1:]), SETTINGS,
         r"one shape .*'labels': \[3, 1, 16, 18, 19\]"),
    ],
)  # fmt: skip
def test_data_of_no_use_are_refused(of, settings: TrainingSettings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PDDTraining(of(), settings, METHOD)


def test_a_validation_without_a_shared_structure_stops_nothing_and_chooses_nothing() -> None:
    bare = Scans.of(scans(4).volumes).only([3, 1])
    schedule = Schedule(every=1, patience=1)
    training = PDDTraining(scans(), replace(SETTINGS, steps=3), METHOD)
    course = ValidatedTraining(training, 3, bare, STRUCTURES, schedule)
    while not course.is_over:
        advance(course)
    assert (training.done, course.dices, course.best_step) == (3, {}, 0)
