"""Unbiased templates: their means, their bits, their files."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import polars as pl
import pytest
from command_line import Cohort
from helpers import tiny_cohort
from native_cohort import native_run
from pydantic import ValidationError
from scipy.linalg import expm, logm
from small_run import QUICK, damage, part_names

from cohort.config.atlas import AtlasSettings, Center
from cohort.data.entries import SourceEntry
from cohort.data.geometry import Grid
from cohort.data.native import load_native
from cohort.data.store import CohortStore
from cohort.engine.lock import only_driver
from cohort.engine.run import DriverOptions, RunReport, run
from cohort.engine.sums import RANGE, UNIT, Sums
from cohort.engine.team import PLAIN, Team
from cohort.engine.verify import verify
from cohort.engine.workbench import Workbench
from cohort.errors import RunActiveError, StorageError, UsageError
from cohort.studies.atlas.affine_mean import covering_grid, mirrored_mean, unbiased
from cohort.studies.atlas.build import add_subjects, build_template
from cohort.studies.atlas.means import mean_displacement, mean_volume, with_mirror_images
from cohort.studies.atlas.one_pass import Build
from cohort.studies.atlas.settings import load_settings
from cohort.studies.atlas.start import medoid, stationary_sums
from cohort.studies.atlas.update import movement, next_template
from cohort.studies.native_space import Route, native_pair
from cohort.studies.published import published_template
from cohort.studies.resample import resample_volume

GRID = Grid.axis_aligned((16, 18, 20), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))


def _sums(volumes: np.ndarray, displacements: np.ndarray, bins: int = 64) -> Sums:
    """Of volumes ``[N, D, H, W]`` and displacements ``[N, 3, D, H, W]``, as a run makes them."""
    count = len(volumes)
    weight = np.full(volumes.shape[1:], 256 * count)
    image = np.rint(volumes * UNIT).sum(axis=0) * 256
    moved = np.rint(displacements * UNIT).sum(axis=0) * 256
    if not bins:
        return Sums(np.stack([weight, image, *moved]).astype(np.int64), None,
                    {f"s{one}": 256 for one in range(count)})  # fmt: skip
    histogram = np.zeros((bins, *volumes.shape[1:]), np.int32)
    place = (volumes - RANGE[0]) / (RANGE[1] - RANGE[0]) * (bins - 1)
    below = np.floor(place).astype(int)
    above = np.rint((place - below) * 256).astype(int)
    for value, part in ((below, 256 - above), (below + 1, above)):
        for one, share in zip(value, part, strict=True):
            np.add.at(histogram, (one, *np.indices(one.shape)), share)
    fields = np.stack([weight, image, *moved]).astype(np.int64)
    return Sums(fields, histogram, {f"s{one}": 256 for one in range(count)})


@pytest.mark.parametrize(
    ("center", "expected"),
    [("mean", np.mean), ("median", np.median), ("trimmed", np.mean), ("huber", np.mean)],
)
def test_means_of_histograms_are_those_of_the_values(center: Center, expected) -> None:
    rng = np.random.default_rng(0)
    volumes = np.clip(rng.normal(0.5, 0.15, (400, 3, 3, 3)), 0, 1)
    found = mean_volume(_sums(volumes, np.zeros((400, 3, 3, 3, 3))), center)
    assert np.abs(found - expected(volumes, axis=0)).max() < 0.02


@pytest.mark.parametrize("center", ["median", "trimmed", "huber"])
def test_robust_means_are_not_moved_by_a_few_wrong_subjects(center: Center) -> None:
    volumes = np.full((20, 2, 2, 2), 0.4)
    volumes[:2] = 1.5
    sums = _sums(volumes, np.zeros((20, 3, 2, 2, 2)))
    assert mean_volume(sums, "mean").max() > 0.5
    assert np.abs(mean_volume(sums, center) - 0.4).max() < 0.03


def test_the_next_template_lies_where_the_mean_subject_does() -> None:
    """Everyone's anatomy lies 2 voxels further along the first axis."""
    blob = np.exp(-((np.indices(GRID.shape) - np.array([7, 9, 10])[:, None, None, None]) ** 2)
                  .sum(0) / 8)  # fmt: skip
    displacements = np.zeros((3, 3, *GRID.shape))
    displacements[:, 0] = 2
    sums = _sums(np.stack([blob] * 3), displacements, bins=0)
    found = next_template(sums, AtlasSettings(subjects=("s0", "s1", "s2")), GRID)
    assert np.unravel_index(found.volume.argmax(), GRID.shape) == (9, 9, 10)
    assert found.drift_voxels == pytest.approx(2, abs=1e-6)
    assert found.drift_mm == pytest.approx(4, abs=1e-6)
    assert found.left_voxels < 1e-3
    assert np.abs(found.inverse[0, 4:] + 2).max() < 1e-2


