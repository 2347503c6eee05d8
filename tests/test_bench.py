"""The throughput study: its protocol, floors, resume, tables and command."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import psutil
import pytest
import torch
from command_line import Cohort
from helpers import tiny_cohort

from benchmarks.readme_table import PROJECT, block
from cohort.engine.results import read_rows
from cohort.errors import UsageError
from cohort.report.bench import bench_markdown, write_bench
from cohort.studies.bench import apart, cell, end_to_end, floors, study, timing
from cohort.studies.bench.apart import found_here, measured_apart
from cohort.studies.bench.card import parse_reading
from cohort.studies.bench.cell import CellTask
from cohort.studies.bench.end_to_end import RunTask, measure_run
from cohort.studies.bench.forecast import what_does_not_fit
from cohort.studies.bench.kept import CELLS, Kept, write_table
from cohort.studies.bench.machine import forget_peak, peak_bytes
from cohort.studies.bench.population import Pairs
from cohort.studies.bench.rooflines import KernelTask, measure_kernels
from cohort.studies.bench.settings import BenchSettings, Cell, Variant, parse_shapes
from cohort.studies.bench.study import Listener, bench
from cohort.studies.bench.tables import read_tables
from cohort.studies.bench.timing import Stopwatch, repeated, spread
from triton_reg.ops.level_settings import LevelSettings

CPU = torch.device("cpu")
QUICK = ("features=intensity", "levels=2", "solves=1", "couplings=0.1,1", "squarings=3")
# fmt: off
CELL: dict[str, Any] = {
    "variant": "voxelopt", "method": "voxelopt", "settings": "", "shape": "96x80x128",
    "voxels": 983040, "device": "cpu", "batch": 1, "status": "ok", "message": "", "repeats": 5,
    "pairs": 2, "register_s": 0.2, "register_q1_s": 0.19, "register_q3_s": 0.21,
    "register_cpu_s": 0.2, "pairs_per_hour": 18000.0, "cold_s": 0.4, "cold_q1_s": 0.4,
    "cold_q3_s": 0.5, "pairs_per_hour_cold": 9000.0, "prepare_s": 0.05, "prepare_q1_s": 0.04,
    "prepare_q3_s": 0.06, "read_s": 0.05, "first_extra_s": 1.5, "peak_mib": 800.0,
    "dice_before": 0.5, "dice_mean": 0.9, "epe_before_mm": 6.0, "epe_mm": 1.5, "folding": 0.0,
    "sdlogj": 0.25,
}
RUN: dict[str, Any] = {
    "variant": "voxelopt", "method": "voxelopt", "settings": "", "shape": "96x80x128",
    "voxels": 983040, "device": "cpu", "workers": 1, "status": "ok", "message": "", "pairs": 30,
    "failed": 0, "pairs_per_hour": 10000.0, "busy_s": 0.3, "register_s": 0.2, "metrics_s": 0.05,
    "prepare_s": 0.02, "read_s": 0.01, "commit_s": 0.01, "other_s": 0.005, "waiting_s": 0.005,
    "register_q1_s": 0.19, "register_q3_s": 0.21, "processor_s": 0.3, "dice_mean": 0.9,
    "epe_mm": 1.5, "sdlogj": 0.25,
}
KERNEL: dict[str, Any] = {
    "method": "voxelopt", "kernel": "compose", "shape": "96x80x128", "device": "cpu", "repeats": 5,
    "median_ms": 10.0, "q1_ms": 9.0, "q3_ms": 11.0, "mbytes": 35.0, "mflop": 212.0,
    "floor_ms": 2.5, "bound": "arithmetic", "over_floor": 4.0, "processor_ms": 9.5, "gb_s": 40.0,
    "gflop_s": 100.0,
}
# fmt: on


def task(store: Path, **changes: Any) -> CellTask:
    given = CellTask(str(store), (("sub-00", "sub-01"),), "voxelopt", QUICK, "cpu", 1, 2)
    return replace(given, **changes)


def test_median_and_quartiles_are_those_of_the_definition() -> None:
    assert spread([4.0, 1.0, 3.0, 2.0, 5.0]) == (3.0, 2.0, 4.0)
    assert spread([1.0, 2.0, 3.0, 4.0]) == (2.5, 1.75, 3.25)
    with pytest.raises(ValueError, match="at least one repeat, got none"):
        spread([])


def test_the_first_call_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    clock = SimpleNamespace(perf_counter=lambda: now[0], process_time=lambda: now[0])
    monkeypatch.setattr(timing, "time", clock)
    takes = iter([100.0, 1.0, 2.0, 3.0])

    def call() -> None:
        now[0] += next(takes)

    watch = repeated(call, CPU, 3)
    assert spread(watch.wall["call"]) == spread(watch.processor["call"]) == (2.0, 1.5, 2.5)


def test_what_the_first_turn_took_beyond_the_others_is_apart() -> None:
    watches = []
    for read, prepare, register in ((1.0, 5.0, 20.0), (0.1, 1.0, 4.0), (0.3, 1.0, 6.0)):
        watch = Stopwatch(CPU)
        watch.wall = {"read": [read] * 2, "prepare": [prepare] * 2, "register": [register]}
        watch.processor = {"register": [register / 2]}
        watches.append(watch)
    row = cell._times(watches, batch=2)
    assert (row["register_s"], row["register_cpu_s"]) == (2.5, 1.25)
    assert row["first_extra_s"] == 30.0 - 7.0  # prepare and register, of the whole turn
    assert row["pairs_per_hour"] == 3600 / 2.5


def test_a_cold_pair_has_two_subjects_of_its_own_however_many_a_turn_prepared() -> None:
    def turn(register: float, read: list[float]) -> Stopwatch:
        watch = Stopwatch(CPU)
        watch.wall = {"read": read, "prepare": [0.5] * len(read), "register": [register]}
        watch.processor = {"register": [register]}
        return watch

    turns = [turn(16.0, [0.1, 0.2]), turn(32.0, [0.3, 0.2])]  # 16 pairs of two subjects
    row = cell._times([turn(99.0, [9.0, 9.0]), *turns], batch=16)
    assert row["cold_s"] == pytest.approx(1.5 + 2 * 0.2 + 2 * 0.5)
    assert row["cold_q1_s"] == pytest.approx(1.25 + 2 * 0.175 + 2 * 0.5)
    assert row["cold_q3_s"] == pytest.approx(1.75 + 2 * 0.225 + 2 * 0.5)
    assert row["pairs_per_hour_cold"] == pytest.approx(3600 / 2.9)


def test_a_cell_tells_times_memory_and_accuracy_of_every_pair(tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "store", 3).path
    pairs = (("sub-00", "sub-01"), ("sub-00", "sub-02"), ("sub-01", "sub-00"))
    row = found_here(task(store, pairs=pairs, batch=2))
    assert (row["status"], row["pairs"], row["repeats"]) == ("ok", 3, 2)
    assert 0 < row["register_q1_s"] <= row["register_s"] <= row["register_q3_s"] < row["cold_q3_s"]
    assert row["dice_before"] < row["dice_mean"] <= 1
    assert row["peak_mib"] >= 0


def test_peak_memory_is_what_was_taken_since(tmp_path: Path) -> None:
    del tmp_path
    before = forget_peak()
    block = torch.ones(16 << 20)
    del block
    assert peak_bytes() - before > 50 << 20


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"settings": ("radus=1",)}, "E_SETTING", "unknown setting 'radus'"),
        ({"store": "nowhere"}, "E_STORE", "nowhere is no cohort store"),
        ({"method": "dio", "settings": ("features=mind", "window=4")}, "E_SETTING", "window"),
    ],
)
def test_a_method_that_fails_is_a_row_with_the_reason(
    tmp_path: Path, changes: dict[str, Any], code: str, message: str
) -> None:
    store = tiny_cohort(tmp_path / "store", 2).path
    row = found_here(replace(task(store), **changes))
    assert row["status"] == code
    assert message in row["message"]


def test_a_process_that_dies_is_a_row_with_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart.sys, "executable", "/bin/false")
    assert measured_apart(task(Path("store"))) == {
        "status": "E_PROCESS",
        "message": "its process ended with 1: ",
    }


def test_a_task_comes_through_json_as_it_was() -> None:
    for given in (task(Path("store")), KernelTask(("dio",), (16, 18, 20), "cpu", 5)):
        told = json.loads(json.dumps({"kind": type(given).__name__, "task": vars(given)}))
        assert apart._task_of(told) == given


class FakeMachine:
    """Cells, kernels and runs without measuring; what a set names fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.failing: set[str] = set()
        monkeypatch.setattr(study, "measured_apart", self.apart)
        monkeypatch.setattr(study, "measure_run", self.run)
        heads = SimpleNamespace(store="store", pairs=(), shape=(96, 80, 128), run="all")
        monkeypatch.setattr(study, "synthetic_pairs", lambda *_: heads)

    def apart(self, given: CellTask | KernelTask, *, fresh_cache: bool = False) -> dict[str, Any]:
        if isinstance(given, KernelTask):
            self.calls.append("kernels")
            return {"status": "ok", "message": "", "rows": [KERNEL]}
        self.calls.append("compile" if fresh_cache else f"{given.method} {given.repeats}")
        if given.method in self.failing:
            return {"status": "E_METHOD", "message": "RuntimeError: broken"}
        facts = ("variant", "method", "settings", "shape", "voxels", "device", "batch")
        return {name: value for name, value in CELL.items() if name not in facts}

    def run(self, given: Any, folder: Path) -> dict[str, Any]:
        del folder
        self.calls.append(f"run {given.workers}")
        if given.workers > 2:
            raise UsageError("E_BENCH_CORES", "3 workers of one thread need as many cores, has 2")
        facts = ("variant", "method", "settings", "shape", "voxels", "device", "workers")
        row = {name: value for name, value in RUN.items() if name not in facts}
        return row | {"busy_s": 0.3 * given.workers**0.5}


