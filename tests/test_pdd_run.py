"""Runs with ``--method pdd_net``: settings, rows, prompts and what is kept."""

from pathlib import Path

import numpy as np
import pytest
from helpers import ellipsoids, smooth_volume, tiny_cohort
from safetensors.torch import save_file
from small_run import decided

from cohort.config.method import MethodConfig, method_config
from cohort.config.pdd_net import PddNetSettings
from cohort.data.geometry import Grid
from cohort.data.store import CohortStore, Subject
from cohort.engine import uncertainty
from cohort.engine.choices import PlanSettings
from cohort.engine.plan import open_run
from cohort.engine.results import read_rows
from cohort.engine.run import run
from cohort.engine.team import Team
from cohort.engine.workbench import Workbench
from cohort.errors import UsageError
from triton_reg import CubeSearch, EvenSearch, FitSettings, LocalContrast, MindSSC, Obelisk, PDDNet
from triton_reg.features.obelisk import ObeliskNet
from triton_reg.methods.pdd_model import save_model
from triton_reg.weights import Weights

QUICK = ("spacing=4", "width=5", "extent=4")


def named(value: object) -> str:
    """What processes of one test run agree on: the assignments, no addresses of functions."""
    is_said = isinstance(value, list) and all(isinstance(one, str) for one in value)
    return ",".join(value) if is_said else "-"


def config(*assignments: str) -> MethodConfig:
    return method_config("pdd_net", None, list(assignments))


def built(*assignments: str) -> PDDNet:
    method = config(*assignments).build()
    assert isinstance(method, PDDNet)
    return method


def test_without_settings_the_method_is_as_it_comes() -> None:
    assert built() == PDDNet()
    assert built("preset=v01") == PDDNet.v01(MindSSC())
    assert built("preset=two_warp", "features=local") == PDDNet.two_warp(LocalContrast())


