"""`cohort fuse`: leave one out, going on after a stop, the same bytes, and what is refused."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import polars as pl
import pytest
from command_line import Cohort
from helpers import tiny_cohort
from small_cohort import half_written
from small_run import QUICK, damage, planned

from cohort.data.ingest import ingest
from cohort.data.ingest_settings import IngestSettings
from cohort.data.store import CohortStore
from cohort.data.synth import SynthSettings, synthesise_population
from cohort.engine.plan import PlanSettings, open_run
from cohort.engine.team import Team
from cohort.errors import UsageError
from cohort.studies.fusion import fuse, register_atlases
from cohort.studies.fusion_plan import FusionTask, plan_fusion, write_pairs
from cohort.studies.fusion_target import fuse_target
from triton_reg.ops.label_fusion import FusionSettings

OPTIONS = ("--set", "features=intensity", "--set", "levels=2", "--set", "solves=1",
           "--set", "couplings=0.1,1", "--set", "squarings=3")  # fmt: skip
QUICK_PLAN = PlanSettings(QUICK)
JOINT = FusionSettings(search=0, radius=1)

pytestmark = pytest.mark.slow  # five heads are made and registered first


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> CohortStore:
    """Five synthetic heads that came from files."""
    folder = tmp_path_factory.mktemp("heads")
    synthesise_population(
        folder / "nifti", SynthSettings(subjects=5, shape=(32, 36, 32), spacing_mm=5.0)
    )
    report = ingest(folder / "nifti", folder / "c.zarr", IngestSettings(grid="32x36x32@5mm"))
    assert len(report.ingested) == 5
    return CohortStore.open(folder / "c.zarr")


@pytest.fixture(scope="module")
def run_dir(heads: CohortStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everyone registered to everyone, with all displacements."""
    return register_atlases(heads, tmp_path_factory.mktemp("all"), plan_fusion(heads), QUICK_PLAN)