def two_methods(**changes: Any) -> BenchSettings:
    chosen: dict[str, Any] = {
        "variants": (Variant("voxelopt"), Variant("dio")),
        "shapes": ((96, 80, 128),),
    }
    return BenchSettings(**chosen | changes)


def test_a_study_goes_on_and_tries_again_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = FakeMachine(monkeypatch)
    machine.failing = {"dio"}
    told: list[float] = []
    bench(tmp_path, two_methods(), Listener(told.append))
    assert machine.calls[:2] == ["voxelopt 1", "dio 1"]  # trials, before anything is foretold
    assert len(told) == 1
    found = read_tables(tmp_path)
    assert [(row["method"], row["status"]) for row in found["cells"]] == [
        ("dio", "E_METHOD"),
        ("voxelopt", "ok"),
    ]
    assert found["cells"][0]["message"] == "RuntimeError: broken"
    assert found["cells"][1]["compile_s"] == 1.5
    machine.calls, machine.failing = [], set()
    bench(tmp_path, two_methods(workers=(1, 2, 3)))
    assert "voxelopt 5" not in machine.calls
    assert machine.calls.count("dio 5") == 1
    assert [call for call in machine.calls if call.startswith("run")] == ["run 3", "run 3"]
    runs = [row for row in read_tables(tmp_path)["end_to_end"] if row["method"] == "voxelopt"]
    assert [row["efficiency"] for row in runs] == [1.0, pytest.approx(0.5**0.5), None]
    assert runs[2]["status"] == "E_BENCH_CORES"
    machine.calls = []
    bench(tmp_path, two_methods())
    assert machine.calls == []