@pytest.mark.parametrize(
    ("assignments", "read", "expected"),
    [
        (["features=mind"], lambda m: m.features, MindSSC()),
        (["spacing=5,4"], lambda m: [stage.spacing for stage in m.stages], [5, 4]),
        (["extent=9"], lambda m: [stage.extent for stage in m.stages], [9] * 4),
        (["width=5"], lambda m: [stage.width for stage in m.stages], [5] * 4),
        (
            list(QUICK),
            lambda m: m.stages,
            (EvenSearch(spacing=4, width=5, extent=4),),
        ),
        (
            ["count=8", "width=7", "share=0.3,0.2"],
            lambda m: m.stages,
            (CubeSearch(count=8, width=7, share=0.3), CubeSearch(count=8, width=7, share=0.2)),
        ),
        (["preset=v01", "count=12"], lambda m: m.stages[0].count, 12),
        (["fit=true"], lambda m: m.fit, FitSettings()),
        (["fit_iterations=9"], lambda m: m.fit, FitSettings(iterations=9)),
        (["preset=two_warp", "features=mind", "fit=false"], lambda m: m.fit, None),
        (["smoothing=gaussian", "sigma=2"], lambda m: (m.match.smoothing, m.match.sigma),
         ("gaussian", 2)),
        (["match_weights=3,1,1,2"], lambda m: m.weights, (3, 1, 1, 2)),
        (["prompt_labels=4"], lambda m: m.prompt_weights.labels, 4),
    ],
    ids=named,
)  # fmt: skip
def test_an_assignment_is_read_as_people_write_it(assignments, read, expected) -> None:
    assert read(built(*assignments)) == expected


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["spacing=4", "share=0.3"], "share and spacing belong to different kinds of search"),
        (["count=8"], "this kind of search needs share, width too"),
        (["spacing=4,4,4", "width=5,5"], "one value a stage: .* different numbers"),
        (["width=6"], "odd width of at least 3 labels an axis, got 6"),
        (["preset=two_warp"], "features=obelisk needs weights=FILE"),
        (
            ["weights=x.pth"],
            "weights belongs to features=learned or unet or obelisk or torchscript, not local",
        ),
        (["smoothing=median"], "smoothing: Input should be 'min_convolution'"),
        (["radius=2"], "unknown setting 'radius'. Settings of pdd_net: preset, features"),
    ],
    ids=named,
)
def test_wrong_settings_say_what_is_possible(assignments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        built(*assignments)


def test_every_setting_of_the_method_changes_the_fingerprint() -> None:
    changes = {
        "preset": "v01", "features": "intensity", "window": "2,98", "mind_radius": "2",
        "mind_dilation": "1", "spacing": "5", "extent": "5", "width": "5", "voxel": "1,1,2",
        "feature_step": "3", "match_weights": "1,1,1,1", "smoothing": "none", "iterations": "1",
        "curvature": "2", "sigma": "2", "fit": "true", "fit_iterations": "3", "fit_rate": "0.1",
        "fit_smoothness": "1", "composition": "full", "prompt_labels": "2",
        "prompt_keypoints": "2", "prompt_radius": "3",
    }  # fmt: skip
    # weights and what comes with them belong to trained features; count and share need one another;
    # prompts tell the engine
    trained = {"weights", "pretrained", "feature_scale", "local_contrast", "voxel_mm"}
    elsewhere = {*trained, "count", "share", "prompts"}
    assert changes.keys() | elsewhere == PddNetSettings.model_fields.keys()
    prints = {
        built(*["features=mind"] * name.startswith("mind"), f"{name}={value}").fingerprint
        for name, value in changes.items()
    }
    assert len(prints | {built().fingerprint}) == len(changes) + 1


def test_a_trained_model_brings_its_own_settings(tmp_path: Path) -> None:
    weights = Weights.of(ObeliskNet(4, step=2).state_dict())
    trained = PDDNet(
        features=Obelisk(weights=weights, step=2),
        stages=(EvenSearch(spacing=5, width=5, extent=5),),
        weights=(2.0, 1.0, 1.0, 3.0),
    )
    save_model(tmp_path / "model.safetensors", trained, {})
    given = "features=obelisk", f"weights={tmp_path / 'model.safetensors'}"
    assert built(*given).fingerprint == trained.fingerprint
    assert built(*given, "iterations=1").match.iterations == 1
    save_file(dict(weights.tensors), tmp_path / "bare.safetensors")
    with pytest.raises(UsageError, match=r"is no model that cohort train has written: .* format"):
        built("features=obelisk", f"weights={tmp_path / 'bare.safetensors'}")


@pytest.mark.slow
def test_any_workers_and_tiles_give_the_same_rows(tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "cohort.zarr", subjects=3)
    for name, workers, tile_size in (("one", 0, 1), ("two", 2, 3)):
        settings = PlanSettings(config(*QUICK), tile_size=tile_size, keep_uncertainty=True)
        open_run(tmp_path / name, store, settings)
        run(tmp_path / name, store, team=Team(workers))
    rows = [decided(tmp_path / name).sort("fixed", "moving") for name in ("one", "two")]
    assert rows[0].equals(rows[1])
    assert set(rows[0]["status"]) == {"ok"}
    first, second = (
        uncertainty.kept(tmp_path / name, "sub-02", "sub-00") for name in ("one", "two")
    )
    points = EvenSearch(spacing=4, width=5, extent=4).points((16, 18, 20))
    assert first["entropy"].shape == points
    assert first["covariance"].shape == (6, *first["entropy"].shape)
    assert all(np.array_equal(first[kind], second[kind]) for kind in uncertainty.KINDS)
    with pytest.raises(UsageError, match="keeps no uncertainty of"):
        uncertainty.kept(tmp_path / "one", "sub-00", "sub-00")


def test_what_is_kept_is_part_of_the_plan(tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "cohort.zarr", subjects=2)
    open_run(tmp_path / "run", store, PlanSettings(config(*QUICK), keep_uncertainty=True))
    assert open_run(tmp_path / "run", store, PlanSettings()).keep_uncertainty
    with pytest.raises(UsageError, match="keep_uncertainty was True, now False"):
        open_run(tmp_path / "run", store, PlanSettings(keep_uncertainty=False))


def test_lengths_follow_the_cohorts_voxels(tmp_path: Path) -> None:
    store = CohortStore.create(
        tmp_path / "cohort.zarr", Grid.axis_aligned((16, 18, 10), (2, 2, 4), (0, 0, 0)), settings={}
    )
    for name in "ab":
        volume = smooth_volume((16, 18, 10), 1)[0, 0].numpy()
        store.commit(Subject(name, volume), {"source": None})
    spec = open_run(tmp_path / "run", store, PlanSettings(config(*QUICK)))
    assert spec.method.settings.voxel == (1, 1, 2)
    cube = config("count=4", "width=5", "share=0.3")
    assert open_run(tmp_path / "cube", store, PlanSettings(cube)).method == cube


def cohort_with_keypoints(path: Path, *, counts: tuple[int, ...]) -> CohortStore:
    store = CohortStore.create(
        path, Grid.axis_aligned((16, 18, 20), (2, 2, 2), (0, 0, 0)), settings={}
    )
    for index, count in enumerate(counts):
        points = np.array([[16.0 + 4 * index, 18.0, 20.0]] * count)
        volume = np.full((16, 18, 20), 5, np.float32)
        volume[8, 9, 10] = 6
        labels = ellipsoids((16, 18, 20), (2 * index, 0, 0))
        subject = Subject(f"s{index}", volume, labels=labels, keypoints_mm=points)
        store.commit(subject, {"source": None})
    return store


def test_prompts_come_from_the_pairs_own_scans(tmp_path: Path) -> None:
    store = cohort_with_keypoints(tmp_path / "cohort.zarr", counts=(1, 1))
    found = {}
    for name, more in {"told": ("prompts=both", "prompt_keypoints=10"), "silent": ()}.items():
        method = config(*QUICK, "features=intensity", *more)
        open_run(tmp_path / name, store, PlanSettings(method, "atlas:s1"))
        run(tmp_path / name, store, team=Team(0))
        found[name] = read_rows(tmp_path / name)
    assert found["silent"]["tre_mm"][0] == pytest.approx(4, abs=0.2)
    assert found["told"]["tre_mm"][0] < 2
    assert found["told"]["dice_mean"][0] > found["silent"]["dice_mean"][0]


def test_a_pair_without_its_prompts_is_a_row_that_says_so(tmp_path: Path) -> None:
    store = cohort_with_keypoints(tmp_path / "cohort.zarr", counts=(1, 2))
    open_run(tmp_path / "run", store, PlanSettings(config(*QUICK, "prompts=keypoints")))
    run(tmp_path / "run", store, team=Team(0))
    rows = read_rows(tmp_path / "run")
    assert set(rows["status"]) == {"E_PROMPTS"}
    assert "fixed has 1 of them, moving 2" in rows.filter(rows["fixed"] == "s0")["message"][0]
    plain = tiny_cohort(tmp_path / "plain.zarr", subjects=2)
    open_run(tmp_path / "none", plain, PlanSettings(config(*QUICK, "prompts=keypoints")))
    bench = Workbench.open(tmp_path / "none")
    with pytest.raises(Exception, match="the fixed subject has no keypoints"):
        bench.register("sub-00", "sub-01")
