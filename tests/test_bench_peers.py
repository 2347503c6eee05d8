"""Other tools in the throughput study, with a script in place of their interpreter."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import Cohort
from helpers import tiny_cohort

from cohort.errors import UsageError
from cohort.report.bench import write_bench
from cohort.studies.bench import apart, study
from cohort.studies.bench.apart import found_here, measured_apart
from cohort.studies.bench.cell import CellTask
from cohort.studies.bench.peers import PEERS, SCRIPT, PeerTask
from cohort.studies.bench.peers_tools import TOOLS
from cohort.studies.bench.rooflines import KernelTask
from cohort.studies.bench.settings import BenchSettings, Variant
from cohort.studies.bench.study import Listener, bench
from cohort.studies.bench.tables import read_tables

Interpreter = Callable[[str], str]
# what a tool does that finds everything still, in 9, 1, 2, 3, ... seconds
STILL = """
import json, os, sys
import numpy as np

script, tool, pairs_path, folder = sys.argv[1:]
data = np.load(pairs_path)
assert data["volumes"].dtype == np.float32
assert data["volumes"].shape == data["labels"].shape
told = {"script": script, "tool": tool, "pairs": data["pairs"].tolist(),
        "spacing_mm": data["spacing_mm"].tolist(), "threads": os.environ["OMP_NUM_THREADS"],
        "safe": os.environ["PYTHONSAFEPATH"]}
open(__file__ + ".json", "w").write(json.dumps(told))
for index, (fixed, moving) in enumerate(data["pairs"]):
    labels = data["labels"][moving]
    seconds = index or 9
    np.savez(f"{folder}/{index}.npz", displacement=np.zeros((3, *labels.shape), np.float32),
             labels=labels, version="still 1.2", register_s=seconds, register_cpu_s=seconds / 2,
             peak_mib=100.0 + index)
"""
FAILS = "import sys\nprint('no module named ' + sys.argv[2])\nsys.exit(3)\n"


@pytest.fixture
def interpreter(tmp_path: Path) -> Interpreter:
    """Makes a program that, whatever script it is given, runs a text in this Python."""

    def made(text: str) -> str:
        body, program = tmp_path / "tool.py", tmp_path / "python"
        body.write_text(text)
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {body} "$@"\n')
        program.chmod(0o755)
        return str(program)

    return made


def task(store: Path, python: str, **changes: Any) -> PeerTask:
    pairs = (("sub-00", "sub-01"), ("sub-02", "sub-00"))
    return replace(PeerTask(str(store), pairs, "demons", python, 5), **changes)


def test_a_row_has_what_rows_of_methods_have(tmp_path: Path, interpreter: Interpreter) -> None:
    store = tiny_cohort(tmp_path / "store", 3).path
    row = found_here(task(store, interpreter(STILL)))
    assert (row["status"], row["message"], row["version"]) == ("ok", "", "still 1.2")
    assert (row["repeats"], row["pairs"]) == (5, 2)
    assert (row["register_q1_s"], row["register_s"], row["register_q3_s"]) == (2.0, 3.0, 4.0)
    assert (row["register_cpu_s"], row["pairs_per_hour"]) == (1.5, 1200.0)
    assert row["first_extra_s"] == 6.0  # the first of six turns is apart
    assert row["peak_mib"] == 105.0
    assert 0 < row["dice_mean"] == row["dice_before"] < 1
    assert row["folding"] == row["sdlogj"] == 0
    told = json.loads((tmp_path / "tool.py.json").read_text())
    first, second = told["pairs"][:2]
    assert told["pairs"] == [first, second] * 3
    assert first[0] == second[1]  # sub-00, fixed first
    assert told["spacing_mm"] == [2.0, 2.0, 2.0]
    assert (told["script"], told["tool"], told["threads"]) == (str(SCRIPT), "demons", "1")
    assert told["safe"] == "1"  # `timing` and the like beside the script are not the tool's


def test_a_tool_that_moves_labels_otherwise_is_refused(
    tmp_path: Path, interpreter: Interpreter
) -> None:
    store = tiny_cohort(tmp_path / "store", 3).path
    other = STILL.replace("labels=labels,", "labels=data['labels'][fixed],")
    row = found_here(task(store, interpreter(other)))
    assert row["status"] == "E_METHOD"
    assert "demons: pair sub-00, sub-01 has Dice" in row["message"]
    assert "1.000 by the tool's own warp" in row["message"]


def test_a_tool_that_fails_is_a_row_with_its_last_words(
    tmp_path: Path, interpreter: Interpreter
) -> None:
    store = tiny_cohort(tmp_path / "store", 3).path
    assert found_here(task(store, interpreter(FAILS))) == {
        "status": "E_PROCESS",
        "message": "its process ended with 3: no module named demons",
    }


@pytest.mark.slow
def test_the_script_itself_is_run_and_says_what_is_missing(tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "store", 3).path
    row = measured_apart(task(store, sys.executable, tool="greedy NCC"))
    assert row["status"] == "E_PROCESS"
    assert "No module named" in row["message"]


def test_a_task_comes_through_json_as_it_was() -> None:
    given = task(Path("store"), "python")
    told = json.loads(json.dumps({"kind": "PeerTask", "task": vars(given)}))
    assert apart._task_of(told) == given


class OnlyPeers:
    """Methods, kernels and runs fail at once; other tools are measured in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: str) -> None:
        self.tools: list[str] = []
        self.store = store
        monkeypatch.setattr(study, "measured_apart", self.apart)
        nothing = {"status": "E_METHOD", "message": "not now"}
        monkeypatch.setattr(study, "measure_run", lambda *_: nothing)

    def apart(
        self, given: CellTask | PeerTask | KernelTask, *, fresh_cache: bool = False
    ) -> dict[str, Any]:
        del fresh_cache
        if not isinstance(given, PeerTask):
            return {"status": "E_METHOD", "message": "not now"}
        self.tools.append(given.tool)
        assert given.store == self.store
        return found_here(given)

    def settings(self, python: str | None) -> BenchSettings:
        variants = (Variant("voxelopt"),)
        return BenchSettings(variants=variants, store=self.store, compiles=False, peers=python)