def test_what_is_measured_is_not_foretold_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "heads_missing", lambda *_: {})
    FakeMachine(monkeypatch)
    told: list[float] = []
    for workers in ((1,), (1,), (1, 2)):
        bench(tmp_path, two_methods(workers=workers), Listener(told.append))
    of_runs = 2 * (2 * 5.0 + 30 * CELL["register_s"] / 2)  # of two methods, by two workers
    assert told[0] > 100
    assert told[1:] == [0, pytest.approx(of_runs)]


def test_tables_and_page_say_what_was_found_and_what_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FakeMachine(monkeypatch).failing = {"dio"}
    bench(tmp_path, two_methods(workers=(1, 3)))
    page = write_bench(tmp_path, hourly_price=2.0).read_text()
    assert "| voxelopt | 96x80x128 | cpu | 1 | 18,000 | 0.2 | 0.19 to 0.21 |" in page
    assert "| dio | 96x80x128 | cpu | 1 | E_METHOD: RuntimeError: broken |" in page
    assert "| 10 | 9 to 11 | 9.5 | 40 | 100 | 2.5 | arithmetic | 4.0 |" in page
    assert "E_BENCH_CORES: 3 workers of one thread need as many cores, has 2" in page
    assert "nothing was measured on a GPU" in page
    assert "of workers and driver,\ntheir start included" in page
    cells = pl.read_csv(tmp_path / "cells.csv")
    assert cells["dice_mean"].to_list() == [None, 0.9]
    assert pl.read_csv(tmp_path / "kernels.csv")["over_floor"].to_list() == [4.0]
    for name in ("throughput_accuracy", "cost"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "cost of 1,000 pairs at 2 an hour" in (tmp_path / "cost.svg").read_text()
    assert not (tmp_path / "energy.png").exists()


def test_a_card_gives_energy_and_a_table(tmp_path: Path) -> None:
    own = {"device": "cuda", "device_mib": 900.0, "clock_mhz": 1980.0, "power_w": 600.0}
    cells = [{**CELL, **own, "joules_a_pair": 1.2, "compile_s": None}]
    document = {"machine": {"card": "Card"}, "cells": cells, "kernels": [],
                "end_to_end": []}  # fmt: skip
    (tmp_path / "bench.json").write_text(json.dumps(document))
    write_bench(tmp_path)
    assert "kWh for 1,000 pairs" in (tmp_path / "energy.svg").read_text()
    page = bench_markdown(document)
    assert "| voxelopt | 96x80x128 | 1 | 900 | 1.98e+03 | 600 | 1.2 |" in page
    assert "nothing was measured on a GPU" not in page
    assert parse_reading("612.31, 1980, 2619, [N/A]\n") == {
        "power.draw": 612.31, "clocks.sm": 1980.0, "clocks.mem": 2619.0,
    }  # fmt: skip
    assert parse_reading("") == {}


def test_a_folder_of_something_else_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("somebody's run")
    with pytest.raises(UsageError, match=r"is no study and not empty .it holds run"):
        Kept(tmp_path, {"processor": "A"})
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (tmp_path / "run" / "run.json").read_text() == "somebody's run"


def test_another_machine_needs_another_folder(tmp_path: Path) -> None:
    Kept(tmp_path, {"processor": "A", "torch": "2", "cores": "2"})
    Kept(tmp_path, {"processor": "A", "torch": "2", "cores": "1"})
    with pytest.raises(UsageError, match=r"another machine or version \(processor A there, B here"):
        Kept(tmp_path, {"processor": "B", "torch": "2"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"store": "a"}, "--store synthetic heads there, /a here"),
        ({"pairs": 3}, "--pairs 2 there, 3 here"),
        ({"repeats": 6}, "--repeats 5 there, 6 here"),
    ],
)
def test_another_data_set_needs_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    FakeMachine(monkeypatch)
    stored = SimpleNamespace(store="/a", pairs=(), shape=(96, 80, 128), run="all")
    monkeypatch.setattr(study, "stored_pairs", lambda _: stored)
    monkeypatch.setattr(study, "_at_its_shape", lambda settings: settings)
    bench(tmp_path, two_methods())
    bench(tmp_path, two_methods(workers=(1, 3)))
    with pytest.raises(UsageError, match=message) as caught:
        bench(tmp_path, two_methods(**changes))
    assert caught.value.code == "E_BENCH"
    assert "holds measurements of something else" in caught.value.message


