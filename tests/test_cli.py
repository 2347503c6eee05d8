"""The command from end to end, as a user sees it: texts, JSON, exit codes and no traceback."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from command_line import Cohort
from helpers import tiny_cohort
from small_run import damage, part_names

from cohort import cli
from cohort.data.interrupts import endings_held, endings_unwound
from cohort.data.store import CohortStore
from cohort.engine import progress
from cohort.engine.stop import signals_answered

GRID = "16x18x16@10mm"
QUICK = ("--set", "features=intensity", "--set", "levels=2", "--set", "solves=1",
         "--set", "couplings=0.1,1", "--set", "squarings=3")  # fmt: skip
COMMANDS = (
    "synth", "check", "ingest", "info", "features", "plan", "register", "status", "report", "apply",
    "population", "atlas", "morphometry", "export", "fuse", "train", "bench", "doctor", "stop",
    "verify", "repair",
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_cohort(tmp_path_factory.mktemp("cli") / "cohort.zarr", 3).path


@pytest.fixture
def store(tiny: Path, tmp_path: Path) -> Path:
    """A store of three subjects to do anything to."""
    return shutil.copytree(tiny, tmp_path / "cohort.zarr")


@pytest.fixture
def run_dir(store: Path, tmp_path: Path, cohort: Cohort) -> Path:
    """A run of that store that is done."""
    assert cohort("register", store, tmp_path / "run", "--workers", 0, *QUICK).code == 0
    return tmp_path / "run"


def stamps(run_dir: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (run_dir / "parts").iterdir()}


def test_the_whole_way_from_files_to_a_report(cohort: Cohort, tmp_path: Path) -> None:
    nifti, store, run_dir = tmp_path / "nifti", tmp_path / "c.zarr", tmp_path / "run"
    synth = ("synth", nifti, "--subjects", 2, "--grid", GRID)
    assert "2 subjects written, 0 kept" in cohort(*synth).out
    assert cohort(*synth, "--json").json["kept"] == ["sub-001", "sub-002"]
    ingest = ("ingest", nifti, store, "--grid", GRID, "--workers", 1, "--json")
    assert cohort(*ingest).json["ingested"] == ["sub-001", "sub-002"]
    assert cohort(*ingest).json["unchanged"] == ["sub-001", "sub-002"]
    info = cohort("info", store, "--json").json
    assert (info["subjects"], info["labels"], info["truth"]) == (2, True, True)
    assert info["shape"] == [16, 18, 16]
    plan = cohort("plan", store, run_dir, *QUICK, "--json").json
    assert (plan["n_pairs"], plan["store_digest"]) == (2, info["digest"])
    assert cohort("status", run_dir, "--json").json["left"] == 2
    done = cohort("register", store, run_dir, "--workers", 0, "--json").json
    assert done["apart"] == []
    assert (done["pairs"], done["failed"], done["summary"]["ok"]) == (2, 0, 2)
    status = cohort("status", run_dir, "--json").json
    assert (status["done"], status["left"], status["failures"]) == (2, 0, {})
    assert status["epe_mm"] > 0
    report = cohort("report", run_dir, "--json").json
    assert Path(report["report"]).read_text().startswith("<!DOCTYPE html>")
    assert report["dice_mean"] == status["dice_mean"] == done["summary"]["dice_mean"]


@pytest.mark.slow
def test_texts_for_people_say_the_same(cohort: Cohort, store: Path, run_dir: Path) -> None:
    assert "mean Dice" in cohort("register", store, run_dir).out
    for command, told in (
        (("info", store), ("subjects     3", CohortStore.open(store).digest)),
        (("plan", store, run_dir), ("6 (all)", "voxelopt: preset=default, features=intensity")),
        (("register", store, run_dir), ("nothing, all pairs were done", "6 ok, 0 failed")),
        (
            ("status", run_dir),
            ("6 of 6 pairs", "pairs per hour", "all but register", "sd ln det J"),
        ),
        (("report", run_dir), ("index.html", "6 ok, 0 failed")),
    ):
        shown = cohort(*command)
        assert shown.code == 0
        assert all(text in shown.out for text in told), shown.out


@pytest.mark.slow
def test_registering_twice_does_no_work_twice(cohort: Cohort, store: Path, run_dir: Path) -> None:
    before = stamps(run_dir)
    again = cohort("register", store, run_dir, "--json").json
    assert (again["pairs"], again["already_done"]) == (0, 6)
    assert stamps(run_dir) == before
    page = Path(cohort("report", run_dir, "--json").json["report"])
    written = page.stat().st_mtime_ns
    cohort("report", run_dir)
    assert page.stat().st_mtime_ns == written


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(cohort: Cohort, command: str) -> None:
    shown = cohort(command, "--help")
    assert shown.code == 0
    assert f"Example: cohort {command} " in shown.out
    assert "--json" in shown.out


def test_help_keeps_what_stands_in_brackets(cohort: Cohort) -> None:
    assert "[default: cores]" in " ".join(cohort("register", "--help").out.split())


@pytest.mark.slow
def test_doctor_says_what_is_here_and_compiles(cohort: Cohort) -> None:
    assert "numba" in cohort("doctor").out
    document = cohort("doctor", "--warm", "--json").json
    assert document["kernels"].startswith("compiled and kept")


def test_every_command_is_tested_here() -> None:
    names = set(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]
    assert names == set(COMMANDS)


def test_a_quarantined_subject_gives_1_and_its_reason(cohort: Cohort, tmp_path: Path) -> None:
    nifti, store = tmp_path / "nifti", tmp_path / "c.zarr"
    cohort("synth", nifti, "--subjects", 2, "--grid", GRID)
    (nifti / "images" / "torn.nii.gz").write_bytes(b"\x1f\x8b torn")
    ingest = ("ingest", nifti, store, "--grid", GRID, "--workers", 1)
    shown = cohort(*ingest)
    assert shown.code == 1
    assert "in quarantine\n  torn  E_" in shown.out
    document = cohort(*ingest, "--json").json
    assert document["ingested"] == []
    assert list(document["quarantined"]) == ["torn"]
    info = cohort("info", store, "--json").json
    assert (info["quarantined"], list(info["quarantine"])) == (1, ["torn"])
    assert "torn.nii.gz" in cohort("info", store).out


def test_failed_pairs_give_1_and_their_codes(cohort: Cohort, store: Path, tmp_path: Path) -> None:
    damage(CohortStore.open(store), "sub-01")
    register = ("register", store, tmp_path / "run", "--workers", 0, *QUICK)
    shown = cohort(*register)
    assert (shown.code, "2 ok, 4 failed" in shown.out) == (1, True)
    assert "failed with E_CORRUPT" in shown.out
    status = cohort("status", tmp_path / "run", "--json")
    assert (status.code, status.json["failures"]) == (0, {"E_CORRUPT": 4})
    assert "failed with E_CORRUPT" in cohort("status", tmp_path / "run").out
    assert cohort("report", tmp_path / "run").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("info {0}/nowhere", "E_STORE", "nowhere is no cohort store: it has no zarr.json"),
        ("info {0}/file", "E_STORE", "file is no cohort store"),
        ("info {0}/run", "E_STORE", "run is no cohort store"),
        ("status {0}/cohort.zarr", "E_RUN", "cohort.zarr is no run: it has no run.json"),
        ("report {0}/nowhere", "E_RUN", "nowhere is no run"),
        ("register {0}/nowhere {0}/new", "E_STORE", "no cohort store"),
        ("register {0}/cohort.zarr {0}/file", "E_RUN", "file is a file; need a new or an empty"),
        ("register {0}/cohort.zarr {0}/cohort.zarr", "E_RUN", "is no run and not empty"),
        ("plan {0}/cohort.zarr {0}/run --set radius=2", "E_PLAN_MISMATCH", "radius was not given"),
        ("plan {0}/cohort.zarr {0}/new --set radus=2", "E_SETTING", "unknown setting 'radus'"),
        ("plan {0}/cohort.zarr {0}/new --set window=9,9", "E_SETTING", "window: the first must"),
        ("plan {0}/cohort.zarr {0}/new --config {0}/no.yaml", "E_CONFIG", "no.yaml cannot be read"),
        ("plan {0}/cohort.zarr {0}/new --method syn", "E_METHOD", "known: voxelopt"),
        ("plan {0}/cohort.zarr {0}/new --pairs atlas:x", "E_PAIRS", "atlas:x: no subject 'x'"),
        ("plan {0}/cohort.zarr {0}/new --pairs {0}/no.csv", "E_PAIRS", "no.csv cannot be read"),
        ("ingest {0}/nowhere {0}/new", "E_SOURCE", "nowhere does not exist: need a folder with"),
        ("ingest {0}/run {0}/new", "E_SOURCE", "run is no source of subjects: need a folder"),
        ("ingest {0}/run {0}/new --grid 3x3", "E_GRID", "a grid is SHAPE@SPACING, for example"),
        ("ingest {0}/run {0}/new --align left", "E_ALIGN", "need none, grid or center"),
        ("synth {0}/run", "E_SYNTH_FOLDER", "run exists and holds no population.json"),
        ("synth {0}/new --grid 8x8x8@2mm", "E_SYNTH_SETTINGS", "three sizes of 16 to 512, got"),
        ("synth {0}/new --grid 16x16x16@1x1x2mm", "E_GRID", "one spacing for all axes"),
    ],
)
def test_wrong_usage_gives_2_and_one_sentence(
    cohort: Cohort, store: Path, run_dir: Path, tmp_path: Path, arguments, code, message
) -> None:
    (tmp_path / "file").touch()
    words = [word.format(tmp_path) for word in arguments.split()]
    shown = cohort(*words)
    assert (shown.code, shown.out) == (2, "")
    assert shown.err.startswith(f"error {code}: ")
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert not (tmp_path / "new").exists()
    error = cohort(*words, "--json").json["error"]
    assert error["code"] == code
    assert message in error["message"]


@pytest.mark.parametrize(
    "arguments",
    [
        "nonsense",
        "info",
        "register store run --workers -1",
        "register store run --seed -1",
        "register store run --tile-size 0",
        "synth folder --subjects 1",
        "plan store run --colour red",
    ],
)
def test_words_that_are_no_command_give_2(cohort: Cohort, arguments: str) -> None:
    shown = cohort(*arguments.split())
    assert (shown.code, shown.out) == (2, "")
    assert "Usage: cohort" in shown.err


def test_names_are_shown_as_they_are(cohort: Cohort, tmp_path: Path) -> None:
    path = tmp_path / "[red]a :x: [/]"
    assert f"{path} is no cohort store" in cohort("info", path).err
    assert f"{path}: 2 subjects" in cohort("synth", path, "--subjects", 2, "--grid", GRID).out


def test_a_run_that_is_active_elsewhere_gives_3(cohort: Cohort, store: Path, run_dir: Path) -> None:
    with (run_dir / "run.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shown = cohort("register", store, run_dir)
    assert shown.code == 3
    assert f"E_ACTIVE: {run_dir} is being worked on by process {os.getpid()} on " in shown.err


def test_a_damaged_part_gives_4(cohort: Cohort, run_dir: Path) -> None:
    part = run_dir / "parts" / part_names(run_dir)[0]
    part.write_bytes(part.read_bytes()[:-9])
    for command in ("status", "report"):
        shown = cohort(command, run_dir)
        assert shown.code == 4
        assert f"E_PART: {part} is damaged" in shown.err


def test_a_folder_that_cannot_be_made_gives_4(cohort: Cohort, store: Path) -> None:
    if not Path("/proc/self").is_dir():
        pytest.skip("needs a file system that refuses new folders, such as Linux's /proc")
    for command in (("synth", "/proc/cohort"), ("register", store, "/proc/cohort/run")):
        shown = cohort(*command)
        assert shown.code == 4
        assert "E_STORAGE: /proc/cohort" in shown.err


def test_an_error_of_the_file_system_anywhere_gives_4(
    cohort: Cohort, run_dir: Path, monkeypatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error", "some/file")

    monkeypatch.setattr(progress, "read_rows", broken)
    shown = cohort("status", run_dir)
    assert shown.code == 4
    assert "Input/output error: 'some/file'. Nothing committed is lost; run again" in shown.err


def test_ctrl_c_says_how_to_go_on(cohort: Cohort, run_dir: Path, monkeypatch) -> None:
    def pressed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(progress, "read_rows", pressed)
    shown = cohort("status", run_dir)
    assert shown.code == 130
    assert shown.err == "error stopped; the same command goes on from here\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_any_command_says_how_to_go_on(
    cohort: Cohort, run_dir: Path, monkeypatch, number: signal.Signals
) -> None:
    monkeypatch.setattr(progress, "read_rows", lambda *_: signal.raise_signal(number))
    shown = cohort("status", run_dir)
    assert shown.code == 128 + number
    assert shown.err == "error stopped; the same command goes on from here\n"


def test_nohup_is_kept_to(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with endings_unwound(), endings_held(), signals_answered(tmp_path) as came:
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert not came


@pytest.mark.slow
def test_ctrl_c_with_workers_stops_them_quietly_and_the_run_goes_on(tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "cohort.zarr", 6).path
    run_dir = tmp_path / "run"
    command = [sys.executable, "-c", "from cohort.cli import main; main()", "register", store,
               run_dir, "--workers", "2", "--set", "levels=3"]  # fmt: skip
    # a session of its own: Ctrl-C goes to every process of a terminal's foreground
    driver = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not any(run_dir.glob("parts/*.parquet")):
        time.sleep(0.05)
    os.killpg(driver.pid, signal.SIGINT)
    _, err = driver.communicate(timeout=120)
    assert driver.returncode == 130
    assert "Traceback" not in err
    assert err.endswith("error stopped; the same command goes on from here\n")
    before = stamps(run_dir)
    assert before
    subprocess.run(command, capture_output=True, check=True, timeout=240)
    assert stamps(run_dir).items() >= before.items()
    assert len(part_names(run_dir)) == 15  # both ways of two subjects are one tile
