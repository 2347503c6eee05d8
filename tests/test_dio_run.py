"""Runs and trainings with ``--method dio``: settings, rows, prompts and learned features."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Cohort
from helpers import ellipsoids, smooth_volume, tiny_cohort

from cohort.config.dio import DioSettings
from cohort.config.method import MethodConfig, method_config
from cohort.config.training import training_config
from cohort.data.geometry import Grid
from cohort.data.store import CohortStore, Subject
from cohort.engine.choices import PlanSettings
from cohort.engine.plan import open_run
from cohort.engine.regenerate import regenerate_pair
from cohort.engine.results import read_rows
from cohort.engine.run import run
from cohort.engine.team import Team
from cohort.engine.voxel_caution import voxel_caution
from cohort.engine.workbench import Workbench
from cohort.errors import UsageError
from cohort.report.views import pair_views
from cohort.studies.train import train
from cohort.studies.training_course import News
from cohort.studies.training_plan import TrainingTask
from triton_reg import DIO, Architecture, LearnedFeatures, MindSSC, PDDNet, VoxelOpt
from triton_reg.features.pretrained import card_of, load_features, save_features
from triton_reg.weights import Weights

QUICK = ("iterations=8,6,4",)
SMALL = ("network=unet_encoder", "width=4", "channels=4", "structures=2")


def config(*assignments: str, name: str = "dio") -> MethodConfig:
    return method_config(name, None, list(assignments))


def built(*assignments: str) -> DIO:
    method = config(*assignments).build()
    assert isinstance(method, DIO)
    return method


def test_without_settings_the_method_is_as_it_comes() -> None:
    assert built() == DIO()
    assert built("preset=published") == DIO.published()


def test_every_setting_of_the_method_changes_the_fingerprint() -> None:
    changes = {
        "preset": "published", "features": "mind", "window": "2,98", "mind_radius": "2",
        "mind_dilation": "1", "transform": "svf", "first": "rigid", "loss": "mse",
        "lncc_window": "5", "levels": "6,2,1", "iterations": "9,9,9", "optimiser": "sgd",
        "rate": "0.2", "eps": "1", "gradient_sigma": "2", "vector_sigma": "2",
        "stop_tolerance": "0.1", "stop_patience": "3", "diffusion": "1", "bending": "1",
        "total_variation": "1", "jacobian": "1", "spline_spacing": "6", "voxel": "1,1,2",
        "masked": "true", "diagnose": "true", "prompt_labels": "2", "prompt_keypoints": "2",
        "prompt_radius": "3",
    }  # fmt: skip
    # weights and what comes with them belong to trained features; prompts tell the engine
    trained = {"weights", "pretrained", "feature_scale", "local_contrast", "voxel_mm"}
    elsewhere = {*trained, "prompts"}
    assert changes.keys() | elsewhere == DioSettings.model_fields.keys()
    prints = {
        built(*["features=mind"] * name.startswith("mind"), f"{name}={value}").fingerprint
        for name, value in changes.items()
    }
    assert len(prints | {built().fingerprint}) == len(changes) + 1


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("transform=geodesic", "transform: Input should be 'freeform'"),
        ("iterations=5,5", r"needs iterations for each of the levels \(4, 2, 1\), got \(5, 5\)"),
        ("levels=4,3,1", "coarsest first, got"),
        ("lncc_window=4", "window must be odd"),
        ("radius=2", "unknown setting 'radius'. Settings of dio: preset, features"),
        ("features=learned", "features=learned needs weights=FILE, its file of learned features"),
        ("pretrained=brain-t9", "pretrained belongs to features=pretrained, not intensity"),
    ],
)
def test_wrong_settings_say_what_is_possible(assignment: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        built(assignment)


def test_unknown_features_of_the_package_are_listed() -> None:
    with pytest.raises(UsageError, match="no features 'brain-t9'; there are:"):
        built("features=pretrained", "pretrained=brain-t9")


def test_lengths_are_those_of_the_working_grid() -> None:
    told = config().for_cohort(has_masks=True, spacing_mm=(2, 2, 4)).build()
    assert isinstance(told, DIO)
    assert told.voxel == (1, 1, 2)
    assert told.masked


def test_rows_say_how_the_optimisation_went(tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "cohort.zarr", subjects=2)
    open_run(tmp_path / "run", store, PlanSettings(config(*QUICK, "diagnose=true")))
    run(tmp_path / "run", store, team=Team(0))
    rows = read_rows(tmp_path / "run")
    assert set(rows["status"]) == {"ok"}
    for row in rows.iter_rows(named=True):
        assert all(1 <= one <= most for one, most in zip(row["iterations"], (8, 6, 4), strict=True))
        assert set(row["stop_reasons"]) <= {"converged", "iterations"}
        assert all(np.isfinite(row["gradient_ratios"] + row["level_losses"]))
        assert all(0 <= one <= 1.001 for one in row["step_cosines"])
        assert row["dice_mean"] > row["dice_before"]


def test_other_methods_leave_those_columns_empty(tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "cohort.zarr", subjects=2)
    open_run(tmp_path / "run", store, PlanSettings(config("levels=2", name="voxelopt")))
    run(tmp_path / "run", store, team=Team(0))
    assert read_rows(tmp_path / "run")["iterations"].null_count() == 2


def test_prompts_come_from_the_pairs_own_scans(tmp_path: Path) -> None:
    shape = (16, 18, 20)
    store = CohortStore.create(
        tmp_path / "cohort.zarr", Grid.axis_aligned(shape, (2, 2, 2), (0, 0, 0)), settings={}
    )
    for index in range(2):
        labels = ellipsoids(shape, (2.0 * index, 0, 0))
        noise = smooth_volume(shape, index)[0, 0].numpy()
        store.commit(Subject(f"s{index}", noise, labels=labels), {"source": None})
    found = {}
    for name, more in {"told": ("prompts=labels", "prompt_labels=10"), "silent": ()}.items():
        method = config(*QUICK, "loss=mse", *more)
        open_run(tmp_path / name, store, PlanSettings(method, "atlas:s1"))
        run(tmp_path / name, store, team=Team(0))
        found[name] = read_rows(tmp_path / name)
    assert found["told"]["dice_mean"][0] > found["silent"]["dice_mean"][0] + 0.05


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    small = Architecture(kind="unet_encoder", width=4, channels=4)
    features = LearnedFeatures(weights=Weights.of(small.build().state_dict()), architecture=small)
    path = tmp_path_factory.mktemp("learned") / "features.safetensors"
    save_features(path, replace(features, spacing_mm=(4.0, 4.0, 4.0)), {})
    return path


@pytest.mark.parametrize(
    ("name", "kind"), [("dio", DIO), ("voxelopt", VoxelOpt), ("pdd_net", PDDNet)]
)
def test_learned_features_serve_every_method(name: str, kind: type, learned: Path) -> None:
    said = ("features=learned", f"weights={learned}", "feature_scale=0.5")
    method = config(*said, name=name).build()
    assert isinstance(method, kind)
    assert method.features.scale == 0.5  # type: ignore[attr-defined]
    assert method.fingerprint != config(*said[:2], name=name).build().fingerprint


@pytest.mark.parametrize(
    ("spacing_mm", "said"),
    [
        ((4.0, 4.0, 4.0), None),
        ((1.0, 2.0, 4.2), None),  # seen as coarse as they were learned from, within a tenth
        ((8.0, 4.0, 4.0), "of 4 x 4 x 4 mm, and the store has 8 x 4 x 4 mm; they may"),
        ((1.5, 4.0, 4.0), "has 1.5 x 4 x 4 mm, which they see as coarse as 3 x 4 x 4;"),
    ],
    ids=str,
)
def test_learned_features_are_doubted_where_voxels_differ(
    learned: Path, spacing_mm: tuple[float, float, float], said: str | None
) -> None:
    asked = config("features=learned", f"weights={learned}", name="voxelopt")
    method = asked.for_cohort(has_masks=False, spacing_mm=spacing_mm)
    found = voxel_caution(method.settings, spacing_mm)
    assert found is None if said is None else said in str(found)
    assert voxel_caution(config(name="voxelopt").settings, spacing_mm) is None


@pytest.mark.parametrize("name", ["dio", "voxelopt", "pdd_net"])
def test_learned_features_see_a_cohort_as_coarse_as_what_they_learned_from(
    name: str, learned: Path
) -> None:
    plain = config("features=learned", f"weights={learned}", name=name)
    fine = plain.for_cohort(has_masks=False, spacing_mm=(1.0, 2.0, 4.0))
    assert fine.settings.voxel_mm == (1.0, 2.0, 4.0)
    assert fine.build().features.coarsening == (4, 2, 1)  # type: ignore[attr-defined]
    assert fine.build().fingerprint != plain.build().fingerprint
    told = config("features=learned", f"weights={learned}", "voxel_mm=4,4,4", name=name)
    assert told.for_cohort(has_masks=False, spacing_mm=(2.0, 2.0, 2.0)) == told
    beside = config("features=learned", f"weights={learned}", "local_contrast=2", name=name)
    assert beside.build().features.local_contrast == 2  # type: ignore[attr-defined]
    assert beside.build().fingerprint != plain.build().fingerprint


def test_settings_of_learned_features_need_learned_features() -> None:
    with pytest.raises(UsageError, match="feature_scale belongs to features=learned or pretrained"):
        built("feature_scale=2")
    assert built("features=mind").features == MindSSC()


def task(steps: int = 6, **settings) -> TrainingTask:
    chosen = training_config("dio", None, [*SMALL, *QUICK], (1.0, 1.0, 1.0), steps=steps)
    return TrainingTask(*chosen, **{"folds": 2, **settings})


def test_a_trained_fold_has_a_model_and_a_card(tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "cohort.zarr", subjects=4)
    train(store, tmp_path / "whole", task(), only=1)
    assert load_features(tmp_path / "whole/fold-1/model.safetensors").architecture.width == 4
    card = card_of(tmp_path / "whole/fold-1/model.safetensors")
    assert card["method"]["name"] == "dio"
    assert card["scores"]["pairs"] == 2


@pytest.mark.slow
def test_a_stopped_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "cohort.zarr", subjects=4)

    def stopping(news: News) -> None:
        if news.step == 27:
            raise KeyboardInterrupt

    train(store, tmp_path / "whole", task(30), only=1)
    with pytest.raises(KeyboardInterrupt):
        train(store, tmp_path / "stopped", task(30), only=1, told=stopping)
    train(store, tmp_path / "stopped", task(30), only=1)
    files = [tmp_path / name / "fold-1/model.safetensors" for name in ("whole", "stopped")]
    first, second = (load_features(file).weights for file in files)
    assert first.digest == second.digest


def test_settings_of_the_training_and_of_the_method_are_told_apart() -> None:
    chosen = training_config(
        "dio", None,
        ["network=lku", "width=8", "levels=4,2", "iterations=9,5", "transform=freeform",
         "dice=2", "curriculum=0,0.5", "patience=3", "gradient=implicit", "window=5,95"],
        (1.0, 1.0, 2.0), steps=70, seed=3,
    )  # fmt: skip
    recipe = chosen.recipe
    assert recipe.architecture == Architecture(kind="lku", width=8, levels=(4, 2))
    assert (recipe.steps, recipe.seed, recipe.settings.dice) == (70, 3, 2)
    assert recipe.settings.window == (5, 95)
    assert recipe.method.voxel == (1, 1, 2)
    assert recipe.method.iterations == (9, 5)
    assert chosen.schedule.patience == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--supervision", "mind"], "--supervision is 'mind'; need labels or volumes"),
        (["--set", "features=mind"], "features and weights are what training makes"),
        (["--set", "network=resnet"], "network: Input should be 'unet'"),
        (["--set", "levels=4,3"], "E_SETTING"),
        (["--supervision", "volumes", "--set", "codes=1"], "codes are of labels"),
    ],
)
def test_bad_usage_is_refused(
    cohort: Cohort, tmp_path: Path, arguments: list[str], message: str
) -> None:
    tiny_cohort(tmp_path / "cohort.zarr", subjects=2)
    shown = cohort(
        "train", tmp_path / "cohort.zarr", tmp_path / "out", "--method", "dio", *arguments
    )
    assert shown.code == 2
    assert message in shown.err
    assert not (tmp_path / "out").exists()


def test_volumes_alone_can_be_learned_from(tmp_path: Path) -> None:
    shape = (16, 18, 20)
    store = CohortStore.create(
        tmp_path / "cohort.zarr", Grid.axis_aligned(shape, (2, 2, 2), (0, 0, 0)), settings={}
    )
    for index in range(3):
        store.commit(
            Subject(f"s{index}", smooth_volume(shape, index)[0, 0].numpy()), {"source": None}
        )
    chosen = training_config(
        "dio", None, [*SMALL, *QUICK], (1.0, 1.0, 1.0), steps=2, supervision="volumes"
    )
    (found,) = train(store, tmp_path / "out", TrainingTask(*chosen))
    assert found.card["scores"]["dice"] is None
    assert torch.isfinite(
        torch.cat([one.flatten() for one in load_features(found.model).weights.tensors.values()])
    ).all()


def test_the_report_shows_the_features_of_each_level(tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "cohort.zarr", subjects=2)
    for name, features, expected in (
        ("mind", "mind", ["features /4", "features /2", "features /1"]),
        ("intensity", "intensity", []),  # the volume is beside it anyway
    ):
        method = config(*QUICK, f"features={features}")
        open_run(tmp_path / name, store, PlanSettings(method))
        images = regenerate_pair(Workbench.open(tmp_path / name), "sub-00", "sub-01")
        assert list(images.features) == expected
        assert all(one.shape == (3, 16, 18, 20) for one in images.features.values())
        assert all(one.max() == 255 for one in images.features.values())
        shown = [view.name for view in pair_views(images)]
        assert shown[-len(expected) :] == expected if expected else shown[-1] == "grid"


def test_codes_need_labels_and_the_card_says_whose_they_are() -> None:
    asked = ["dice=0", "warm_up=1"]
    told, blind = (
        training_config("dio", None, [*asked, f"codes={one}"], (1.0, 1.0, 1.0)).recipe
        for one in (1, 0)
    )
    assert told.needs_labels
    assert not blind.needs_labels
    assert told.facts()["method"]["network"]["structures"] == "those of the labels"
    assert "structures" not in blind.facts()["method"]["network"]
    assert told.facts()["structure_loss"]  # so that a training goes on with the loss it began with
    assert "structure_loss" not in blind.facts()