def test_a_template_that_moved_is_that_far_from_the_one_before() -> None:
    ramp = np.indices(GRID.shape)[0] / 32
    still = np.zeros((1, 3, *GRID.shape))
    found = next_template(_sums(ramp[None], still, bins=0), AtlasSettings(subjects=("s0",)), GRID)
    moved = movement(ramp + 0.2 / 32, found, GRID)  # it was 0.2 voxels before
    assert moved["moved_voxels"] == pytest.approx(0.2, rel=1e-3)
    assert moved["moved_mm"] == pytest.approx(0.4, rel=1e-3)
    assert movement(found.volume, found, GRID) == {"moved_voxels": 0.0, "moved_mm": 0.0}


@pytest.mark.slow
def test_passes_move_a_template_less_and_less(tmp_path: Path) -> None:
    """Though each finds a drift anew, of a method that finds one for everyone alike."""
    store = tiny_cohort(tmp_path / "cohort.zarr", subjects=4)
    settings = AtlasSettings(subjects=store.subject_ids, method=QUICK)
    document = build_template(Build(store, tmp_path / "out", settings), 5)
    moved = [one["moved_voxels"] for one in document["passes"]]
    assert moved[4] < 0.5 * moved[1] < 0.25 * moved[0]


def test_anatomy_at_the_border_of_the_grid_is_no_drift_that_is_left() -> None:
    slab = np.zeros(GRID.shape)
    slab[:4] = 1
    displacements = np.zeros((3, 3, *GRID.shape))
    displacements[:, 0] = 2  # the first two planes come from beyond the grid
    sums = _sums(np.stack([slab] * 3), displacements, bins=0)
    found = next_template(sums, AtlasSettings(subjects=("s0", "s1", "s2")), GRID)
    assert found.drift_voxels == pytest.approx(2, abs=1e-6)
    assert found.left_voxels < 1e-3


def test_mirror_images_make_sums_symmetric() -> None:
    rng = np.random.default_rng(0)
    sums = _sums(rng.random((2, 6, 4, 5)), rng.normal(size=(2, 3, 6, 4, 5)), bins=8)
    both = with_mirror_images(sums)
    mean, moved = mean_volume(both, "mean"), mean_displacement(both)
    assert (mean == mean[::-1]).all()
    assert (moved[0] == -moved[0, ::-1]).all()
    assert (moved[1:] == moved[1:, ::-1]).all()


def test_the_mean_of_alignments_is_removed_in_the_logarithm() -> None:
    rng = np.random.default_rng(0)
    linear = np.stack([expm(0.2 * rng.normal(size=(3, 3))) for _ in range(6)])
    weights = rng.random(6)
    found = unbiased(linear, weights)
    logs = np.stack([np.real(logm(one @ found)) for one in linear])
    assert np.abs(np.average(logs, axis=0, weights=weights)).max() < 1e-8
    mirror = np.diag([-1.0, 1.0, 1.0])
    same = mirrored_mean(found)
    assert np.allclose(mirror @ same @ mirror, same)