@pytest.fixture(scope="module")
def whole(heads: CohortStore, run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fusion that nothing stopped."""
    out = tmp_path_factory.mktemp("whole")
    fuse(heads, run_dir, out, plan_fusion(heads, settings=JOINT, confidence=True))
    return out


def contents(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()
    }


def test_fusion_beats_every_single_atlas(whole: Path, heads: CohortStore) -> None:
    table = pl.read_csv(whole / "targets.csv")
    assert table["target"].to_list() == list(heads.subject_ids)
    assert table["votes"].to_list() == [4] * 5
    assert (table["fused"] > table["likest_dice"] + 0.02).all()
    assert (table["fused"] > table["best_dice"]).all()
    assert (table["best_dice"] >= table["likest_dice"]).all()
    dice = pl.read_csv(whole / "dice.csv")
    assert set(dice["segmentation"]) == {"joint", *heads.subject_ids}
    assert not len(dice.filter(target="sub-001", segmentation="sub-001"))
    means = dice.filter(segmentation="joint").group_by("target").agg(pl.col("dice").mean())
    assert sorted(means["dice"]) == pytest.approx(sorted(table["fused"]))


def test_labels_lie_on_the_working_grid_and_on_the_targets_own(
    whole: Path, heads: CohortStore
) -> None:
    record = json.loads((whole / "targets" / "sub-002.json").read_text())
    truth = heads.read("sub-002").labels
    working = np.asarray(nib.load(whole / "working" / "sub-002_dseg.nii.gz").dataobj)  # type: ignore[attr-defined]
    assert truth is not None
    both = ((working == 3) & (truth == 3)).sum()
    expected = 2 * both / ((working == 3).sum() + (truth == 3).sum())
    assert record["dice"]["3"] == pytest.approx(expected)
    native = nib.load(whole / "labels" / "sub-002_dseg.nii.gz")
    source = nib.load(heads.path.parent / "nifti" / "labels" / "sub-002.nii.gz")
    assert np.allclose(native.affine, source.affine)  # type: ignore[attr-defined]
    own, fused = (np.asarray(one.dataobj) for one in (source, native))  # type: ignore[attr-defined]
    assert own.shape == fused.shape
    assert (own == fused).mean() > 0.8
    shares = np.asarray(nib.load(whole / "working" / "sub-002_confidence.nii.gz").dataobj)  # type: ignore[attr-defined]
    assert 0 < shares.min() < shares.max() == 1
    # where atlases agree and where they do not, the surer a voxel the more often it is right
    assert (working == truth)[shares > 0.9].mean() > (working == truth)[shares < 0.6].mean()


def test_a_fusion_that_was_killed_goes_on_with_the_same_bytes(
    heads: CohortStore, run_dir: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = plan_fusion(heads, settings=JOINT, confidence=True)
    seen: list[str] = []

    def killed(job):
        if len(seen) == 2:
            (tmp_path / "working" / f"{job.target}_dseg.nii.gz").write_bytes(b"half")
            raise KeyboardInterrupt
        seen.append(job.target)
        return fuse_target(job)

    monkeypatch.setattr("cohort.studies.fusion.fuse_target", killed)
    with pytest.raises(KeyboardInterrupt):
        fuse(heads, run_dir, tmp_path, task)
    monkeypatch.undo()
    report = fuse(heads, run_dir, tmp_path, task)
    assert (report.now, len(report.done)) == (3, 5)
    assert contents(tmp_path) == contents(whole)
    assert fuse(heads, run_dir, tmp_path, task).now == 0
    assert not half_written(tmp_path)


@pytest.mark.slow
def test_two_workers_write_the_bytes_of_one(
    heads: CohortStore, run_dir: Path, whole: Path, tmp_path: Path
) -> None:
    task = plan_fusion(heads, settings=JOINT, confidence=True)
    fuse(heads, run_dir, tmp_path, task, workers=2)
    assert contents(tmp_path) == contents(whole)


def test_only_the_likest_atlases_vote(heads: CohortStore, run_dir: Path, tmp_path: Path) -> None:
    one = plan_fusion(heads, "sub-003", settings=JOINT, select=1)
    report = fuse(heads, run_dir, tmp_path, one)
    (row,) = report.table.to_dicts()
    # the vote of one atlas is that atlas
    assert (row["votes"], row["fused"]) == (1, row["likest_dice"])
    record = json.loads((tmp_path / "targets" / "sub-003.json").read_text())
    likeness = [atlas["ncc"] for atlas in record["atlases"]]
    assert likeness == sorted(likeness, reverse=True)
    assert len(likeness) == 4
    assert record["dice"] == record["dice_of_atlases"][record["atlases"][0]["id"]]


def test_candidates_are_those_that_look_alike_before_registration(tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "c.zarr", 5)
    twin = store.read("sub-04")
    object.__setattr__(twin, "subject_id", "twin")
    store.commit(twin, {"source": None})
    task = plan_fusion(store, "sub-0[14]", candidates=2)
    assert "twin" in task.atlases_of("sub-04")
    assert [len(task.atlases_of(name)) for name in task.targets] == [2, 2]
    volumes = {name: store.read(name).volume.ravel() for name in store.subject_ids}
    alike = {
        name: np.corrcoef(volumes["sub-01"], volumes[name])[0, 1]
        for name in volumes
        if name != "sub-01"
    }
    best = sorted(alike, key=alike.__getitem__)[-2:]
    assert task.atlases_of("sub-01") == tuple(sorted(best))
    out = tmp_path / "out"
    run_dir = register_atlases(store, out, task, QUICK_PLAN)
    assert len((out / "pairs.csv").read_text().splitlines()) == 5
    report = fuse(store, run_dir, out, task)
    assert report.table["votes"].to_list() == [2, 2]
    assert report.table["likest"][1] == "twin"


def test_a_subject_that_has_changed_since_is_refused(
    heads: CohortStore, run_dir: Path, tmp_path: Path
) -> None:
    store = CohortStore.open(shutil.copytree(heads.path, tmp_path / "c.zarr"))
    other = store.read("sub-002")
    object.__setattr__(other, "subject_id", "sub-001")
    store.commit(other, {"source": None})
    report = fuse(store, run_dir, tmp_path / "out", plan_fusion(store, "sub-001", settings=JOINT))
    assert report.failed["sub-001"].code == "E_CHANGED"
    assert not list((tmp_path / "out" / "working").iterdir())


def test_a_run_without_displacements_is_refused(heads: CohortStore, tmp_path: Path) -> None:
    planned(tmp_path / "run", heads)
    with pytest.raises(UsageError, match="keeps displacements of none pairs; need a run with"):
        fuse(heads, tmp_path / "run", tmp_path / "out", plan_fusion(heads))


def contents_of(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in folder.iterdir() if one.is_file()}


@pytest.mark.parametrize(
    ("name", "code"), [("pairs.csv", "E_PLAN_MISMATCH"), ("dice.csv", "E_FUSION")]
)
def test_what_else_lies_in_the_folder_is_left_as_it_is(
    heads: CohortStore, run_dir: Path, tmp_path: Path, name: str, code: str
) -> None:
    out, task = tmp_path / "out", plan_fusion(heads)
    out.mkdir()
    (out / name).write_text("fixed,moving\nmine,own\n")
    before = contents_of(out)
    with pytest.raises(UsageError) as caught:
        register_atlases(heads, out, task, QUICK_PLAN)
    assert caught.value.code == code
    assert name in str(caught.value)
    if name != "pairs.csv":  # which a fusion of another run's pairs does not write
        with pytest.raises(UsageError, match=r"E_FUSION.* is no fusion and not empty"):
            fuse(heads, run_dir, out, task)
    assert contents_of(out) == before
    assert len(list(out.iterdir())) == 1


def test_a_run_keeps_its_pairs_where_its_folder_is_taken_for_a_fusion(
    heads: CohortStore, tmp_path: Path
) -> None:
    (tmp_path / "some.csv").write_text("fixed,moving\nsub-001,sub-002\n")
    settings = PlanSettings(QUICK, str(tmp_path / "some.csv"))
    open_run(tmp_path / "run", heads, settings)
    before = contents_of(tmp_path / "run")
    with pytest.raises(UsageError, match="lists other pairs than this fusion registers"):
        register_atlases(heads, tmp_path / "run", plan_fusion(heads), QUICK_PLAN)
    assert contents_of(tmp_path / "run") == before


def test_a_file_is_no_folder_for_a_fusion(
    heads: CohortStore, run_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file is a file; need a new or an empty folder"):
        register_atlases(heads, tmp_path / "file", plan_fusion(heads), QUICK_PLAN)
    with pytest.raises(UsageError, match="file is a file; need a new or an empty folder"):
        fuse(heads, run_dir, tmp_path / "file", plan_fusion(heads))


def test_nobody_votes_for_nothing(heads: CohortStore) -> None:
    with pytest.raises(UsageError, match="--select 0: need 1 or more"):
        plan_fusion(heads, select=0)


@pytest.mark.parametrize("rule", ["majority", "local"])
def test_the_other_rules_fuse_too(
    heads: CohortStore, run_dir: Path, tmp_path: Path, rule: str
) -> None:
    settings = FusionSettings(rule, radius=1, search=1)  # type: ignore[arg-type]
    report = fuse(heads, run_dir, tmp_path, plan_fusion(heads, "sub-001", settings=settings))
    (row,) = report.table.to_dicts()
    assert row["fused"] > row["likest_dice"]


def test_the_command_registers_fuses_and_tells(cohort: Cohort, tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "c.zarr")
    out = tmp_path / "out"
    call = ("fuse", store.path, out, "--targets", "sub-00", "--atlases", "sub-0[123]",
            "--workers", 0, *OPTIONS)  # fmt: skip
    shown = cohort(*call)
    assert shown.code == 0, shown.err
    assert "1 targets, 1 of them now" in shown.out
    assert "Dice, likest atlas alone" in shown.out
    assert "Multi-atlas segmentation" in (out / "index.html").read_text()
    assert not list((out / "labels").iterdir())  # these subjects came from no file
    again = cohort(*call, "--json").json
    assert (again["done"], again["now"], again["failed"]) == (["sub-00"], 0, {})
    other = cohort(*call, "--fusion", "majority")
    assert other.code == 2
    assert "holds another fusion: fusion" in other.err
    elsewhere = ("--fusion", "majority", "--run", out / "run")
    shown = cohort(*call[:2], tmp_path / "votes", *call[3:9], *elsewhere, "--json")
    assert shown.json["done"] == ["sub-00"]
    assert not (tmp_path / "votes" / "run").exists()


def test_a_broken_subject_fails_alone(cohort: Cohort, tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "c.zarr")
    call = ("fuse", store.path, tmp_path / "out", "--workers", 0, *OPTIONS)
    damage(store, "sub-01")
    shown = cohort(*call, "--json")
    assert shown.code == 1
    assert shown.json["done"] == ["sub-00", "sub-02", "sub-03"]
    assert "has no atlas for sub-01" in shown.json["failed"]["sub-01"]
    record = json.loads((tmp_path / "out" / "targets" / "sub-00.json").read_text())
    assert sorted(atlas["id"] for atlas in record["atlases"]) == ["sub-02", "sub-03"]


def test_who_is_meant(tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "c.zarr")
    unlabelled = store.read("sub-03")
    object.__setattr__(unlabelled, "labels", None)
    store.commit(unlabelled, {"source": None})
    task = plan_fusion(store)
    assert (task.targets, task.atlases) == (store.subject_ids, ("sub-00", "sub-01", "sub-02"))
    assert len(list(task.pairs)) == 9
    (tmp_path / "ids.txt").write_text("sub-03\n\nsub-01\n")
    task = plan_fusion(store, f"@{tmp_path / 'ids.txt'}", "sub-0[012]")
    assert task == FusionTask(("sub-01", "sub-03"), ("sub-00", "sub-01", "sub-02"))
    for given, message in (
        (("nobody", None), "--targets: no subject 'nobody'; there are sub-00, sub-01"),
        ((None, "sub-03"), "--atlases: no labels in sub-03; need some in every atlas"),
        ((None, "sub-3*"), "--atlases: no subject 'sub-3"),
        (("sub-01", "sub-01"), "the only atlas, sub-01, is a target itself"),
        (("@nowhere", None), "--targets: nowhere cannot be read"),
        ((" , ", None), "--targets names nobody"),
    ):
        with pytest.raises(UsageError, match=message):
            plan_fusion(store, *given)
    for given, message in (
        ({"select": 3}, "--select 3: there are 2 atlases for a target"),
        ({"candidates": 3}, "--candidates 3: there are 2 atlases for a target"),
        ({"candidates": 1, "select": 2}, "--select 2: there are 1 atlases for a target"),
    ):
        with pytest.raises(UsageError, match=message):
            plan_fusion(store, "sub-01", **given)
    for name in store.subject_ids:
        bare = store.read("sub-03")
        object.__setattr__(bare, "subject_id", name)
        store.commit(bare, {"source": None})
    with pytest.raises(UsageError, match="no atlas has labels"):
        plan_fusion(store)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--fusion", "best"), "rule is 'best'; need majority, local or joint"),
        (("--fusion-set", "depth=3"), "keys: radius, search, alpha, beta, power"),
        (("--fusion-set", "radius=wide"), "need a whole number"),
        (("--fusion-set", "alpha=0"), "alpha must be above 0, got 0.0"),
        (("--run", "elsewhere", "--method", "dio"), "--run registers nothing"),
        (("--run", "x", "--steal", "--retry-failed"), "nothing; --steal, --retry-failed would"),
        (("--run", "x", "--batch", 2, "--pair-timeout", 9), "nothing; --batch, --pair-timeout"),
        (("--run", "x", "--device", "cpu", "--keep-features"), "--device, --keep-features would"),
        (("--run", "x", "--scheduler", "tls://n:1"), "--run registers nothing; --scheduler would"),
        (("--run", "x", "--gpus", "all"), "--run registers nothing; --gpus would"),
        (("--run", "elsewhere"), "is no run"),
    ],
)
def test_wrong_usage_is_told(
    cohort: Cohort, heads: CohortStore, tmp_path: Path, arguments: tuple, message: str
) -> None:
    shown = cohort("fuse", heads.path, tmp_path / "out", *arguments)
    assert shown.code == 2
    assert message in shown.err
    assert not (tmp_path / "out").exists()


def test_the_cards_are_those_of_the_planned_device(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, out = tiny_cohort(tmp_path / "c.zarr"), tmp_path / "out"
    plan = PlanSettings(QUICK, str(write_pairs(out, plan_fusion(store))), device="cuda",
                        keep_displacements="all")  # fmt: skip
    open_run(out / "run", store, plan)
    teams: list[Team] = []

    def seen(*_: object, team: Team, **__: object) -> None:
        teams.append(team)
        raise UsageError("E_DEVICE", "this is far enough")

    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("cohort.studies.fusion.run", seen)
    assert "far enough" in cohort("fuse", store.path, out).err
    assert teams == [Team(gpus=(0, 1))]
