"""Tensor-based morphometry: maps, designs, statistics, volumes, and that they can be believed."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import polars as pl
import pytest
from command_line import Cohort
from helpers import tiny_cohort
from native_cohort import native_run
from scipy.stats import linregress
from small_run import QUICK, damage

from cohort.config.atlas import AtlasSettings
from cohort.data.geometry import Grid
from cohort.data.store import CohortStore
from cohort.engine.lock import only_driver
from cohort.engine.workbench import Workbench
from cohort.errors import RunActiveError, StorageError, SubjectError, UsageError
from cohort.studies.atlas.build import add_subjects, build_template
from cohort.studies.atlas.one_pass import Build
from cohort.studies.atlas.settings import load_settings
from cohort.studies.chain import slabs
from cohort.studies.morphometry import MorphometrySettings, measure_volume_changes
from cohort.studies.morphometry_design import Design, intercept_alone, read_design
from cohort.studies.morphometry_maps import FWHM_OF_SIGMA, smoothed
from cohort.studies.morphometry_space import TemplateSpace
from cohort.studies.morphometry_statistic import t_maps
from cohort.studies.native_space import Route, native_pair
from cohort.studies.nifti_images import read_volumes, write_volumes

WHO = ("sub-00", "sub-01", "sub-02", "sub-03", "sub-04")
PLAIN = MorphometrySettings(fwhm_mm=4)


def template(store: CohortStore, out: Path, subjects: int | None = None) -> Path:
    settings = AtlasSettings(subjects=store.subject_ids[:subjects], method=QUICK)
    build_template(Build(store, out, settings), 2)
    return out


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A template of five subjects with labels."""
    folder = tmp_path_factory.mktemp("template")
    return template(tiny_cohort(folder / "cohort.zarr", subjects=5), folder / "out")


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    """That template, to write beside."""
    return shutil.copytree(made, tmp_path / "out")


def files(out: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in sorted((out / "morphometry").iterdir())}