def test_a_study_adds_every_tool_but_the_slow_and_tries_again_what_failed(
    tmp_path: Path, interpreter: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = OnlyPeers(monkeypatch, tiny_cohort(tmp_path / "store", 3).address)
    told: list[float] = []
    bench(tmp_path / "out", machine.settings(None), Listener(told.append))
    assert machine.tools == []
    bench(tmp_path / "out", machine.settings(interpreter(FAILS)), Listener(told.append))
    assert told[1] > told[0]
    assert machine.tools == list(PEERS)
    assert set(TOOLS) - set(PEERS) == {"SyN CC"}
    page = write_bench(tmp_path / "out").read_text()
    assert "| demons | 16x18x20 | cpu | 1 | E_PROCESS: its process ended with 3" in page
    assert "### Other tools" not in page
    bench(tmp_path / "out", machine.settings(interpreter(STILL)))
    assert machine.tools == 2 * list(PEERS)
    bench(tmp_path / "out", machine.settings(interpreter(STILL)))
    assert machine.tools == 2 * list(PEERS)
    rows = {row["variant"]: row for row in read_tables(tmp_path / "out")["cells"]}
    assert set(rows) == {"voxelopt", *PEERS}
    row = rows["SyN Mattes"]
    assert (row["device"], row["batch"], row["shape"]) == ("cpu", 1, "16x18x20")
    assert row["settings"] == TOOLS["SyN Mattes"].settings
    page = write_bench(tmp_path / "out").read_text()
    assert "| greedy NCC | 16x18x20 | cpu | 1 | 1,200 | 3 | 2 to 4 | 1.5 |" in page
    assert "Separate programs" in page
    assert "| greedy NCC | still 1.2 | NCC 2x2x2, 100x50x10 |" in page
    header, *lines = (tmp_path / "out" / "cells.csv").read_text().splitlines()
    assert header.endswith(",version")
    assert len([line for line in lines if line.endswith(",still 1.2")]) == len(PEERS)
    assert "greedy NCC" in (tmp_path / "out" / "throughput_accuracy.svg").read_text()


def test_an_interpreter_that_is_not_there_is_told_before_anything_is_measured(
    cohort: Cohort, tmp_path: Path
) -> None:
    shown = cohort("bench", tmp_path / "out", "--peers", tmp_path / "python")
    assert shown.code == 2
    assert shown.err.startswith(f"error E_BENCH: --peers {tmp_path / 'python'}: no such program")
    assert "need a Python that has the other tools" in shown.err.replace("\n", " ")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="--peers : no such program"):
        BenchSettings(peers="")
