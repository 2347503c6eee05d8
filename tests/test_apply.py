"""`cohort apply`: the right way round, onto the right grid, and what is refused."""

import shutil
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import polars as pl
import pytest
import torch
from command_line import Cohort
from helpers import pretend_a_card, tiny_cohort
from native_cohort import GRIDS, native_run
from small_run import damage, planned

from cohort.data.store import CohortStore
from cohort.engine.workbench import Workbench
from cohort.studies.apply import Task
from cohort.studies.apply_to_all import RECORD, apply_to_all
from cohort.studies.native_space import Route, native_pair
from triton_reg import Displacement, Result

A, B, C = GRIDS


class Run(NamedTuple):
    folder: Path
    workbench: Workbench

    @property
    def path(self) -> Path:
        return self.workbench.run_dir

    def image(self, role: str, subject_id: str) -> Path:
        return self.folder / "nifti" / role / f"{subject_id}.nii.gz"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("apply")
    return Run(folder, native_run(folder))


@pytest.fixture
def points(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Points of A around the middle of its body, RAS mm."""
    shifts = np.random.default_rng(0).uniform(-20, 20, (30, 3))
    points_mm = GRIDS[A].center_mm + shifts
    path = tmp_path / "points.csv"
    pl.DataFrame(points_mm, schema=["x", "y", "z"]).write_csv(path)
    return path, points_mm


def read_table(path: Path) -> tuple[np.ndarray, set[tuple[str, str]]]:
    found = pl.read_csv(path)
    return found.select("x", "y", "z").to_numpy(), set(found.select("from", "to").rows())


def overlap(found: np.ndarray, expected: np.ndarray, label: int) -> float:
    here, there = found == label, expected == label
    return 2 * float((here & there).sum()) / float(here.sum() + there.sum())


def test_labels_arrive_on_the_grid_of_the_fixed_file(
    cohort: Cohort, run: Run, tmp_path: Path
) -> None:
    pair = ("--fixed", A, "--moving", B, "--labels", run.image("labels", B))
    shown = cohort("apply", run.path, *pair, "--out", tmp_path / "l.nii.gz", "--json").json
    assert shown["direction"] == f"resamples images of {B} onto {A} and maps points of {A} to {B}"
    found, own = nib.load(tmp_path / "l.nii.gz"), nib.load(run.image("labels", A))
    assert found.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(found.affine, own.affine)
    # the bodies differ by a tenth in size; swapped or flipped axes would overlap far less
    assert overlap(found.get_fdata(), own.get_fdata(), 1) > 0.85
    assert overlap(found.get_fdata(), own.get_fdata(), 2) > 0.7
    assert overlap(found.get_fdata(), own.get_fdata(), 3) > 0.7
    assert found.header["descrip"].item().decode() == f"{B} resampled onto {A}"
    left = next(row for row in shown["volumes"] if row["name"] == "left")
    voxels = np.count_nonzero(found.get_fdata() == 2)
    assert (left["label"], left["voxels"]) == (2, voxels)
    assert left["volume_mm3"] == pytest.approx(voxels * 60, rel=1e-4)


def test_labels_of_64_bits_are_written_in_32_which_other_tools_read(
    cohort: Cohort, run: Run, tmp_path: Path
) -> None:
    stored = nib.load(run.image("labels", B))
    wide = nib.Nifti1Image(np.asarray(stored.dataobj).astype(np.int64), stored.affine, dtype="i8")
    nib.save(wide, tmp_path / "wide.nii.gz")
    pair = ("--fixed", A, "--moving", B, "--labels", tmp_path / "wide.nii.gz")
    assert cohort("apply", run.path, *pair, "--out", tmp_path / "l.nii.gz").code == 0
    assert nib.load(tmp_path / "l.nii.gz").get_data_dtype() == np.int32


def test_names_say_what_a_file_is() -> None:
    labels, points = Task("labels", Path("x/IXI.01.nii.gz")), Task("points", Path("x/tips.v2.csv"))
    assert labels.default_name(onto=A, of=B) == f"IXI.01_labels_on_{A}.nii.gz"
    assert points.default_name(onto=A, of=B) == f"tips.v2_in_{B}.csv"


def test_linear_labels_hold_the_volume_of_small_structures(
    cohort: Cohort, run: Run, tmp_path: Path
) -> None:
    pair = ("--fixed", A, "--moving", B, "--labels", run.image("labels", B))
    linear = ("--interpolation", "linear", "--out", tmp_path / "linear.nii.gz")
    cohort("apply", run.path, *pair, *linear)
    cohort("apply", run.path, *pair, "--out", tmp_path / "nearest.nii.gz")
    found, near = (
        np.asarray(nib.load(tmp_path / f"{name}.nii.gz").dataobj) for name in ("linear", "nearest")
    )
    assert set(np.unique(found)) == {0, 1, 2, 3}
    assert 0 < np.mean(found != near) < 0.05


def test_the_inverse_brings_the_fixed_image_onto_the_moving_file(
    cohort: Cohort, run: Run, tmp_path: Path
) -> None:
    pair = ("--fixed", A, "--moving", B, "--inverse", "--labels", run.image("labels", A))
    shown = cohort("apply", run.path, *pair, "--out", tmp_path / "l.nii.gz")
    assert f"resamples images of {A} onto {B}" in shown.out
    assert "by the inverted displacement" in shown.out
    assert "back and forth leaves 0.0" in shown.out
    found, own = nib.load(tmp_path / "l.nii.gz"), nib.load(run.image("labels", B))
    np.testing.assert_array_equal(found.affine, own.affine)
    assert overlap(found.get_fdata(), own.get_fdata(), 2) > 0.7


def test_points_go_there_and_back(cohort: Cohort, run: Run, points, tmp_path: Path) -> None:
    path, points_mm = points
    pair = ("--fixed", A, "--moving", B)
    cohort("apply", run.path, *pair, "--points", path, "--out", tmp_path / "there.csv")
    there, direction = read_table(tmp_path / "there.csv")
    assert direction == {(A, B)}
    # from around the one body to around the other
    moved = (there - GRIDS[B].center_mm) - (points_mm - GRIDS[A].center_mm)
    assert np.linalg.norm(moved, axis=1).max() < 8
    back = ("--inverse", "--points", tmp_path / "there.csv", "--out", tmp_path / "back.csv")
    left = cohort("apply", run.path, *pair, *back, "--json").json["inverse_residual_voxels"]
    again, direction = read_table(tmp_path / "back.csv")
    assert direction == {(B, A)}
    # the residual, and what linear interpolation of two fields differs by
    away_voxels = np.linalg.norm(again - points_mm, axis=1) / 4
    assert away_voxels.max() < left[0] + 0.05
    assert away_voxels.mean() < 0.01


def test_chains_of_a_card_are_arrays(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    still = Displacement(torch.zeros(1, 3, 5, 5, 5), (26, 26, 26), (26, 26, 26))
    monkeypatch.setattr(run.workbench, "register", lambda *_: Result(still))
    pretend_a_card(monkeypatch)
    assert native_pair(run.workbench, Route(A, B)).chain.fields


def test_points_through_a_third_subject_are_those_of_both_pairs(
    cohort: Cohort, run: Run, points, tmp_path: Path
) -> None:
    path, points_mm = points
    pair = ("--fixed", A, "--moving", B, "--via", C, "--points", path)
    shown = cohort("apply", run.path, *pair, "--out", tmp_path / "p.csv", "--json").json
    assert shown["direction"].endswith(f"maps points of {A} to {B} through {C}")
    chains = [native_pair(run.workbench, Route(*pair)).chain for pair in ((A, C), (C, B))]
    expected = chains[1].map_points(chains[0].map_points(points_mm))
    np.testing.assert_allclose(read_table(tmp_path / "p.csv")[0], expected, atol=1e-9)


@pytest.mark.parametrize("moving_shape", [(13, 13, 13), (26, 26, 26)])
def test_a_displacement_on_a_coarser_grid_is_in_that_grids_voxels(
    run: Run, monkeypatch: pytest.MonkeyPatch, moving_shape
) -> None:
    """Corner voxels stay corner voxels: 25 steps of 4 mm are 12 steps of 100 / 12 mm."""
    moved = torch.tensor([1.0, 0.0, -2.0]).view(1, 3, 1, 1, 1).expand(1, 3, 5, 5, 5)
    displacement = Displacement(moved, (13, 13, 13), moving_shape)
    monkeypatch.setattr(run.workbench, "register", lambda *_: Result(displacement))
    chain = native_pair(run.workbench, Route(A, B)).chain
    points_mm = GRIDS[A].center_mm + np.zeros((1, 3))
    away_mm = chain.map_points(points_mm) - (points_mm + chain.alignment[:3, 3])
    voxel_mm = 100 / (moving_shape[0] - 1)
    np.testing.assert_allclose(away_mm, [[voxel_mm, 0, -2 * voxel_mm]], atol=1e-4)


def test_voxels_of_the_one_file_become_voxels_of_the_other(
    cohort: Cohort, run: Run, tmp_path: Path
) -> None:
    voxels = np.array([[15.0, 12.0, 9.0], [16.5, 11.0, 10.0]])
    pl.DataFrame(voxels, schema=["i", "j", "k"]).write_csv(tmp_path / "v.csv")
    pair = ("--fixed", A, "--moving", B, "--points", tmp_path / "v.csv")
    cohort("apply", run.path, *pair, "--out", tmp_path / "o.csv")
    chain = native_pair(run.workbench, Route(A, B)).chain
    expected = GRIDS[B].world_to_voxel(chain.map_points(GRIDS[A].voxel_to_world(voxels)))
    found = pl.read_csv(tmp_path / "o.csv").select("i", "j", "k").to_numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_like_gives_the_grid_as_that_file_has_it(cohort: Cohort, run: Run, tmp_path: Path) -> None:
    pair = ("--fixed", A, "--moving", B, "--volume", run.image("images", B))
    like = tmp_path / "like.nii"
    grid = GRIDS[A]
    turned = grid.affine @ np.array([[0, 0, -1.5, 20], [2, 0, 0, 1], [0, 1, 0, 3], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(np.zeros((5, 6, 7), np.int16), turned), like)
    cohort("apply", run.path, *pair, "--like", like, "--out", tmp_path / "v.nii")
    cohort("apply", run.path, *pair, "--out", tmp_path / "own.nii")
    found, own = (np.asarray(nib.load(tmp_path / name).dataobj) for name in ("v.nii", "own.nii"))
    np.testing.assert_allclose(nib.load(tmp_path / "v.nii").affine, turned, atol=1e-5)
    # voxel (i, j, 0) of the one grid is voxel (20, 2 i + 1, j + 3) of the other
    np.testing.assert_allclose(found[:5, :6, 0], own[20, 1:11:2, 3:9], atol=0.01)


def test_atlas_labels_arrive_on_every_subject_with_a_table_of_volumes(
    cohort: Cohort, run: Run, tmp_path: Path
) -> None:
    atlas = planned(tmp_path / "atlas_run", run.workbench.store, f"atlas:{B}")
    out = ("--labels", run.image("labels", B), "--out", tmp_path / "out")
    shown = cohort("apply", atlas, *out)
    assert shown.code == 0
    assert shown.out.count("resamples images of") == 2
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    images = [f"{B}_labels_on_{A}.nii.gz", f"{B}_labels_on_{C}.nii.gz"]
    assert written == sorted([*images, "applied.jsonl", "volumes.csv"])
    volumes = pl.read_csv(tmp_path / "out" / "volumes.csv")
    assert volumes.columns == ["subject", "label", "name", "voxels", "volume_mm3"]
    assert volumes["subject"].to_list() == [A] * 3 + [C] * 3
    assert volumes["name"].to_list() == ["body", "left", "right"] * 2
    found = np.asarray(nib.load(tmp_path / "out" / f"{B}_labels_on_{C}.nii.gz").dataobj)
    (row,) = volumes.filter(subject=C, label=3).to_dicts()
    assert row["voxels"] == np.count_nonzero(found == 3)
    assert row["volume_mm3"] == pytest.approx(45 * row["voxels"], rel=1e-4)


def test_an_atlas_from_outside_the_cohort_is_applied_like_a_subject(
    cohort: Cohort, run: Run, tmp_path: Path
) -> None:
    image = shutil.copy(run.image("images", B), tmp_path / "atlas.nii.gz")
    atlas = planned(tmp_path / "run", run.workbench.store, f"atlas:{image}")
    labels = ("--labels", run.image("labels", B), "--fixed", A, "--out", tmp_path / "l.nii.gz")
    shown = cohort("apply", atlas, *labels)
    assert f"resamples images of atlas onto {A}" in shown.out
    found, own = (nib.load(path) for path in (tmp_path / "l.nii.gz", run.image("labels", A)))
    assert overlap(found.get_fdata(), own.get_fdata(), 2) > 0.7


def test_a_stopped_command_goes_on_and_another_is_refused(
    cohort: Cohort, run: Run, tmp_path: Path
) -> None:
    atlas = planned(tmp_path / "atlas_run", run.workbench.store, f"atlas:{B}")
    labels, out = run.image("labels", B), tmp_path / "out"
    given = Workbench.open(atlas), [(A, B), (C, B)], Task("labels", labels), out

    def stop(done: int, total: int, failed: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply_to_all(*given, stop)
    first = out / f"{B}_labels_on_{A}.nii.gz"
    with (out / RECORD).open("a") as record:
        record.write('{"fixed": ')  # where a machine stopped
    stamp = first.stat().st_mtime_ns
    found = apply_to_all(*given)
    assert first.stat().st_mtime_ns == stamp
    assert set(found.done) == {A, C}
    whole = apply_to_all(*given[:3], tmp_path / "whole")
    assert found.done[A].direction == whole.done[A].direction
    same = ((one / "volumes.csv").read_bytes() for one in (out, tmp_path / "whole"))
    assert next(same) == next(same)
    first.unlink()  # by whoever did not like it
    assert apply_to_all(*given).done.keys() == found.done.keys()
    assert first.is_file()
    shown = cohort("apply", atlas, "--labels", labels, "--interpolation", "linear", "--out", out)
    assert shown.code == 2
    assert "holds what came of another file or run" in shown.err


def test_a_subject_that_fails_leaves_the_others(cohort: Cohort, run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    workbench = native_run(folder)
    atlas = planned(tmp_path / "run", workbench.store, f"atlas:{B}")
    damage(workbench.store, A)
    labels = folder / "nifti" / "labels" / f"{B}.nii.gz"
    shown = cohort("apply", atlas, "--labels", labels, "--out", tmp_path / "out", "--json")
    assert shown.code == 1
    assert list(shown.json["done"]) == [C]
    assert "E_CORRUPT" in shown.json["failed"][A]
    assert pl.read_csv(tmp_path / "out" / "volumes.csv")["subject"].unique().to_list() == [C]


@pytest.mark.parametrize(
    ("error", "said"),
    [(ValueError("no contrast"), "E_METHOD: ValueError: no contrast"), (MemoryError(), "E_METHOD")],
    ids=["method", "memory"],
)
def test_a_pair_on_which_the_method_raises_leaves_the_others(
    cohort: Cohort, run: Run, tmp_path: Path, monkeypatch, error: Exception, said: str
) -> None:
    atlas = planned(tmp_path / "atlas_run", run.workbench.store, f"atlas:{B}")
    register = Workbench.register

    def register_others(self: Workbench, fixed: str, moving: str) -> Result:
        if fixed == A:
            raise error
        return register(self, fixed, moving)

    monkeypatch.setattr(Workbench, "register", register_others)
    out = ("--labels", run.image("labels", B), "--out", tmp_path / "out")
    shown = cohort("apply", atlas, *out, "--json")
    assert shown.code == 1
    assert list(shown.json["done"]) == [C]
    assert shown.json["failed"][A].startswith(said)


def test_points_of_an_atlas_arrive_in_every_subject(
    cohort: Cohort, run: Run, points, tmp_path: Path
) -> None:
    atlas = planned(tmp_path / "run", run.workbench.store, f"atlas:{A}")
    out = ("--points", points[0], "--inverse", "--out", tmp_path / "out")
    assert cohort("apply", atlas, *out).code == 0
    _, direction = read_table(tmp_path / "out" / f"points_in_{C}.csv")
    assert direction == {(A, C)}


LABELS = ("--labels", "{labels}")
PAIR = ("--fixed", A, "--moving", B)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (PAIR, 2, "need one of --volume, --labels and --points, got none"),
        ((*PAIR, *LABELS, "--volume", "{labels}"), 2, "got --volume, --labels"),
        ((*PAIR, *LABELS, "--interpolation", "cubic"), 2, "'cubic'; need nearest or linear"),
        ((*PAIR, "--volume", "x.nii", "--interpolation", "linear"), 2, "is for --labels"),
        ((*PAIR, "--points", "p.csv", "--like", "x.nii"), 2, "points have no grid"),
        ((*PAIR, *LABELS, "--out", "{labels}"), 2, "is there already; need the name of a new one"),
        (("--fixed", A, "--moving", A, *LABELS), 2, "need two subjects, got 'sub-a1' as both"),
        (("--fixed", "x", "--moving", A, *LABELS), 2, "no subject 'x'; it has sub-a1, sub-b2"),
        (("--fixed", A, *LABELS), 2, "need a moving subject of the run, sub-a1, sub-b2, sub-c3;"),
        (("--moving", B, *LABELS, "--inverse"), 2, "need --fixed with --via, --like, images of"),
        (("--moving", B, "--points", "p.csv"), 2, "points of the fixed subject"),
        ((*PAIR, *LABELS, "--out", "{labels}.mha"), 2, "labels need a name in .nii.gz or .nii"),
        ((*PAIR, *LABELS, "--out", "{labels}/l.nii"), 2, "is no folder; need one to put l.nii"),
        ((*PAIR, *LABELS, "--inverse"), 2, f"is the labels of {B}; need labels of {A}. --inverse"),
        (("--moving", A, *LABELS), 2, f"is the labels of {B}; need labels of {A}."),
        ((*PAIR, "--labels", "{images}"), 1, "E_LABEL_VALUES"),
        ((*PAIR, "--labels", "nothing.nii"), 1, "nothing.nii"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_sentence(
    cohort: Cohort, run: Run, tmp_path: Path, arguments, code: int, message: str
) -> None:
    places = {"labels": run.image("labels", B), "images": run.image("images", B)}
    said = [one.format(**places) for one in arguments]
    if "--out" not in said:
        said += ["--out", str(tmp_path / "out.nii.gz")]
    shown = cohort("apply", run.path, *said)
    assert shown.code == code
    assert message in shown.err
    assert not list(tmp_path.iterdir())


def test_a_subject_without_a_file_has_no_native_space(cohort: Cohort, tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "cohort.zarr", 2)
    run_dir = planned(tmp_path / "run", CohortStore.open(store.path))
    pair = ("--fixed", "sub-00", "--moving", "sub-01", "--points", tmp_path / "p.csv")
    shown = cohort("apply", run_dir, *pair, "--out", tmp_path / "out.csv")
    assert shown.code == 1
    assert "E_NATIVE: the record of sub-00 says nothing of a file" in shown.err
