"""The command line on a store on object storage: the rows of a local one, and a service's end."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Cohort
from object_server import ObjectServer, object_server
from small_cohort import write_cohort, write_subject
from small_run import decided, part_names

pytestmark = pytest.mark.slow
SETTINGS = (
    "features=intensity", "levels=2", "solves=1", "squarings=3", "couplings=0.1,1",
)  # fmt: skip
QUICK = tuple(word for setting in SETTINGS for word in ("--set", setting))


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectServer]:
    with object_server() as running:
        yield running


def test_the_rows_are_those_of_a_local_store(
    cohort: Cohort, server: ObjectServer, tmp_path: Path
) -> None:
    source, url = write_cohort(tmp_path / "nifti"), f"{server.bucket()}/cohort.zarr"
    (source / "images" / "broken.nii.gz").write_bytes(b"not a scan")
    for store in (url, tmp_path / "local.zarr"):
        made = cohort("ingest", source, store, "--align", "center", "--workers", 2, "--json")
        assert made.code == 1
        assert sorted(made.json["ingested"]) == ["a", "b", "c"]
        again = cohort("ingest", source, store, "--align", "center", "--workers", 0, "--json")
        assert sorted(again.json["unchanged"]) == ["a", "b", "c"]
    remote, local = (
        cohort("info", store, "--json").json for store in (url, tmp_path / "local.zarr")
    )
    assert remote["digest"] == local["digest"]
    assert set(remote["quarantine"]) == {"broken"}
    checked = cohort("check", url, "--json")
    assert checked.code == 1
    assert "broken" in checked.out
    for store, run, workers in ((url, "r", 2), (tmp_path / "local.zarr", "l", 0)):
        done = cohort("register", store, tmp_path / run, *QUICK, "--workers", workers, "--json")
        assert (done.code, done.json["pairs"]) == (0, 6)
    assert decided(tmp_path / "r").equals(decided(tmp_path / "l"))
    pair = ("--fixed", "a", "--moving", "b")
    assert cohort("report", tmp_path / "r", "--json").code == 0
    assert (
        cohort("export", tmp_path / "r", *pair, "--to", "nifti", "--out", tmp_path / "o").code == 0
    )
    seen = cohort("features", url, tmp_path / "features", "--compare", "features=intensity")
    assert seen.code == 0
    assert not list(tmp_path.rglob("s3:*"))


def test_registered_stores_keep_their_reference(
    cohort: Cohort, server: ObjectServer, tmp_path: Path
) -> None:
    source, url = write_cohort(tmp_path / "nifti"), f"{server.bucket()}/cohort.zarr"
    ingest = ("ingest", source, url, "--align", "rigid", "--workers", 0, "--json")
    assert cohort(*ingest).code == 0
    write_subject(source, "d", seed=3)
    later = cohort(*ingest)
    assert (later.code, later.json["ingested"]) == (0, ["d"])


def test_studies_take_a_store_on_object_storage(
    cohort: Cohort, server: ObjectServer, tmp_path: Path
) -> None:
    source, url = write_cohort(tmp_path / "nifti"), f"{server.bucket()}/cohort.zarr"
    images = []
    for name, store in (("remote", url), ("local", tmp_path / "local.zarr")):
        ingest = ("ingest", source, store, "--grid", "32x34x32@1mm", "--align", "center")
        assert cohort(*ingest, "--workers", 0).code == 0
        out = tmp_path / name
        words = (store, out / "template", "--iterations", 2, "--workers", 0, *QUICK)
        assert cohort("atlas", *words).code == 0
        assert cohort("morphometry", out / "template", "--workers", 0).code == 0
        assert cohort("fuse", store, out / "fused", "--workers", 0, *QUICK).code == 0
        assert cohort("register", store, out / "run", "--workers", 0, *QUICK).code == 0
        assert cohort("population", out / "run", "--workers", 0).code == 0
        images.append((out / "template/tpl-template/tpl-template_T1w.nii.gz").read_bytes())
    assert images[0] == images[1]
    assert not list(tmp_path.rglob("s3:*"))


def test_a_run_and_what_else_is_written_are_no_urls(cohort: Cohort, server: ObjectServer) -> None:
    for words in (
        ("status",), ("synth",), ("register", "store"), ("report",), ("train", "store"),
        ("features", "store"), ("atlas", "store"), ("fuse", "store"),
        ("export", "run", "--fixed=a", "--to=itk", "--out"), ("apply", "run", "--out"),
    ):  # fmt: skip
        shown = cohort(*words, "s3://bucket/run")
        assert shown.code == 2, words
        assert "s3://bucket/run is a URL; here only a STORE may be on object" in shown.err
    missing = cohort("info", f"{server.bucket()}-not/cohort.zarr")
    assert missing.code == 4
    assert "NoSuchBucket" in missing.err


@pytest.mark.faults
def test_a_service_that_breaks_down_stops_the_run_which_then_goes_on(
    cohort: Cohort, tmp_path: Path
) -> None:
    local, run = tmp_path / "local.zarr", tmp_path / "run"
    names = tuple(f"s{number:02d}" for number in range(12))
    assert cohort("ingest", write_cohort(tmp_path / "nifti", names), local).code == 0
    with object_server() as server:
        url = f"{server.bucket()}/cohort.zarr"
        assert cohort("ingest", tmp_path / "nifti", url).code == 0
        command = ("register", url, run, *QUICK, "--workers", "0", "--tile-size", "1")
        driver = subprocess.Popen(
            [str(Path(sys.executable).parent / "cohort"), *map(str, command)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        while len(part_names(run) if (run / "parts").is_dir() else ()) < 3:
            time.sleep(0.01)
            assert driver.poll() is None, "the run ended before the service did"
        server.stop()
        _, complaint = driver.communicate(timeout=120)
    assert driver.returncode == 4
    assert "E_STORAGE: s3://bucket-" in complaint
    rows = decided(run)
    assert 0 < len(rows) < 132
    assert set(rows["status"]) == {"ok"}
    assert cohort("register", local, run, "--workers", 0).code == 0
    assert len(decided(run)) == 132