def test_a_larger_cohort_gets_a_larger_grid() -> None:
    shrink = np.diag([0.8, 0.8, 0.8, 1.0])  # template world to working world, about the centre
    onto = covering_grid(GRID, shrink)
    assert onto.spacing_mm == GRID.spacing_mm
    corners = GRID.voxel_to_world(GRID.corners()) / 0.8
    inside = onto.world_to_voxel(corners)
    assert (inside >= -1e-6).all()
    assert (inside <= np.array(onto.shape) - 1 + 1e-6).all()
    assert covering_grid(GRID, np.eye(4)).shape == GRID.shape


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> CohortStore:
    return tiny_cohort(tmp_path_factory.mktemp("store") / "cohort.zarr", subjects=5)


def _build(store: CohortStore, out: Path, subjects: int = 5, team: Team = PLAIN, **chosen):
    settings = AtlasSettings(subjects=store.subject_ids[:subjects], method=QUICK, **chosen)
    return Build(store, out, settings, team)


def _files(out: Path) -> dict[str, bytes]:
    """Everything that is published, by name."""
    found = sorted((out / "tpl-template").iterdir())
    return {path.name: path.read_bytes() for path in found}


@pytest.mark.slow
def test_a_template_has_the_same_bits_for_any_number_of_workers_and_after_a_stop(
    tmp_path: Path, store: CohortStore
) -> None:
    build_template(_build(store, tmp_path / "one"), 3)
    build_template(_build(store, tmp_path / "two", team=Team(2)), 3)
    assert _files(tmp_path / "two") == _files(tmp_path / "one")

    class Stop(Exception):
        pass

    def stop(number: int, facts: dict) -> None:
        raise Stop

    again = _build(store, tmp_path / "again")
    for _ in range(2):
        with pytest.raises(Stop):
            build_template(replace(again, on_pass=stop), 3)

    def stop_within(name: str, report: RunReport, pairs: int) -> None:
        if name == "pass 3" and report.already_done + report.pairs == 2:
            raise Stop

    with pytest.raises(Stop):
        build_template(replace(again, on_progress=stop_within), 3)
    assert len(part_names(tmp_path / "again" / "run")) == 1
    build_template(again, 3)
    assert _files(tmp_path / "again") == _files(tmp_path / "one")


@pytest.mark.slow
def test_more_iterations_go_on_from_those_that_are_there(
    tmp_path: Path, store: CohortStore
) -> None:
    build_template(_build(store, tmp_path / "one"), 3)
    for iterations in (1, 3):
        document = build_template(_build(store, tmp_path / "two"), iterations)
    assert _files(tmp_path / "two") == _files(tmp_path / "one")
    assert [one["pass"] for one in document["passes"]] == [1, 2, 3]
    assert build_template(_build(store, tmp_path / "two"), 2) == document


@pytest.mark.slow
def test_added_subjects_count_as_if_they_had_been_in_the_last_pass(
    tmp_path: Path, store: CohortStore
) -> None:
    start = store.subject_ids[0]
    whole = build_template(_build(store, tmp_path / "one", start=start), 1)
    part = _build(store, tmp_path / "two", subjects=3, start=start)
    build_template(part, 1)
    add_subjects(part, store.subject_ids[3:4])
    settings = load_settings(tmp_path / "two")
    assert settings is not None
    grown = add_subjects(replace(part, settings=settings), store.subject_ids[4:])
    assert _files(tmp_path / "two") == _files(tmp_path / "one")
    assert grown["registered"] == whole["registered"] == 5
    assert grown["passes"] == [pytest.approx(one, rel=1e-12) for one in whole["passes"]]
    # of a command that died before it wrote the page
    settings = load_settings(tmp_path / "two")
    assert settings is not None
    again = add_subjects(replace(part, settings=settings), store.subject_ids[4:])
    assert again["registered"] == 5
    assert _files(tmp_path / "two") == _files(tmp_path / "one")
    with pytest.raises(UsageError, match=r"sub-03: part of the template .* already"):
        add_subjects(_build(store, tmp_path / "two", start=start), store.subject_ids[3:4])


