"""``cohort train``: folds, going on after a stop, models, scores and the page."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
from command_line import Cohort
from helpers import shared_data, tiny_cohort

from cohort.config.training import training_config
from cohort.data.geometry import Grid
from cohort.data.ingest import IngestSettings, ingest
from cohort.data.store import CohortStore, Subject
from cohort.errors import UsageError
from cohort.studies.train import train
from cohort.studies.training_course import News
from cohort.studies.training_files import gather_scores
from cohort.studies.training_plan import TrainingTask, plan_folds
from triton_reg import CubeSearch, EvenSearch
from triton_reg.methods.pdd_model import load_model
from triton_reg.training.parallel import ProcessesLostError
from triton_reg.training.pdd_net import PDDTraining
from triton_reg.training.pdd_settings import UNTRAINED, TrainingSettings
from triton_reg.training.scans import Scans, pair_scores
from triton_reg.training.validated import Schedule

QUICK = ("--set", "channels=4", "--set", "width=5", "--set", "recompute=false")
SPACING = (1.0, 1.0, 1.0)


def task(steps: int = 30, **settings) -> TrainingTask:
    config = training_config(
        "pdd_net", None, ["channels=4", "width=5", "recompute=false"], SPACING, steps=steps
    )
    return TrainingTask(*config, **{"folds": 2, **settings})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> CohortStore:
    return tiny_cohort(tmp_path_factory.mktemp("stores") / "cohort.zarr", subjects=5)


@pytest.fixture(scope="module")
def whole(store: CohortStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of two folds that nothing stopped."""
    out = tmp_path_factory.mktemp("whole")
    train(store, out, task())
    return out


class Killed(Exception):
    """What ends a training with no time to keep anything."""


def stopping(at: int, how: type[BaseException] = KeyboardInterrupt):
    def told(news: News) -> None:
        if news.step == at:
            raise how

    return told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "next_step"), [(KeyboardInterrupt, 29), (SystemExit, 29), (Killed, 26)]
)
def test_the_same_command_goes_on_after_a_stop_with_the_same_bits(
    store: CohortStore, whole: Path, tmp_path: Path, how: type[BaseException], next_step: int
) -> None:
    with pytest.raises(how):
        train(store, tmp_path, task(), told=stopping(28, how))
    assert not (tmp_path / "fold-1" / "model.safetensors").exists()
    steps: list[News] = []
    train(store, tmp_path, task(), told=steps.append)
    assert [one.step for one in steps if one.fold == "fold-1"] == [*range(next_step, 31)]
    for name in ("fold-1", "fold-2"):
        one, other = (load_model(out / name / "model.safetensors") for out in (tmp_path, whole))
        assert one.fingerprint == other.fingerprint
    assert (tmp_path / "scores.csv").read_bytes() == (whole / "scores.csv").read_bytes()
    assert not list(tmp_path.rglob("checkpoint.pt"))
    steps.clear()
    train(store, tmp_path, task(), told=steps.append)
    assert not steps