def values(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def table(path: Path, **columns: object) -> Path:
    pl.DataFrame({"subject": WHO, **columns}).write_csv(path)
    return path


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.slow
def test_maps_and_volumes_are_those_of_the_whole_way_to_the_subject(
    tmp_path: Path, affine: bool
) -> None:
    native_run(tmp_path / "run", align="affine")
    store = CohortStore.open(tmp_path / "run" / "cohort.zarr")
    out = template(store, tmp_path / "out")
    facts = measure_volume_changes(out, MorphometrySettings(affine=affine, fwhm_mm=0))
    mask = values(out / "morphometry" / "mask.nii.gz") > 0
    labels = values(out / "tpl-template" / "tpl-template_dseg.nii.gz")
    grid = Grid(mask.shape, nib.load(out / "morphometry" / "mask.nii.gz").affine)
    table = pl.read_csv(out / "morphometry" / "volumes.csv")
    workbench = Workbench.open(out / "run")
    maps = read_volumes(out / "morphometry" / "logjacobian.nii.gz")
    for subject_id, found in zip(facts["subjects"], maps, strict=True):
        chain = native_pair(workbench, Route("template", subject_id, kept=True)).chain
        voxels = np.concatenate([one for _, one in slabs(grid.shape)], axis=1)
        determinant = chain.determinant(voxels, start=grid).reshape(grid.shape)
        linear = np.linalg.det(chain.alignment[:3, :3])
        expected = np.log(determinant if affine else determinant / linear)
        assert np.abs(found - expected)[mask].max() < 1e-5
        assert (found[~mask] == 0).all()
        row = table.filter(subject=subject_id, structure=1).row(0, named=True)
        assert row["name"] == "body"
        assert row["volume_mm3"] == pytest.approx(determinant[labels == 1].sum() * 64, rel=1e-5)
        assert row["template_mm3"] == (labels == 1).sum() * 64
        assert row["mean_log_jacobian"] == pytest.approx(expected[labels == 1].mean(), abs=1e-5)
    assert facts["affine"] is affine


def test_who_was_registered_in_a_later_run_did_not_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {
        "run": pl.DataFrame({"moving": ["a", "b", "c"], "status": ["ok", "E_METHOD", "E_OOM"]}),
        "run-2": pl.DataFrame({"moving": ["b"], "status": ["ok"]}),
    }
    module = "cohort.studies.morphometry_space"
    monkeypatch.setattr(f"{module}.load_settings", lambda _: None)
    monkeypatch.setattr(f"{module}.runs_of", lambda _: [Path(name) for name in rows])
    published = SimpleNamespace(image=tmp_path / "tpl_T1w.nii.gz")
    monkeypatch.setattr(f"{module}._published", lambda *_: published)
    monkeypatch.setattr(f"{module}.RunSpec.load", lambda _: SimpleNamespace(store="s"))
    monkeypatch.setattr(
        f"{module}.read_rows", lambda one: rows[one.name].with_columns(message=pl.lit("why"))
    )
    space = TemplateSpace.open(tmp_path)
    assert space.subjects == {"a": Path("run"), "b": Path("run-2")}
    assert space.failed == {"c": "why"}


def test_smoothing_keeps_a_constant_and_has_the_width_that_is_asked_for() -> None:
    grid = Grid.axis_aligned((41, 21, 21), (1.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    mask = np.zeros(grid.shape, dtype=bool)
    mask[1:-1, 3:, 3:] = True
    mask[10:12, 5:9] = False
    found = smoothed(np.where(mask, 0.3, 99.0), mask, grid, 8.0)
    assert np.abs(found[mask] - 0.3).max() < 1e-12
    assert (found[~mask] == 0).all()
    point = np.zeros(grid.shape)
    point[20, 10, 10] = 1
    spread = smoothed(point, np.ones(grid.shape, dtype=bool), grid, 8.0)
    assert spread[24, 10, 10] / spread[20, 10, 10] == pytest.approx(0.5, abs=1e-3)  # 4 mm away
    assert spread[20, 12, 10] / spread[20, 10, 10] == pytest.approx(0.5, abs=1e-3)
    assert pytest.approx(2.3548, abs=1e-4) == FWHM_OF_SIGMA


@pytest.mark.slow
def test_the_files_have_the_same_bytes_for_any_number_of_workers_and_after_a_stop(
    out: Path, tmp_path: Path
) -> None:
    design = table(tmp_path / "d.csv", age=[30, 41, 52, 60, 75])
    settings = MorphometrySettings(fwhm_mm=4, design=design)
    again = shutil.copytree(out, tmp_path / "again")
    measure_volume_changes(out, settings, workers=2)

    class Stop(Exception):
        pass

    def stop(done: int, all_: int) -> None:
        if done == 2:
            raise Stop

    with pytest.raises(Stop):
        measure_volume_changes(again, settings, progress=stop)
    (work,) = (again / "morphometry" / "work").iterdir()
    assert len(list(work.iterdir())) == 2
    seen = []
    measure_volume_changes(again, settings, progress=lambda done, all_: seen.append(done))
    assert seen == [3, 4, 5]
    assert files(again) == files(out)
    names = set(files(out))
    assert names == {
        "logjacobian.nii.gz", "mask.nii.gz", "subjects.txt", "volumes.csv", "morphometry.json",
        "design.mat", "design.con", "design.json", "tstat-age.nii.gz",
    }  # fmt: skip


def test_another_design_makes_no_map_anew_and_another_width_does(out: Path, tmp_path: Path) -> None:
    measure_volume_changes(out, PLAIN)
    before = files(out)
    design = table(tmp_path / "d.csv", group=[0, 0, 1, 1, 1])
    seen: list[int] = []
    facts = measure_volume_changes(
        out,
        MorphometrySettings(fwhm_mm=4, design=design),
        progress=lambda done, all_: seen.append(done),
    )
    assert (seen, facts["columns"]) == ([], ["intercept", "group"])
    assert files(out)["logjacobian.nii.gz"] == before["logjacobian.nii.gz"]
    assert (out / "morphometry" / "tstat-group.nii.gz").exists()
    facts = measure_volume_changes(out, MorphometrySettings(fwhm_mm=6))
    assert files(out)["logjacobian.nii.gz"] != before["logjacobian.nii.gz"]
    assert not (out / "morphometry" / "tstat-group.nii.gz").exists()
    assert facts["sigma_mm"] == pytest.approx(6 / 2.3548, abs=1e-3)


def test_a_mask_of_ones_own_says_where_to_look(out: Path, tmp_path: Path) -> None:
    everywhere = measure_volume_changes(out, PLAIN)["mask"]["voxels"]
    image = nib.load(out / "tpl-template" / "tpl-template_T1w.nii.gz")
    drawn = np.zeros(image.shape, dtype=np.uint8)
    drawn[10:14, 10:15, 10:16] = 1
    path = tmp_path / "drawn.nii.gz"
    nib.save(nib.Nifti1Image(drawn, image.affine), path)
    facts = measure_volume_changes(out, MorphometrySettings(fwhm_mm=4, mask=path))
    assert facts["mask"]["voxels"] == drawn.sum() != everywhere
    assert np.array_equal(values(out / "morphometry" / "mask.nii.gz") > 0, drawn > 0)
    maps = values(out / "morphometry" / "logjacobian.nii.gz")
    assert (maps[drawn == 0] == 0).all()
    assert (maps[drawn > 0] != 0).any()


def test_a_mask_of_another_grid_or_without_voxels_is_refused(out: Path, tmp_path: Path) -> None:
    affine = nib.load(out / "tpl-template" / "tpl-template_T1w.nii.gz").affine
    path = tmp_path / "drawn.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((4, 5, 6), dtype=np.uint8), affine), path)
    with pytest.raises(UsageError, match=r"E_MASK_SHAPE: .*4x5x6"):
        measure_volume_changes(out, MorphometrySettings(mask=path))
    shape = nib.load(out / "tpl-template" / "tpl-template_T1w.nii.gz").shape
    nib.save(nib.Nifti1Image(np.zeros(shape, dtype=np.uint8), affine), path)
    with pytest.raises(UsageError, match=r"E_MASK_EMPTY"):
        measure_volume_changes(out, MorphometrySettings(mask=path))
    with pytest.raises(UsageError, match=r"nowhere.nii.gz"):
        measure_volume_changes(out, MorphometrySettings(mask=tmp_path / "nowhere.nii.gz"))
    assert not (out / "morphometry").exists()


def test_two_at_once_are_refused(out: Path) -> None:
    with only_driver(out), pytest.raises(RunActiveError, match=r"E_ACTIVE: .*; wait for it$"):
        measure_volume_changes(out, PLAIN)


def test_subjects_that_are_added_later_have_maps_too(tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "cohort.zarr", subjects=4)
    out = template(store, tmp_path / "out", 3)
    measure_volume_changes(out, PLAIN)
    settings = load_settings(out)
    assert settings is not None
    add_subjects(Build(store, out, settings), store.subject_ids[3:])
    assert measure_volume_changes(out, PLAIN)["subjects"] == list(WHO[:4])
    assert (out / "morphometry" / "subjects.txt").read_text().split() == list(WHO[:4])
    assert values(out / "morphometry" / "logjacobian.nii.gz").shape[3] == 4


def test_a_design_is_written_as_fsl_has_it(tmp_path: Path) -> None:
    path = table(tmp_path / "d.csv", group=[0, 0, 1, 1, 1], age=[30.0, 40, 50, 60, 75])
    design = read_design(path, WHO[:4])
    assert design.ignored == ("sub-04",)
    lines = design.as_mat().decode().splitlines()
    assert lines[:2] == ["/NumWaves\t3", "/NumPoints\t4"]
    assert [float(one) for one in lines[2].split("\t")[1:]] == [1, 1, 30]
    matrix = np.loadtxt(lines[lines.index("/Matrix") + 1 :])
    assert np.allclose(matrix, [[1, -0.5, -15], [1, -0.5, -5], [1, 0.5, 5], [1, 0.5, 15]])
    lines = design.as_con().decode().splitlines()
    assert lines[:2] == ["/ContrastName1\tgroup_positive", "/ContrastName2\tgroup_negative"]
    assert lines[4:6] == ["/NumWaves\t3", "/NumContrasts\t4"]
    assert [float(one) for one in lines[6].split("\t")[1:]] == [1, 1, 30, 30]
    assert not [line for line in lines if line.startswith("-0.0") or "\t-0.0" in line]
    contrasts = np.loadtxt(lines[lines.index("/Matrix") + 1 :])
    assert contrasts.tolist() == [[0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]
    assert design.as_json(WHO[:4])["columns"][2] == {"name": "age", "mean_removed": 45.0}
    alone = intercept_alone(WHO)
    assert alone.as_mat().decode().splitlines()[-5:] == ["1.000000000e+00"] * 5
    assert list(alone.contrasts) == ["intercept_positive", "intercept_negative"]


@pytest.mark.parametrize(("text", "said"), [
    ("subject,age\nsub-00,1\nsub-01,2\n", "no row for 3 of 5 subjects: sub-02, sub-03, sub-04"),
    ("name,age\nsub-00,1\n", "it has the columns name, age"),
    ("subject\nsub-00\n", "it has the columns subject"),
    ("subject,age\n" + "".join(f"{one},young\n" for one in WHO), "age of sub-00 is 'young'"),
    ("subject,age\n" + "".join(f"{one}\n" for one in WHO), "age of sub-00 is None"),
    ("subject,age\n" + "".join(f"{one},nan\n" for one in WHO), "need a number"),
    ("subject,age\n" + "".join(f"{one},3\n" for one in WHO), "column age is constant"),
    ("subject,a,b\n" + "".join(f"{one},{one[-1]},{2 * int(one[-1])}\n" for one in WHO),
     "column b is constant, or a sum"),
    ("subject,age\nsub-00,1\nsub-00,2\n", "two rows for sub-00"),
    ("subject,age,age\n", "'age': need names"),
    ("subject,age in years\n", "'age in years': need names"),
    ("subject,intercept\n", "none that is intercept"),
    ("subject,a,b,c,d\n" + "".join(f"{one},1,2,3,4\n" for one in WHO), "5 subjects for 5 columns"),
])  # fmt: skip
def test_designs_that_cannot_be_used_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "d.csv").write_text(text)
    with pytest.raises(UsageError, match=r"E_MORPHOMETRY: --design") as refused:
        read_design(tmp_path / "d.csv", WHO)
    assert said in str(refused.value)
    with pytest.raises(UsageError, match=r"cannot be read"):
        read_design(tmp_path / "none.csv", WHO)


def test_t_maps_are_those_of_a_regression() -> None:
    rng = np.random.default_rng(0)
    age = rng.uniform(20, 80, 9)
    volumes = rng.normal(size=(9, 2, 3, 2)).astype(np.float32)
    volumes[:, 0, 0, 0] = 0.25  # nothing varies
    matrix = np.column_stack([np.ones(9), age - age.mean()])
    found = t_maps(volumes, Design(("intercept", "age"), matrix, np.zeros(2)))
    assert found["age"][0, 0, 0] == 0
    for where in np.ndindex(2, 3, 2):
        if where != (0, 0, 0):
            line = linregress(age, volumes[(slice(None), *where)].astype(float))
            assert found["age"][where] == pytest.approx(line.slope / line.stderr, rel=1e-4)


def test_volumes_are_streamed_as_nifti(tmp_path: Path) -> None:
    grid = Grid.axis_aligned((3, 4, 5), (1.0, 2.0, 3.0), (7.0, 8.0, 9.0))
    data = np.random.default_rng(0).normal(size=(3, 4, 5, 2)).astype(np.float32)
    path = tmp_path / "data.nii.gz"
    write_volumes(path, iter(np.moveaxis(data, 3, 0)), data.shape, grid, data.dtype)
    image = nib.load(path)
    assert (np.asarray(image.dataobj) == data).all()
    assert np.allclose(image.affine, grid.affine)
    assert (np.stack(list(read_volumes(path)), axis=3) == data).all()


def test_what_is_no_finished_template_is_refused(out: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"E_MORPHOMETRY: .* holds no finished template"):
        measure_volume_changes(tmp_path / "nothing", PLAIN)
    with pytest.raises(UsageError, match=r"--smooth nan: need 0 mm or more"):
        measure_volume_changes(out, MorphometrySettings(fwhm_mm=float("nan")))
    image = out / "tpl-template" / "tpl-template_T1w.nii.gz"
    image.write_bytes(image.read_bytes()[:-1])
    with pytest.raises(UsageError, match=r"is not what `cohort atlas` wrote there"):
        measure_volume_changes(out, PLAIN)
    (out / "run" / "template.json").unlink()
    with pytest.raises(UsageError, match=r"holds no finished template"):
        measure_volume_changes(out, PLAIN)


def test_damage_is_named(out: Path) -> None:
    def stop(done: int, all_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_volume_changes(out, PLAIN, progress=stop)
    (kept,) = (out / "morphometry" / "work").glob("*/*")
    whole = kept.read_bytes()
    kept.write_bytes(whole[:100])
    with pytest.raises(StorageError, match=rf"E_MORPHOMETRY: .*{kept.name} is damaged"):
        measure_volume_changes(out, PLAIN)
    (out / "template.json").write_text("{")
    with pytest.raises(StorageError, match=r"template.json is damaged"):
        measure_volume_changes(out, PLAIN)


def test_a_subject_that_was_ingested_again_is_refused(tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "cohort.zarr", subjects=3)
    out = template(store, tmp_path / "out")
    subject = store.read("sub-01")
    shutil.rmtree(store.path / "subjects" / "sub-01")
    subject.volume[0, 0, 0] += 1
    CohortStore.open(store.path).commit(subject, {"source": None})
    with pytest.raises(SubjectError, match=r"E_CHANGED: sub-01 is no longer"):
        measure_volume_changes(out, PLAIN)


def test_the_command_says_what_it_made_and_who_is_left_out(cohort: Cohort, tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "cohort.zarr", subjects=5)
    damage(store, "sub-03")
    out = template(store, tmp_path / "out")
    design = table(tmp_path / "d.csv", group=[0, 0, 1, 1, 1])
    done = cohort("morphometry", out, "--design", design, "--workers", 0, "--smooth", 4)
    assert done.code == 1
    for said in (
        "positive where it is larger",
        "left out: shape at the same size",
        "sub-03",
        "4 mm full width at half maximum (sigma 1.70 mm)",
        "rows of the design: sub-03\n",
        "randomise -i logjacobian.nii.gz -o randomise -m mask.nii.gz -d design.mat",
    ):
        assert said in done.out
    document = cohort("morphometry", out, "--affine", "--workers", 0, "--json").json
    assert document["subjects"] == ["sub-00", "sub-01", "sub-02", "sub-04"]
    assert list(document["failed"]) == ["sub-03"]
    assert (document["affine"], document["fwhm_mm"]) == (True, 8)
    assert document["randomise"].endswith("-1 -n 5000 -T")
    stored = json.loads((out / "morphometry" / "morphometry.json").read_bytes())
    assert stored == {key: one for key, one in document.items() if key != "folder"}
    refused = cohort("morphometry", tmp_path)
    assert refused.code == 2
    assert "E_MORPHOMETRY" in refused.err