def test_registering_in_a_whole_run_is_told_by_its_median(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tiny_cohort(tmp_path / "store", 3).path
    times = [1.0, 2.0, 2.0, 3.0, 3.0, 90.0]

    def read(folder: Path) -> pl.DataFrame:
        return read_rows(folder).with_columns(pl.Series("register_s", times))

    monkeypatch.setattr(end_to_end, "read_rows", read)
    task = RunTask(
        Pairs(str(store), (96, 80, 128), (), "all"), Variant("voxelopt", QUICK), "cpu", 1
    )
    row = measure_run(task, tmp_path / "run")
    assert (row["register_q1_s"], row["register_s"], row["register_q3_s"]) == (2.0, 2.5, 3.0)
    assert row["busy_s"] < 90


def test_pairs_and_other_tools_are_told_apart_when_they_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("fixed,moving\na,b\n")
    plain = BenchSettings(store="a")
    named = replace(plain, pairs_file=tmp_path / "pairs.csv")
    assert plain.measured("/a") != named.measured("/a")
    assert plain.measured("/a")["--pairs-file"] == "none"
    own, other = (replace(plain, peers=which).measured("/a") for which in ("true", "false"))
    for first, second in ((plain.measured("/a"), own), (own, plain.measured("/a"))):
        Kept(tmp_path / "out", {}, first)
        Kept(tmp_path / "out", {}, second)
    with pytest.raises(UsageError, match=r"--peers .*true there, .*false here"):
        Kept(tmp_path / "out", {}, other)


def test_kernels_and_compilations_that_fail_are_told(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = FakeMachine(monkeypatch)

    def apart(given: CellTask | KernelTask, *, fresh_cache: bool = False) -> dict[str, Any]:
        if fresh_cache or isinstance(given, KernelTask):
            return {"status": "E_PROCESS", "message": "its process ended with 1: "}
        return machine.apart(given)

    monkeypatch.setattr(study, "measured_apart", apart)
    asked = ("--methods", "voxelopt", "--shapes", "96x80x128", "--workers", "1")
    shown = cohort("bench", tmp_path / "out", *asked, "--json")
    assert shown.code == 1
    assert [len(rows) for rows in shown.json["left_out"].values()] == [1, 1]
    page = (tmp_path / "out" / "bench.md").read_text()
    assert "| voxelopt | 96x80x128 | cpu | E_PROCESS: its process ended with 1: |" in page
    assert "not compiled apart" in page


def test_what_does_not_fit_is_told_by_the_cells_before(monkeypatch: pytest.MonkeyPatch) -> None:
    free = SimpleNamespace(available=4 << 30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    large = Cell(Variant("voxelopt"), (192, 160, 256), "cpu", 1)
    near = [CELL, {**CELL, "voxels": 1032192, "peak_mib": 1200.0}]  # noise is no slope
    assert what_does_not_fit(replace(large, shape=(96, 160, 224)), near) is None
    done = [CELL, {**CELL, "voxels": 2 * 983040, "peak_mib": 1000.0}]
    assert what_does_not_fit(large, []) is None
    assert what_does_not_fit(large, done) is None  # 600 MiB and 200 more each 983,040 voxels
    reason = what_does_not_fit(replace(large, batch=4), done)
    assert reason == "would need about 6.8 GiB of the process's memory and 4.0 are free"
    assert what_does_not_fit(replace(large, variant=Variant("dio"), batch=4), done) is None


def test_floors_of_the_published_level_are_those_that_are_told() -> None:
    voxels = 96 * 80 * 128
    found = floors.level(voxels, 14, LevelSettings())
    assert found.bytes == pytest.approx(1.3e9, rel=0.05)
    assert found.operations == pytest.approx(6.9e9, rel=0.05)
    one = floors.dense_match(1000, 24)
    assert one == (24_000, (6 * 24 + 2 * floors.ROUND + floors.SUMMARY) * 1000)
    assert floors.iteration(10, 16, "mse", "add").bytes == (8 * 16 + 108) * 10


def test_every_kernel_has_a_floor_and_is_bound_by_the_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from cohort.studies.bench import rooflines

    monkeypatch.setattr(rooflines, "measured_rates", lambda _: rooflines.Rates(1e9, 1e12))
    methods = "voxelopt", "pdd_net", "dio"
    found = measure_kernels(KernelTask(methods, (24, 26, 28), "cpu", 1))
    assert {row["method"] for row in found["rows"]} == {*methods, "measures"}
    for row in found["rows"]:
        assert row["floor_ms"] > 0
        assert row["bound"] == "memory"
        assert row["floor_ms"] == pytest.approx(row["mbytes"])
        assert row["over_floor"] == pytest.approx(row["median_ms"] / row["floor_ms"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--repeats 4", "--repeats 4: need 5 or more"),
        ("--shapes 96x80", "'96x80' is no shape; need three sizes of 16 to 512"),
        ("--methods syn", "unknown method 'syn'; known: voxelopt, pdd_net, dio"),
        ("--batches 0", "--batches 0: need whole numbers above 0"),
        ("--pairs-file pairs.csv", "--pairs-file names subjects of a store; need --store"),
        ("--store a.zarr --shapes 32x32x32", "--shapes 32x32x32: a store's pairs have its own"),
        ("--store a.zarr --quick", "--quick: a store's pairs have its own shape"),
    ],
)
def test_wrong_usage_gives_2(cohort: Cohort, tmp_path: Path, options: str, message: str) -> None:
    shown = cohort("bench", tmp_path / "out", *options.split())
    assert shown.code == 2
    assert shown.err.startswith("error E_BENCH: ")
    assert message in shown.err
    assert not (tmp_path / "out").exists()


def test_no_card_gives_2_and_names_options_of_this_command(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    shown = cohort("bench", tmp_path / "out", "--device", "cuda")
    assert shown.code == 2
    said = " ".join(shown.err.split())
    assert said.startswith("error E_DEVICE: --device cuda: torch finds no GPU here; measure where")
    assert said.endswith("or this machine's processor with --device cpu")
    assert not (tmp_path / "out").exists()


def test_the_command_tells_what_it_takes_and_what_it_found(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = FakeMachine(monkeypatch)
    out = tmp_path / "out"
    shown = cohort("bench", out, "--methods", "voxelopt", "--quick", "--workers", "3")
    assert shown.code == 0
    assert "this takes about" in shown.out
    assert "3 workers of one thread need as many cores" in shown.out
    assert (out / "bench.md").is_file()
    machine.failing = {"dio"}
    found = cohort("bench", out, "--methods", "dio", "--quick", "--json")
    assert found.code == 1
    assert {row["status"] for row in found.json["cells"]} == {"ok", "E_METHOD"}


def test_the_readme_shows_methods_by_shapes_of_each_machine(tmp_path: Path) -> None:
    folder = tmp_path / "bench_cpu"
    folder.mkdir()
    (folder / "machine.json").write_text('{"processor": "AMD EPYC family 26"}')
    rows = [CELL, {**CELL, "shape": "96x112x96", "register_cpu_s": 0.1, "peak_mib": 900.4},
            {**CELL, "method": "dio", "shape": "96x112x96", "status": "E_METHOD"},
            {**CELL, "batch": 4, "pairs_per_hour": 1.0}]  # fmt: skip
    write_table(folder / "cells.csv", CELLS, rows)
    lines = block(PROJECT / "README.md", tmp_path).splitlines()
    assert "|  | 96 x 80 x 128 | 96 x 112 x 96 | Dice | EPE, mm | MiB |" in lines
    assert "| VoxelOpt | 18,000 (18,000) | 18,000 (36,000) | .900 | 1.50 | 900 |" in lines
    assert not [line for line in lines if line.startswith("| DIO")]


def test_cells_are_all_combinations_small_volumes_first() -> None:
    settings = two_methods(shapes=parse_shapes("32x32x32,48x48x48"), batches=(1, 4))
    cells = list(settings.cells())
    assert len(cells) == 8
    assert len({one.key for one in cells}) == 8
    sizes = [math.prod(one.shape) for one in cells]
    assert sizes == sorted(sizes)
    assert {one.batch for one in two_methods(device="cuda").cells()} == {1, 4, 16}