class _Killed(Exception):
    pass


def _killed(*_: object) -> None:
    raise _Killed


@pytest.mark.slow
@pytest.mark.parametrize("at", ["total_of", "save_settings", "publish"])
def test_an_addition_goes_on_wherever_it_was_killed(
    tmp_path: Path, store: CohortStore, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, newcomers = tmp_path / "out", store.subject_ids[3:4]
    start = store.subject_ids[0]
    build_template(_build(store, out, subjects=3, start=start), 1)
    build_template(_build(store, tmp_path / "whole", subjects=4, start=start), 1)
    with monkeypatch.context() as patch:
        patch.setattr(f"cohort.studies.atlas.build.{at}", _killed)
        with pytest.raises(_Killed):
            add_subjects(_build(store, out, subjects=3, start=start), newcomers)
    settings = load_settings(out)
    assert settings is not None
    add_subjects(Build(store, out, settings), newcomers)
    assert _files(out) == _files(tmp_path / "whole")
    assert load_settings(out) == settings.with_more(newcomers)


def test_a_stopped_addition_is_not_taken_for_another(tmp_path: Path, store: CohortStore) -> None:
    build = _build(store, tmp_path / "out", subjects=3)
    build_template(build, 1)
    with pytest.raises(_Killed):
        add_subjects(replace(build, on_progress=_killed), store.subject_ids[3:4])
    with pytest.raises(UsageError, match=r"sub-03 were being added .* remove .*run-added-1"):
        add_subjects(build, store.subject_ids[4:])
    for chosen in ({"center": "median"}, {"weights": {"sub-00": 2.0}}, {"subjects": 2}):
        other = _build(store, tmp_path / "out", **({"subjects": 3} | chosen))
        with pytest.raises(UsageError, match="E_PLAN_MISMATCH"):
            add_subjects(other, store.subject_ids[3:4])
    weighted = _build(store, tmp_path / "out", subjects=3, weights={"sub-03": 2.0})
    with pytest.raises(UsageError, match="E_PLAN_MISMATCH"):
        add_subjects(weighted, store.subject_ids[3:4])
    assert add_subjects(build, store.subject_ids[3:4])["registered"] == 4


def test_who_failed_can_be_mended_and_added(tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "cohort.zarr", subjects=4)
    whole = store.read("sub-02")
    damage(store, "sub-02")
    build = _build(store, tmp_path / "out", subjects=4, start="sub-00")
    build_template(build, 1)
    store.commit(whole, {"source": None})
    with pytest.raises(UsageError, match=r"E_RUN: .* is a pass of a template that is done"):
        run(tmp_path / "out" / "run", store, options=DriverOptions(retry_failed=True))
    document = add_subjects(build, ("sub-02",))
    assert document["registered"] == document["subjects"] == 4
    assert document["passes"][-1]["failed"] == 0
    table = pl.read_csv(tmp_path / "out" / "subjects.csv")
    assert table["status"].to_list() == ["ok"] * 4
    direct = _build(store, tmp_path / "direct", subjects=4, start="sub-00")
    build_template(direct, 1)
    assert _files(tmp_path / "out") == _files(tmp_path / "direct")


def test_damage_to_the_sums_of_a_pass_is_told_and_the_pass_done_again(
    tmp_path: Path, store: CohortStore
) -> None:
    out = tmp_path / "out"
    build_template(_build(store, out, subjects=3), 2)
    before = _files(out)
    shard = next(p for p in (out / "run/total.zarr").rglob("fields/c/**/*") if p.is_file())
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 0xFF
    shard.write_bytes(content)
    assert [one.code for one in verify(out / "run").findings] == ["E_SUMS"]
    (out / "template.json").unlink()
    with pytest.raises(StorageError, match=r"E_SUMS: .*Remove .*run: `cohort atlas`"):
        build_template(_build(store, out, subjects=3), 2)
    shutil.rmtree(out / "run")
    build_template(_build(store, out, subjects=3), 2)
    assert _files(out) == before


def test_what_the_run_holds_of_the_template_is_mended(tmp_path: Path, store: CohortStore) -> None:
    out = tmp_path / "out"
    build_template(_build(store, out, subjects=3), 1)
    (out / "run" / "template_field.npy").write_bytes(b"nothing")
    with pytest.raises(StorageError, match="mends it"):
        published_template(out / "run")
    build_template(_build(store, out, subjects=3), 1)
    assert published_template(out / "run") is not None


def test_two_at_once_are_refused(tmp_path: Path, store: CohortStore) -> None:
    out = tmp_path / "out"
    build_template(_build(store, out, subjects=3), 1)
    with only_driver(out), pytest.raises(RunActiveError, match="E_ACTIVE"):
        build_template(_build(store, out, subjects=3), 2)


def test_a_template_is_the_mean_of_its_subjects_as_its_transforms_bring_them(
    tmp_path: Path,
) -> None:
    native_run(tmp_path / "run")
    store = CohortStore.open(tmp_path / "run" / "cohort.zarr")
    out = tmp_path / "template"
    document = build_template(_build(store, out, subjects=len(store.subject_ids)), 2)
    published = published_template(out / "run")
    assert published is not None
    assert published.image == (out / document["image"]).absolute()
    workbench, mean = Workbench.open(out / "run"), np.zeros(published.grid.shape)
    for subject_id in store.subject_ids:
        pair = native_pair(workbench, Route("template", subject_id, kept=True))
        back = native_pair(workbench, Route("template", subject_id, inverse=True, kept=True))
        points = np.array([[0.0, 0.0, 0.0], [3.0, -2.0, 4.0]])
        there = pair.chain.map_points(points)
        assert np.abs(back.chain.map_points(there) - points).max() < 0.3
        native = load_native(SourceEntry(subject_id, pair.of.image))
        mean += resample_volume(native.volume, native.grid, pair.chain, published.grid)
    image = np.asarray(nib.load(published.image).dataobj)
    inside = image > image.mean()
    assert np.corrcoef(mean[inside], image[inside])[0, 1] > 0.98


def test_labels_are_shares_of_the_subjects(tmp_path: Path, store: CohortStore) -> None:
    out = tmp_path / "out"
    build_template(_build(store, out), 2)
    shares = nib.load(out / "tpl-template" / "tpl-template_probseg.nii.gz").get_fdata()
    labels = np.asarray(nib.load(out / "tpl-template" / "tpl-template_dseg.nii.gz").dataobj)
    assert shares.shape == (*store.grid.shape, 2)
    assert shares.max() == pytest.approx(1)
    assert shares.sum(axis=-1).max() < 1 + 2 / 255
    assert set(np.unique(labels)) == {0, 1, 2}
    certain = shares > 0.6
    assert (labels[certain[..., 0]] == 1).all()
    assert (labels[certain[..., 1]] == 2).all()
    names = (out / "tpl-template" / "tpl-template_dseg.tsv").read_text().splitlines()
    assert names == ["index\tname", "1\t1", "2\t2"]
    table = (out / "subjects.csv").read_text().splitlines()
    assert len(table) == 6


def test_a_broken_subject_is_left_out(tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "cohort.zarr", subjects=4)
    damage(store, "sub-02")
    document = build_template(_build(store, tmp_path / "out"), 2)
    assert (document["registered"], document["subjects"]) == (3, 4)
    assert document["passes"][0]["failed"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [
    {"center": "median"}, {"symmetric": True}, {"sharpen": 0.5},
    {"start": "medoid"}, {"weights": {"sub-01": 3.0, "sub-02": 0.0}},
], ids=str)  # fmt: skip
def test_what_can_be_chosen_changes_the_template(
    tmp_path: Path, store: CohortStore, chosen: dict
) -> None:
    build_template(_build(store, tmp_path / "plain"), 2)
    build_template(_build(store, tmp_path / "chosen", **chosen), 2)
    image = "tpl-template_T1w.nii.gz"
    assert _files(tmp_path / "chosen")[image] != _files(tmp_path / "plain")[image]


def test_passes_on_coarser_grids_come_first(tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "cohort.zarr", 3, (32, 34, 36))
    document = build_template(_build(store, tmp_path / "out", 3, shrink=(2,)), 2)
    assert [one["shrink"] for one in document["passes"]] == [2, 1]
    image = nib.load(tmp_path / "out" / document["image"])
    assert image.shape == (32, 34, 36)


@pytest.mark.slow
def test_more_iterations_than_were_asked_for_follow_a_last_pass_on_the_whole_grid(
    tmp_path: Path,
) -> None:
    store = tiny_cohort(tmp_path / "cohort.zarr", 3, (32, 34, 36))
    build = _build(store, tmp_path / "out", 3, shrink=(2,))
    build_template(build, 1)
    document = build_template(build, 2)
    assert [one["shrink"] for one in document["passes"]] == [1, 1]


def test_a_pass_that_was_left_for_fewer_iterations_is_not_in_the_way(
    tmp_path: Path, store: CohortStore
) -> None:
    class Stop(Exception):
        pass

    def stop(name: str, report: RunReport, pairs: int) -> None:
        if name == "pass 2":
            raise Stop

    build = _build(store, tmp_path / "out", 2)
    with pytest.raises(Stop):
        build_template(replace(build, on_progress=stop), 3)
    build_template(build, 2)
    assert len(build_template(build, 3)["passes"]) == 3


def test_the_start_holds_as_many_sums_as_workers(
    store: CohortStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs_of = []

    def in_one(work, jobs, workers):
        jobs_of.append(len(jobs))
        return map(work, jobs)

    monkeypatch.setattr("cohort.studies.atlas.start.in_processes", in_one)
    settings = AtlasSettings(subjects=store.subject_ids, method=QUICK)
    found = [stationary_sums(store, settings, workers) for workers in (1, 2, 9)]
    assert jobs_of == [1, 2, 5]
    assert all((one.fields == found[0].fields).all() for one in found)
    assert all(one.subjects.keys() == set(store.subject_ids) for one in found)


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (0.0, "add up to 0"),
        (0.001, "smallest that counts is 1/256"),
        (float("inf"), "finite"),
        (3e6, "less than"),
    ],
)
def test_weights_that_could_not_be_added_are_refused(weight: float, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        AtlasSettings(subjects=("a", "b"), weights={"a": weight, "b": weight})


@pytest.mark.parametrize("name", ["SUB-00", "con", "end."])
def test_a_name_that_no_template_can_have_is_refused_before_anything_is_written(
    tmp_path: Path, store: CohortStore, name: str
) -> None:
    with pytest.raises(UsageError, match="E_ATLAS"):
        build_template(_build(store, tmp_path / "out", name=name), 1)
    assert not (tmp_path / "out").exists()


def test_a_symmetric_template_is_its_own_mirror_image(tmp_path: Path, store: CohortStore) -> None:
    build_template(_build(store, tmp_path / "out", symmetric=True), 2)
    image = np.asarray(nib.load(tmp_path / "out/tpl-template/tpl-template_T1w.nii.gz").dataobj)
    assert np.abs(image - image[::-1]).max() < 0.02


def test_the_medoid_looks_most_like_the_others(store: CohortStore) -> None:
    volumes = [store.read(one).volume.ravel() for one in store.subject_ids]
    likest = store.subject_ids[int(np.corrcoef(volumes).mean(axis=1).argmax())]
    assert medoid(store, store.subject_ids) == likest


def test_a_start_that_cannot_be_used_leaves_the_folder_to_a_better_one(
    tmp_path: Path, store: CohortStore
) -> None:
    (tmp_path / "start.nii.gz").write_text("no image")
    with pytest.raises(UsageError, match="E_NOT_NIFTI"):
        build_template(_build(store, tmp_path / "out", start=str(tmp_path / "start.nii.gz")), 1)
    assert build_template(_build(store, tmp_path / "out"), 1)["subjects"] == 5


def test_another_template_in_the_folder_is_refused(tmp_path: Path, store: CohortStore) -> None:
    out = tmp_path / "out"
    build_template(_build(store, out), 1)
    with pytest.raises(UsageError, match=r"E_PLAN_MISMATCH: .*center was mean, now median"):
        build_template(_build(store, out, center="median"), 1)
    with pytest.raises(UsageError, match=r"subjects differ by sub-04"):
        build_template(_build(store, out, subjects=4), 1)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(UsageError, match=r"file is a file; need a new or an empty folder"):
        build_template(_build(store, tmp_path / "other" / "file"), 1)
    for none in (0, None):
        with pytest.raises(UsageError, match=f"E_ATLAS: iterations is {none}; need 1 or more"):
            build_template(_build(store, tmp_path / "new"), none)  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()
    with pytest.raises(UsageError, match=r"is no template and not empty"):
        build_template(_build(store, tmp_path / "other"), 1)
    (out / "atlas.json").write_text("{}")
    with pytest.raises(StorageError, match=r"E_ATLAS: .*damaged"):
        load_settings(out)


@pytest.mark.slow
def test_the_command_says_what_it_made_and_refuses_what_is_not_there(
    cohort: Cohort, tmp_path: Path, store: CohortStore
) -> None:
    common = ("atlas", str(store.path), str(tmp_path / "out"), "--workers", "0", "--set",
              "features=intensity", "--set", "levels=2", "--set", "solves=[1]", "--set",
              "couplings=0.1,1.0")  # fmt: skip
    made = cohort(*common, "--iterations", "2", "--subjects", "sub-00,sub-01,sub-02", "--json")
    assert made.code == 0
    document = json.loads(made.out)
    assert document["subjects"] == 3
    added = cohort(*common, "--add", "sub-03")
    assert added.code == 0
    assert "4 of 4" in added.out
    refused = cohort("atlas", str(store.path), str(tmp_path / "x"), "--subjects", "nobody")
    assert refused.code == 2
    assert "E_SUBJECTS" in refused.err
    refused = cohort("atlas", str(store.path), str(tmp_path / "x"), "--start", "nobody")
    assert refused.code == 2
    assert "E_ATLAS" in refused.err
    refused = cohort(
        "atlas", str(store.path), str(tmp_path / "x"), "--center", "huber", "--normalise", "none"
    )
    assert refused.code == 2
    assert "needs normalise=range" in refused.err
    refused = cohort("atlas", str(store.path), str(tmp_path / "x"), "--center", "middle")
    assert "center: Input should be 'mean'" in refused.err
    assert "got 'middle'" in refused.err
    (tmp_path / "text.csv").write_text("subject,weight\nsub-00,heavy\n")
    (tmp_path / "bare.csv").write_text("subject\nsub-00\n")
    for file, said in (("text", "a number in each row"), ("bare", "there is no 'weight'")):
        weights = tmp_path / f"{file}.csv"
        refused = cohort("atlas", str(store.path), str(tmp_path / "x"), "--weights", weights)
        assert said in refused.err
    (tmp_path / "twice.csv").write_text("subject,weight\nsub-00,1\nsub-00,2\n")
    wrong = (
        ("--weights", tmp_path / "twice.csv"),
        ("--shrink", "99"),
        ("--name", "../up"),
        ("--suffix", "a/b"),
        ("--name", "sub-00"),
    )
    for option, value in wrong:
        refused = cohort("atlas", str(store.path), str(tmp_path / "x"), option, value)
        assert refused.code == 2
        assert not (tmp_path / "x").exists()
