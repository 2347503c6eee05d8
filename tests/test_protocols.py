"""The papers' protocols: their files, splits and pairs, and whole runs on stand-in scans."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
import yaml
from helpers import PROJECT, ellipsoids, smooth_volume, tiny_cohort
from small_run import damage, planned

from cohort.config.protocol import Case, Protocol, read_protocol
from cohort.config.training import training_config
from cohort.data.geometry import Grid
from cohort.data.nifti import write_nifti
from cohort.data.store import CohortStore
from cohort.engine.run import run
from cohort.errors import UsageError
from cohort.studies.protocol import Registered, Resources, run_protocol, settings_with
from cohort.studies.protocol_rows import OURS, failures, notes, protocol_rows, table_text
from cohort.studies.protocol_scans import Scan, chosen, find_scans, working_grid, write_pairs

NAMES = ("abdomen_ct", "oasis", "brain_shift", "pdd_abdomen")
WORKFLOWS = PROJECT / "workflows"
QUICK = ["features=intensity", "levels=2", "solves=1", "squarings=3", "couplings=1,2"]
SHAPE = (24, 20, 32)


def protocol_of(name: str) -> Protocol:
    return read_protocol(WORKFLOWS / f"{name}.yaml")


def content_of(name: str) -> dict[str, Any]:
    return yaml.safe_load((WORKFLOWS / f"{name}.yaml").read_text())


def written(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "protocol.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def write_scans(
    data: Path, case: Case, subjects: list[str], shape: tuple[int, int, int], mm: float = 4.0
) -> None:
    """Stand-ins with the labels 1 and 2, named as the case names its scans."""
    rng = np.random.default_rng(0)
    for seed, subject in enumerate(subjects):
        labels = ellipsoids(shape, tuple(rng.uniform(-1.5, 1.5, 3)))
        texture = smooth_volume(shape, seed)[0, 0].numpy()
        volume = (100 * labels + 10 * texture).astype(np.float32)
        for pattern, values in ((case.images, volume), (case.labels, labels)):
            path = data / pattern.replace("{subject}", subject)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_nifti(path, values, np.diag([mm, mm, mm, 1.0]))


def named(count: int, digits: int = 4) -> list[Scan]:
    return [Scan(f"{one:0{digits}d}", Path("i"), Path("l")) for one in range(1, count + 1)]


def pairs_of(folder: Path, scans: list[Scan], design: str) -> list[tuple[str, str]]:
    count = write_pairs(folder / "pairs.csv", scans, design)
    pairs = pl.read_csv(folder / "pairs.csv", infer_schema=False).rows()
    assert len(pairs) == count
    return pairs


@pytest.fixture
def abdomen(tmp_path: Path) -> tuple[Path, Path, dict[str, Any]]:
    """Stand-ins in the layout of AbdomenCTCT, where they lie, and a small protocol for them."""
    content = content_of("abdomen_ct")
    content["cases"][0] |= {"scans": 4, "grid": "24x20x32@4mm"}
    content["folds"] = [{"test": "2..4"}]
    content["structures"] = {1: "outer", 2: "inner"}
    content["settings"] = [
        {"name": "quick", "title": "VoxelOpt", "set": QUICK},
        {"name": "free", "title": "free-form", "set": [*QUICK[:-2], "squarings=0"]},
        {"name": "net", "title": "U-Net", "set": ["features=unet"], "trained": True},
    ]
    path = written(tmp_path, content)
    data = tmp_path / "data"
    (case,) = read_protocol(path).cases
    write_scans(data, case, [f"{one:04d}" for one in range(1, 5)], SHAPE)
    return path, data, content


@pytest.mark.parametrize("name", NAMES)
def test_a_protocol_can_be_read_and_its_training_is_one(name: str) -> None:
    protocol = protocol_of(name)
    assert protocol.published
    training = protocol.training
    if training:
        recipe, schedule = training_config(
            training.method, None, list(training.set), (1, 1, 1), steps=training.steps
        )
        assert recipe.steps == training.steps
        learned = chosen(protocol.folds[0].train or "", named(protocol.cases[0].scans), "")
        assert schedule.share == 0 or len(learned) < 10, "nothing stops it early"


def test_the_abdomen_has_42_ordered_pairs_of_the_last_7_scans(tmp_path: Path) -> None:
    protocol = protocol_of("abdomen_ct")
    (case,), (fold,) = protocol.cases, protocol.folds
    assert (case.scans, case.grid, len(protocol.structures)) == (30, "192x160x256@2mm", 13)
    tested = chosen(fold.test, named(30), "test")
    pairs = pairs_of(tmp_path, tested, protocol.pairs)
    assert len(set(pairs)) == 42
    assert {fixed for fixed, _ in pairs} == {f"{one:04d}" for one in range(24, 31)}


def test_oasis_has_the_19_neighbours_of_the_last_20_scans(tmp_path: Path) -> None:
    protocol = protocol_of("oasis")
    (fold,) = protocol.folds
    scans = named(414)
    tested = chosen(fold.test, scans, "test")
    pairs = pairs_of(tmp_path, tested, protocol.pairs)
    assert pairs == [(f"{one:04d}", f"{one + 1:04d}") for one in range(395, 414)]
    trained = chosen(fold.train or "", scans, "train")
    assert trained == scans[:-20]


def test_pdd_net_holds_every_scan_back_once() -> None:
    protocol = protocol_of("pdd_abdomen")
    scans = named(10, 1)
    held_back = []
    for fold in protocol.folds:
        trained = chosen(fold.train or "", scans, "train")
        tested = chosen(fold.test, scans, "test")
        assert {scan.subject for scan in [*trained, *tested]} == {scan.subject for scan in scans}
        held_back += tested
    assert sorted(held_back) == sorted(scans)
    released = chosen(protocol.folds[0].train or "", scans, "train")
    assert [scan.subject for scan in released] == ["1", "4", "5", "6", "9", "10"]


def test_brains_are_isotropic_or_not_and_cropped_or_not(tmp_path: Path) -> None:
    protocol = protocol_of("brain_shift")
    scans = []
    for name, size in (("a", 60), ("b", 70)):
        path = tmp_path / f"{name}.nii.gz"
        grid = Grid.axis_aligned((size, 64, 40), (1.0, 1.0, 1.5), (5, 5, 5))
        write_nifti(path, np.zeros(grid.shape, np.uint8), grid.affine)
        scans.append(Scan(name, path, path))
    grids = {
        case.name.partition("-")[2]: working_grid(case.grid, scans[0], scans)
        for case in protocol.cases
        if case.name.startswith("ibsr18")
    }
    found = {name: (grid.shape, grid.spacing_mm) for name, grid in grids.items()}
    assert found == {
        "isotropic-crop": ((160, 224, 192), (1, 1, 1)),
        "isotropic": ((80, 64, 64), (1, 1, 1)),
        "anisotropic-crop": ((160, 224, 192), (1, 1, 1.5)),
        "anisotropic": ((80, 64, 48), (1, 1, 1.5)),
    }
    assert all(np.allclose(grid.center_mm, 5) for grid in grids.values())


def test_scans_are_found_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    case = protocol_of("oasis").cases[0].model_copy(update={"scans": 3})
    for subject in ("10", "9", "0002"):
        for pattern in (case.images, case.labels):
            path = tmp_path / pattern.replace("{subject}", subject)
            path.parent.mkdir(exist_ok=True)
            path.touch()
    assert [scan.subject for scan in find_scans(tmp_path, case)] == ["0002", "9", "10"]


def test_notes_say_which_runs_failed_and_why(tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "cohort.zarr")
    run_dir = planned(tmp_path / "run", store)
    damage(store, "sub-01")
    run(run_dir, store)
    case, setting = SimpleNamespace(name="brains"), SimpleNamespace(title="VoxelOpt")
    registered = cast(Registered, SimpleNamespace(case=case, setting=setting, run_dirs=[run_dir]))
    (said,) = failures([registered])
    start = f"6 of 12 pairs of brains, VoxelOpt failed, as {run_dir} tells: E_CORRUPT: "
    assert said.startswith(start)


@pytest.mark.slow
def test_a_protocol_prints_our_rows_beside_the_published_ones(
    abdomen: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    path, data, _ = abdomen
    out = tmp_path / "out"
    command = [sys.executable, WORKFLOWS / "protocol.py", path, data, out]
    told = subprocess.run(command, check=True, capture_output=True, text=True)
    assert (out / "table.md").read_text() in told.stdout
    assert "| VoxelOpt | 6 |" in told.stdout
    assert "0.585" in told.stdout
    assert "given: U-Net." in told.stdout
    table = pl.read_csv(out / "table.csv")
    ours = table.filter(source=OURS)
    assert ours["method"].to_list() == ["before registration", "VoxelOpt", "free-form"]
    before, after, _ = ours["dice"].to_list()
    assert 0.5 < before < after < 1
    assert ours["hd95"][1] > 0
    published = table.filter(pl.col("source") != OURS)
    assert published["dice"].to_list() == [0.5851, 0.5846]
    assert published["pairs"].null_count() == 2
    parts = {part: part.stat().st_mtime_ns for part in out.rglob("*.parquet")}
    again = subprocess.run(command, check=True, capture_output=True, text=True)
    assert again.stdout == told.stdout
    assert parts == {part: part.stat().st_mtime_ns for part in out.rglob("*.parquet")}
    # scans that are on the protocol's grid are taken voxel by voxel
    store = CohortStore.open(out / "abdomen-ct" / "cohort.zarr")
    assert store.subject_ids == ("0002", "0003", "0004")
    texture = smooth_volume(SHAPE, 1)[0, 0].numpy()
    subject = store.read("0002")
    assert subject.labels is not None
    volume = (100 * subject.labels + 10 * texture).astype(np.float32)
    np.testing.assert_array_equal(subject.volume, volume)


@pytest.mark.slow
def test_an_absent_structure_is_left_out_or_counts_as_nothing(
    abdomen: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    path, data, content = abdomen
    content["settings"] = content["settings"][:1]
    content["structures"][9] = "in no scan"
    means = {}
    for absent in ("skip", "zero"):
        content["measures"]["absent"] = absent
        protocol = read_protocol(written(path.parent, content))
        done = run_protocol(protocol, data, tmp_path / "out")
        row = protocol_rows(protocol, done).filter(method="VoxelOpt", source=OURS)
        means[absent] = row.row(0, named=True)
    assert means["zero"]["dice"] == pytest.approx(means["skip"]["dice"] * 2 / 3)
    assert means["zero"]["hd95"] == means["skip"]["hd95"]
    assert "counts as 0" in " ".join(notes(protocol, weights_given=False))


def test_each_fold_trains_on_its_own_scans(tmp_path: Path) -> None:
    content = content_of("pdd_abdomen")
    content["cases"][0] |= {"scans": 5, "grid": "16x18x20@4mm"}
    content["folds"] = [
        {"name": "one", "train": [1, 2, 3], "test": [4, 5]},
        {"name": "two", "train": "3..5", "test": ["1", "2"]},
    ]
    content["structures"] = {1: "outer", 2: "inner"}
    search = ["spacing=5", "width=3", "extent=4"]
    content["training"] |= {"steps": 2, "set": [*search, "channels=4"]}
    content["settings"] = [content["settings"][0] | {"set": ["features=obelisk"]}]
    protocol = read_protocol(written(tmp_path, content))
    data = tmp_path / "data"
    write_scans(data, protocol.cases[0], ["1", "2", "3", "4", "5"], (16, 18, 20))
    done = run_protocol(protocol, data, tmp_path / "out")
    out = tmp_path / "out" / "pdd-abdomen"
    assert done[0].run_dirs == (out / "one" / "pdd-net", out / "two" / "pdd-net")
    trained = [CohortStore.open(out / fold / "train" / "cohort.zarr") for fold in ("one", "two")]
    assert [store.subject_ids for store in trained] == [("1", "2", "3"), ("3", "4", "5")]
    row = protocol_rows(protocol, done).filter(method="PDD-Net", source=OURS)
    assert row["pairs"].to_list() == [4]
    model = out / "one" / "train" / "model" / "all" / "model.safetensors"
    given = Resources(weights=model)
    again = run_protocol(protocol, data, tmp_path / "given", given)
    assert not list((tmp_path / "given").rglob("train"))
    first = [protocol_rows(protocol, one)["dice"][1] for one in (done, again)]
    assert all(0 < dice < 1 for dice in first)


def test_a_failed_pair_is_told(abdomen: tuple[Path, Path, dict[str, Any]]) -> None:
    protocol = read_protocol(abdomen[0])
    rows = pl.DataFrame({
        "case": ["c"], "method": ["m"], "pairs": [42], "failed": [1], "dice": [0.5],
        "dice_sd": [0.1], "source": [OURS],
        **{f"{one}{end}": [None] for one in ("hd95", "sdlogj", "folding", "seconds")
           for end in ("", "_sd")},
    })  # fmt: skip
    titles, ((_, _, pairs, dice, hd95, *_),) = table_text(protocol, rows)
    assert (pairs, dice, hd95) == ("41 of 42", "0.5000 ± 0.1000", "")
    assert titles[4] == "HD95, mm"
    (printed,) = table_text(protocol, rows.with_columns(source=pl.lit("a paper"), hd95=18.54))[1]
    assert printed[3:5] == ["0.5 ± 0.1", "18.54"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pear": 1}, r"unknown key pear; possible: title, paper, cases"),
        ({"settings": [{"name": "a", "title": "a", "metod": "dio"}]},
         r"unknown key settings\.0\.metod; possible: name, title, method, set, trained"),
        ({"settings": [{"name": "a", "title": "a", "set": ["squaring=1"]}]},
         r"unknown setting 'squaring'. Settings of voxelopt: .*squarings"),
        ({"settings": [{"name": "a/b", "title": "a"}]}, r"settings\.0\.name: .*got 'a/b'"),
        ({"settings": [{"name": "train", "title": "a"}]}, r"train is the folder of the training"),
        ({"settings": [{"name": "a", "title": "a"}] * 2}, r"settings: each needs a name of"),
        ({"pairs": "some"}, r"pairs: .*'ordered' or 'consecutive', got 'some'"),
        ({"folds": [{"test": "24-30"}]}, r"folds\.0\.test.*: need FIRST\.\.LAST"),
        ({"folds": []}, r"folds: .*at least 1 item"),
        ({"title": None}, r"title: .*string, got None"),
        ({"structures": {}}, r"absent: zero needs structures"),
        ({"training": {"method": "dio"}}, r"training: each fold needs its train scans"),
        ({"published": [{"method": "x", "dice": 0.5}]}, r"published\.0\.source is missing"),
        ({"published": [{"method": "x", "source": "y", "case": "z"}]}, r"no case is called z"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_told(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        read_protocol(written(tmp_path, content_of("abdomen_ct") | change))
    assert caught.value.code in ("E_CONFIG", "E_SETTING")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"grid": "2mm"}, r"cases\.0\.grid: need SHAPE@SPACING .*got '2mm'"),
        ({"images": "scans.nii"}, r"cases\.0\.images: .*\{subject\} where the subject's id stands"),
    ],
)
def test_a_wrong_case_is_told(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    content = content_of("abdomen_ct")
    content["cases"][0] |= change
    with pytest.raises(UsageError, match=said):
        read_protocol(written(tmp_path, content))


def test_missing_files_are_told(abdomen: tuple[Path, Path, dict[str, Any]], tmp_path: Path) -> None:
    path, data, content = abdomen
    with pytest.raises(UsageError, match=r"E_CONFIG: .*no\.yaml cannot be read as YAML"):
        read_protocol(tmp_path / "no.yaml")
    protocol, out = read_protocol(path), tmp_path / "out"
    with pytest.raises(UsageError, match=r"found 0 scans as .*_0000\.nii\.gz; the protocol has 4"):
        run_protocol(protocol, tmp_path / "nowhere", out)
    with pytest.raises(UsageError, match=r"E_WEIGHTS: .*net\.pth is no file"):
        run_protocol(protocol, data, out, Resources(weights=tmp_path / "net.pth"))
    alone = protocol.model_copy(update={"settings": protocol.settings[2:]})
    with pytest.raises(UsageError, match=r"every setting takes weights"):
        settings_with(alone, None)
    for test, said in {
        "2..9": r"no scan 9 among 4",
        "3..2": r"3\.\.2 of 4 scans holds none",
        ("0009",): r"no scan '0009'; some: 0001",
        (1,): r"two scans, got 1",
    }.items():
        test = test if isinstance(test, str) else list(test)
        wrong = read_protocol(written(path.parent, content | {"folds": [{"test": test}]}))
        with pytest.raises(UsageError, match=said):
            run_protocol(wrong, data, out)
    both = content | {"folds": [{"train": "1..2", "test": "2..4"}]}
    with pytest.raises(UsageError, match=r"all: 0002 would be trained on and registered"):
        run_protocol(read_protocol(written(path.parent, both)), data, out)
    assert not out.exists(), "nothing is done before all is found"
    image = data / "imagesTr" / "AbdomenCTCT_0003_0000.nii.gz"
    image.write_bytes(image.read_bytes()[:500])
    with pytest.raises(UsageError, match=r"1 of 3 scans cannot be used.*0003: E_"):
        run_protocol(protocol, data, out)
    (data / "labelsTr" / "AbdomenCTCT_0001_0000.nii.gz").unlink()
    with pytest.raises(UsageError, match=r"1 of 4 scans have no labels, such as 0001; need .*Tr"):
        run_protocol(protocol, data, out)


@pytest.mark.slow
def test_a_pair_of_the_abdomen_at_its_true_shape(tmp_path: Path) -> None:
    content = content_of("abdomen_ct")
    content["cases"][0]["scans"] = 2
    content |= {"folds": [{"test": "1..2"}], "pairs": "consecutive"}
    content["settings"] = content["settings"][:1]
    protocol = read_protocol(written(tmp_path, content))
    write_scans(tmp_path, protocol.cases[0], ["0024", "0025"], (192, 160, 256), mm=2.0)
    done = run_protocol(protocol, tmp_path, tmp_path / "out")
    row = protocol_rows(protocol, done).filter(method="VoxelOpt", source=OURS).row(0, named=True)
    assert (row["pairs"], row["failed"]) == (1, 0)
    # the other 11 structures are in no stand-in
    assert row["dice"] > 0.9 * 2 / 13