def test_scores_of_folds_stand_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        (tmp_path / f"fold-{number}").mkdir()
        (tmp_path / f"fold-{number}" / "scores.csv").write_text(f"fold\nfold-{number}\n")
    gather_scores(tmp_path)
    rows = (tmp_path / "scores.csv").read_text().splitlines()[1:]
    assert rows == ["fold-1", "fold-2", "fold-10"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_within_a_step_keeps_the_step(
    cohort: Cohort, store: CohortStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number
) -> None:
    whole_loss = PDDTraining.loss

    def interrupted(self: PDDTraining, *given) -> torch.Tensor:
        if self.done == 2:
            signal.raise_signal(number)
        return whole_loss(self, *given)

    monkeypatch.setattr(PDDTraining, "loss", interrupted)
    shown = cohort("train", store.path, tmp_path, "--steps", 5, *QUICK)
    assert shown.code == 128 + number
    assert shown.err.endswith("stopped; the same command goes on from here\n")
    kept = torch.load(tmp_path / "all" / "checkpoint.pt", weights_only=True)
    assert kept["training"]["done"] == len(kept["losses"]) == 3


def test_a_process_that_is_gone_is_told(
    cohort: Cohort, store: CohortStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> None:
        raise ProcessesLostError("another process of this training is gone: closed")

    monkeypatch.setattr("triton_reg.training.pdd_net.add_over_processes", lost)
    shown = cohort("train", store.path, tmp_path, "--steps", 5, *QUICK)
    assert shown.code == 5
    assert "E_WORKER_LOST: another process of this training is gone: closed." in shown.err


def test_each_fold_is_scored_on_those_that_it_holds_back(store: CohortStore, whole: Path) -> None:
    folds = plan_folds(store, task())
    assert [len(fold.held_back) for fold in folds] == [2, 2]
    for fold in folds:
        assert not set(fold.training) & set(fold.held_back)
        assert set(fold.training) | set(fold.held_back) == set(store.subject_ids)
    with (whole / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["fold"], row["fixed"], row["moving"]) for row in rows] == [
        (fold.name, *pair)
        for fold in folds
        for pair in (fold.held_back, fold.held_back[::-1])
    ]  # fmt: skip
    assert all(0 < float(row["dice_before"]) <= 1 for row in rows)
    card = json.loads((whole / "fold-1" / "card.json").read_text())
    mean = sum(float(row["dice"]) for row in rows[:2]) / 2
    assert card["scores"]["dice"] == pytest.approx(mean)
    assert card["store_digest"] == store.digest
    assert card["settings"]["steps"] == card["steps_done"] == 30
    history = (whole / "fold-1" / "history.csv").read_text().splitlines()
    assert len(history) == 31


def test_a_model_registers_a_run(
    cohort: Cohort, store: CohortStore, whole: Path, tmp_path: Path
) -> None:
    model = whole / "fold-1" / "model.safetensors"
    assert load_model(model).weights != UNTRAINED.weights
    shown = cohort(
        "register", store.path, tmp_path / "run", "--method", "pdd_net", "--set",
        "features=obelisk", "--set", f"weights={model}", "--workers", 0, "--json",
        "--pairs", "random:3",
    )  # fmt: skip
    assert shown.code == 0, shown.err
    assert shown.json["summary"]["ok"] == 3
    assert "W_VOXEL_SIZE" not in shown.err


def test_a_model_is_doubted_on_voxels_of_another_size(
    cohort: Cohort, store: CohortStore, whole: Path, tmp_path: Path
) -> None:
    model = whole / "fold-1" / "model.safetensors"
    assert json.loads((model.parent / "card.json").read_text())["spacing_mm"] == [2, 2, 2]
    coarse = Grid(store.grid.shape, store.grid.affine * np.array([2.0, 2.0, 2.0, 1.0]))
    other = CohortStore.create(tmp_path / "coarse.zarr", coarse, settings={})
    for name in store.subject_ids[:2]:
        other.commit(store.read(name), {"source": None})
    given = ("--method", "pdd_net", "--set", "features=obelisk", "--set", f"weights={model}")
    shown = cohort("plan", other.path, tmp_path / "run", *given, "--no-trial", "--json")
    assert shown.code == 0
    assert "caution W_VOXEL_SIZE: these features were learned from voxels of 2 x 2 x 2 mm" in (
        shown.err
    )
    assert "the store has 4 x 4 x 4 mm;" in shown.err
    assert shown.json["pairs"] == "all"


def test_the_command_says_what_it_did_and_writes_a_page(
    cohort: Cohort, store: CohortStore, tmp_path: Path
) -> None:
    arguments = ("train", store.path, tmp_path / "model", "--steps", 4, "--train-scans", 2, *QUICK)
    shown = cohort(*arguments, "--folds", 2, "--fold", 2)
    assert shown.code == 0, shown.err
    assert "fold-2: 8,116 parameters" in shown.out
    assert "2 held back pairs: mean Dice" in shown.out
    page = (tmp_path / "model" / "report" / "index.html").read_text()
    assert "1 fold is not done yet" in page
    assert "Subjects of one person" in page
    assert page.count("data:image/svg+xml") == 1
    again = cohort(*arguments, "--folds", 2, "--json")
    assert again.code == 0, again.err
    assert [one["fold"] for one in again.json["folds"]] == ["fold-1", "fold-2"]
    assert len(again.json["folds"][0]["card"]["fold"]["training"]) == 2
    assert "not done yet" not in (tmp_path / "model" / "report" / "index.html").read_text()


def test_without_folds_some_validate_and_are_scored(cohort: Cohort, tmp_path: Path) -> None:
    many = tiny_cohort(tmp_path / "many.zarr", subjects=10)
    shown = cohort(
        "train", many.path, tmp_path / "out", "--steps", 4, "--json", *QUICK,
        "--set", "validate_every=2", "--set", "spacing=8",
    )  # fmt: skip
    assert shown.code == 0, shown.err
    (one,) = shown.json["folds"]
    card = one["card"]
    assert len(card["fold"]["training"]) == 8
    assert len(card["fold"]["validation"]) == 2
    assert card["scores_of"] == "validation"
    assert card["scores"]["dice"] == pytest.approx(card["validation_dice"])
    assert "Nobody was held back" in Path(shown.json["report"]).read_text()
    assert not shown.err


def test_few_subjects_without_folds_are_all_learned_from_and_nothing_is_scored(
    cohort: Cohort, store: CohortStore, tmp_path: Path
) -> None:
    shown = cohort("train", store.path, tmp_path / "out", "--steps", 2, *QUICK)
    assert shown.code == 0, shown.err
    said = " ".join(shown.out.split())
    assert "nobody was held back or validated on, so that nothing is scored; --folds" in said
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "Nobody was held back or validated on" in page
    for wrong in ("with labels to score", "by which the best step", "that a fold holds back"):
        assert wrong not in page


def test_each_validation_is_a_line_also_in_a_log_file(cohort: Cohort, tmp_path: Path) -> None:
    many = tiny_cohort(tmp_path / "many.zarr", subjects=10)
    shown = cohort(
        "train", many.path, tmp_path / "out", "--steps", 5, *QUICK,
        "--set", "validate_every=2", "--set", "spacing=8",
    )  # fmt: skip
    assert shown.code == 0, shown.err
    told = re.findall(r"^all: step (\d) of 5, loss [\d.]+, Dice 0\.\d{3}$", shown.err, re.MULTILINE)
    assert told == ["2", "4", "5"]


def test_without_labels_mind_trains_and_nothing_is_scored(
    cohort: Cohort, store: CohortStore, tmp_path: Path
) -> None:
    bare = CohortStore.create(tmp_path / "bare.zarr", store.grid, settings={})
    for name in store.subject_ids:
        bare.commit(Subject(name, store.read(name).volume), {"source": None})
    arguments = ("train", bare.path, tmp_path / "out", "--steps", 2, "--folds", 2, *QUICK)
    refused = cohort(*arguments)
    assert refused.code == 2
    assert "--supervision labels needs labels of every subject; 5 have none" in refused.err
    assert not (tmp_path / "out").exists()
    shown = cohort(*arguments, "--supervision", "mind")
    assert shown.code == 0, shown.err
    assert "no pairs with labels to score" in " ".join(shown.out.split())
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "There are no pairs with labels to score" in page


def test_other_settings_or_another_store_are_refused(
    cohort: Cohort, store: CohortStore, whole: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"plan: steps: 30 there, 31 asked for\. Choose"):
        train(store, whole, task(steps=31))
    with pytest.raises(UsageError, match=r"E_PLAN_MISMATCH.*folds: "):
        train(store, whole, task(train_scans=2))
    other = tiny_cohort(tmp_path / "other.zarr", subjects=5)
    changed = other.read("sub-00")
    other.commit(
        Subject("sub-00", np.flip(changed.volume).copy(), labels=changed.labels), {"source": None}
    )
    shown = cohort("train", other.path, whole, "--folds", 2, "--steps", 30, *QUICK)
    assert shown.code == 2
    assert "E_PLAN_MISMATCH" in shown.err
    assert "store_digest" in shown.err


def test_a_store_may_move(store: CohortStore, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(store.path, tmp_path / "moved.zarr")
    found = train(CohortStore.open(tmp_path / "moved.zarr"), whole, task())
    assert [one.name for one in found] == ["fold-1", "fold-2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "voxelopt"], "E_METHOD: voxelopt is not trained by this command"),
        (
            ["--method", "nonsense"],
            "E_METHOD: nonsense is not trained by this command; need pdd_net or dio",
        ),
        (["--folds", 4], "E_TRAIN: .*at least 2 folds of 2 subjects each, got 5 subjects and 4"),
        (["--folds", 2, "--fold", 3], "E_TRAIN: --fold 3: there are folds 1 to 2"),
        (["--supervision", "hope"], "--supervision is 'hope'; need labels or mind"),
        (["--set", "features=mind"], "features and weights are what training makes"),
        (["--set", "learning_rate=-1"], "learning_rate: Input should be greater than 0, got -1"),
        (
            ["--set", "patients=3"],
            "unknown setting 'patients'.* Settings of training: pairs,.* patience, ",
        ),
    ],
)
def test_bad_usage_is_refused(
    cohort: Cohort, store: CohortStore, tmp_path: Path, arguments, message: str
) -> None:
    shown = cohort("train", store.path, tmp_path / "out", *arguments)
    assert shown.code == 2
    assert re.search(message, shown.err)


@pytest.mark.slow
def test_hippocampi_overlap_better_than_with_random_features(tmp_path: Path) -> None:
    """Twenty-five steps instead of 400, and the pairs of four subjects that are held back."""
    grid = IngestSettings(grid="48x64x48@1mm", align="grid")
    ingest(shared_data("hippocampus_msd"), tmp_path / "cohort.zarr", grid)
    store = CohortStore.open(tmp_path / "cohort.zarr")
    subjects = [store.read(name) for name in store.subject_ids]
    volumes = torch.stack([torch.from_numpy(one.volume) for one in subjects])[:, None]
    labels = torch.stack(
        [torch.from_numpy(one.labels.astype("int32")) for one in subjects if one.labels is not None]
    )
    scans = Scans.of(volumes, labels[:, None])
    pairs = list(permutations(range(4), 2))
    settings = TrainingSettings(steps=25, recompute=False)
    training = PDDTraining(scans.only(range(4, 31)), settings)
    untrained = training.trained()
    for _ in range(settings.steps):
        training.step()
    before, after = (
        fmean(one.dice for one in pair_scores(method, scans, pairs, scans.structures))
        for method in (untrained, training.trained())
    )
    assert after > before + 0.04


def test_too_few_subjects_are_refused(cohort: Cohort, tmp_path: Path) -> None:
    alone = tiny_cohort(tmp_path / "one.zarr", subjects=1)
    shown = cohort("train", alone.path, tmp_path / "out")
    assert shown.code == 2
    assert "training needs at least 2 subjects, got 1" in shown.err


def test_a_folder_of_something_else_is_left_alone(store: CohortStore, cohort: Cohort) -> None:
    before = sorted(store.path.iterdir())
    shown = cohort("train", store.path, store.path, "--steps", 2, *QUICK)
    assert shown.code == 2
    assert "is no training and not empty (it holds" in shown.err
    assert sorted(store.path.iterdir()) == before


def test_a_damaged_checkpoint_is_told(store: CohortStore, tmp_path: Path, cohort: Cohort) -> None:
    (tmp_path / "fold-1").mkdir()
    (tmp_path / "fold-1" / "checkpoint.pt").write_bytes(b"nothing")
    shown = cohort("train", store.path, tmp_path, "--folds", 2, "--steps", 2, *QUICK)
    assert shown.code == 4
    assert "checkpoint.pt is no checkpoint of this training" in shown.err


@pytest.mark.parametrize(
    ("assignments", "stages"),
    [
        ([], UNTRAINED.stages),
        (["spacing=3"], (EvenSearch(spacing=3, width=7, extent=6),)),
        (["spacing=4,3"], (EvenSearch(spacing=4, width=7, extent=6),
                           EvenSearch(spacing=3, width=7, extent=6))),
        (["count=9", "share=0.3", "width=5"], (CubeSearch(count=9, width=5, share=0.3),)),
        (["preset=v01"], (CubeSearch(count=32, width=15, share=0.4),)),
    ],
    ids=str,
)  # fmt: skip
def test_a_search_is_the_trainings_own_unless_told(assignments, stages) -> None:
    assert training_config("pdd_net", None, assignments, SPACING).recipe.method.stages == stages


def test_settings_go_to_the_method_the_training_or_its_schedule() -> None:
    config = training_config(
        "pdd_net", None, ["smoothness=2", "patience=3", "window=5,95", "match_weights=3,1,1,1"],
        (1.0, 1.0, 2.0), steps=None, seed=4,
    )  # fmt: skip
    assert config.recipe.settings == TrainingSettings(smoothness=2, seed=4, window=(5, 95))
    assert config.schedule == Schedule(patience=3)
    assert config.recipe.method.weights == (3, 1, 1, 1)
    (stage,) = config.recipe.method.stages
    assert isinstance(stage, EvenSearch)
    assert stage.voxel == (1, 1, 2)


@pytest.mark.slow
def test_processes_of_torchrun_train_what_one_does(store: CohortStore, tmp_path: Path) -> None:
    command = [str(store.path), "--steps", "4", "--set", "pairs=2", *QUICK]
    bin_folder = Path(sys.executable).parent
    for out, start in {
        "alone": [bin_folder / "cohort"],
        "together": [
            bin_folder / "torchrun", "--standalone", "--nproc-per-node", "2", "--no-python",
            bin_folder / "cohort",
        ],
    }.items():  # fmt: skip
        whole_command = [*start, "train", command[0], tmp_path / out, *command[1:]]
        done = subprocess.run(whole_command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("parameters") == 2  # one process speaks
    models = [
        load_model(tmp_path / out / "all" / "model.safetensors") for out in ("alone", "together")
    ]
    assert models[0].fingerprint == models[1].fingerprint


DIES_ONCE = """
import os, signal, time
import torch.distributed as dist
from cohort.cli import main

if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and os.environ["RANK"] == "1":
    add, calls = dist.all_reduce, []

    def dies(*given, **named):
        calls.append(given)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return add(*given, **named)

    dist.all_reduce = dies
elif os.environ["RANK"] == "1":
    time.sleep(3)  # meanwhile the first one finds what the dead one left
main()
"""


@pytest.mark.slow
def test_processes_that_torchrun_starts_again_go_on_with_the_same_bits(
    cohort: Cohort, store: CohortStore, tmp_path: Path
) -> None:
    (tmp_path / "dies_once.py").write_text(DIES_ONCE)
    command = [str(store.path), "--steps", "4", "--set", "pairs=2", *QUICK]
    assert cohort("train", command[0], tmp_path / "alone", *command[1:]).code == 0
    start = [Path(sys.executable).parent / "torchrun", "--standalone", "--nproc-per-node", "2",
             "--max-restarts", "1", tmp_path / "dies_once.py"]  # fmt: skip
    whole_command = [*start, "train", command[0], tmp_path / "together", *command[1:]]
    done = subprocess.run(whole_command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "exitcode: -9" in done.stderr
    models = [
        load_model(tmp_path / out / "all" / "model.safetensors") for out in ("alone", "together")
    ]
    assert models[0].fingerprint == models[1].fingerprint


def test_a_device_that_is_not_there_is_refused(
    cohort: Cohort, store: CohortStore, tmp_path
) -> None:
    assert "need cpu or cuda" in cohort("train", store.path, tmp_path, "--device", "tpu").err
    if not torch.cuda.is_available():
        shown = cohort("train", store.path, tmp_path, "--device", "cuda")
        assert "torch finds no GPU here" in shown.err


def variant(source: CohortStore, path: Path, change) -> CohortStore:
    """A store of the same volumes with other arrays beside them; ``change`` has number, subject."""
    made = CohortStore.create(path, source.grid, settings={})
    for number, name in enumerate(source.subject_ids):
        made.commit(change(number, source.read(name)), {"source": None})
    return made


def test_who_has_labels_validates_and_is_scored_where_others_have_none(tmp_path: Path) -> None:
    many = tiny_cohort(tmp_path / "many.zarr", subjects=12)
    part = variant(
        many, tmp_path / "part.zarr",
        lambda number, one: replace(one, labels=one.labels if number in (4, 7) else None),
    )  # fmt: skip
    config = training_config(
        "pdd_net", None, ["channels=4", "width=5"], SPACING, steps=1, supervision="mind"
    )
    (found,) = train(part, tmp_path / "out", TrainingTask(*config))
    assert sorted(found.card["fold"]["validation"]) == ["sub-04", "sub-07"]
    assert found.card["scores"]["dice"] == found.card["validation_dice"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--supervision labels needs labels other than 0 to learn from, got none"),
        (["--method", "dio"], "--supervision labels needs labels other than 0 to learn from"),
        (["--method", "dio", "--supervision", "volumes", "--set", "keypoints=1"],
         "keypoints=1 weighs keypoints, as many of every scan, and there are none"),
        (["--method", "dio", "--supervision", "volumes", "--set", "image=0"],
         "DIOTraining: needs a weight for the image loss"),
    ],
    ids=["labels", "labels_dio", "keypoints", "nothing"],
)  # fmt: skip
def test_what_a_store_lacks_is_told_and_leaves_no_plan(
    cohort: Cohort, store: CohortStore, tmp_path: Path, arguments, message: str
) -> None:
    empty = variant(
        store, tmp_path / "empty.zarr",
        lambda _, one: replace(one, labels=np.zeros_like(one.labels)),
    )  # fmt: skip
    shown = cohort("train", empty.path, tmp_path / "out", *arguments)
    assert shown.code == 2
    assert "E_TRAIN: " in shown.err
    assert message in shown.err
    assert not list((tmp_path / "out").iterdir())


def test_a_training_that_diverges_is_told_with_its_step(
    cohort: Cohort, store: CohortStore, tmp_path: Path
) -> None:
    arguments = ("--steps", 9, *QUICK, "--set", "learning_rate=1e30")
    shown = cohort("train", store.path, tmp_path / "out", *arguments)
    assert shown.code == 2
    assert re.search(r"E_TRAIN: all, step \d: the gradients of this step are not finite", shown.err)
    assert "a lower learning_rate may help, in another folder" in shown.err


def test_slow_steps_are_kept_by_the_clock(
    store: CohortStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10**6, 25))  # each look at it is 25 s later
    monkeypatch.setattr("cohort.studies.training_course.monotonic", lambda: next(clock))
    with pytest.raises(Killed):
        train(store, tmp_path, task(6), only=1, told=stopping(4, Killed))
    steps: list[News] = []
    train(store, tmp_path, task(6), only=1, told=steps.append)
    assert [news.step for news in steps] == [4, 5, 6]


def test_what_a_killed_training_left_half_written_is_removed(
    store: CohortStore, tmp_path: Path
) -> None:
    (tmp_path / "fold-1").mkdir()
    left = [tmp_path / ".tmp-1", tmp_path / "fold-1" / ".tmp-2"]
    for path in left:
        path.write_bytes(b"half")
        os.utime(path, (0, 0))
    train(store, tmp_path, task(1), only=1)
    assert not any(path.exists() for path in left)
