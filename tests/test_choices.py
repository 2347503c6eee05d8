"""The YAML files of the workflow scripts: what they may say, and how a script ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import PROJECT, tiny_cohort

from cohort.config.choices import read_choices
from cohort.errors import UsageError

DEFAULTS = """
subjects: null
iterations: 4
set: []
template:
  center: mean
  sharpen: 0.0
  symmetric: false
  shrink: []
"""


@pytest.fixture
def defaults(tmp_path: Path) -> Path:
    (tmp_path / "defaults.yaml").write_text(DEFAULTS)
    return tmp_path / "defaults.yaml"


def chosen(defaults: Path, text: str) -> dict:
    (defaults.parent / "own.yaml").write_text(text)
    return read_choices(defaults.parent / "own.yaml", defaults)


def test_what_is_left_out_is_as_it_comes(defaults: Path) -> None:
    whole = {
        "subjects": None, "iterations": 4, "set": [],
        "template": {"center": "mean", "sharpen": 0.0, "symmetric": False, "shrink": []},
    }  # fmt: skip
    assert chosen(defaults, "") == whole
    found = chosen(defaults, "iterations: 2\ntemplate: {center: huber}\n")
    inner = {**whole["template"], "center": "huber"}
    assert found == {**whole, "iterations": 2, "template": inner}


def test_lists_and_single_values_are_taken_for_each_other(defaults: Path) -> None:
    found = chosen(defaults, "subjects: [a, b]\nset: levels=2\ntemplate: {shrink: 2}\n")
    assert (found["subjects"], found["set"]) == ("a,b", ["levels=2"])
    assert found["template"]["shrink"] == [2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("itertions: 1", "unknown key itertions; possible: subjects, iterations, set, template"),
        ("template: {centre: mean}", "own.yaml, template: unknown key centre; possible: center"),
        ("template: 3", "own.yaml: template needs KEY: VALUE lines, got 3"),
        ("iterations: x", "own.yaml: iterations needs a whole number, got 'x'"),
        ("iterations: true", "own.yaml: iterations needs a whole number, got True"),
        ("template: {sharpen: x}", "own.yaml, template: sharpen needs a number, got 'x'"),
        ("template: {symmetric: 3}", "own.yaml, template: symmetric needs true or false, got 3"),
        ("set: {levels: 2}", "own.yaml: set needs a name or a number, got {'levels': 2}"),
        ("- a", "need KEY: VALUE lines, got a list"),
        ("a: [", "own.yaml cannot be read as YAML"),
    ],
    ids=[
        "key",
        "inner key",
        "no keys",
        "text",
        "truth",
        "no number",
        "no truth",
        "mapping",
        "list",
        "no yaml",
    ],
)
def test_what_cannot_be_meant_is_refused(defaults: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        chosen(defaults, text)
    assert caught.value.code == "E_CONFIG"


def test_a_file_that_is_not_there_is_named(defaults: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.yaml cannot be read"):
        read_choices(defaults.parent / "none.yaml", defaults)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["atlas", "fuse", "morphometry", "population", "pdd_ablation", "voxelopt_ablation"]
)
def test_a_script_without_a_store_says_so_in_a_sentence(name: str, tmp_path: Path) -> None:
    command = [sys.executable, PROJECT / "workflows" / f"{name}.py", tmp_path / "none", tmp_path]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error E_STORE")
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_too_few_subjects_for_the_folds_are_told(tmp_path: Path) -> None:
    tiny_cohort(tmp_path / "store", subjects=4)
    command = [sys.executable, PROJECT / "workflows" / "pdd_ablation.py", tmp_path / "store",
               tmp_path / "out", "--folds", "3"]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "--folds 3: need two subjects a fold, got 4" in ended.stderr


@pytest.mark.slow
def test_the_shell_script_ends_with_the_code_of_what_failed(tmp_path: Path) -> None:
    command = [PROJECT / "workflows" / "all_pairs.sh", tmp_path / "none", tmp_path / "out"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PATH": path}
    )
    assert ended.returncode == 2, ended.stderr
    assert "error E_" in ended.stderr


@pytest.mark.slow
def test_the_shell_script_says_what_it_needs() -> None:
    command = [PROJECT / "workflows" / "all_pairs.sh"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "SOURCE FOLDER" in ended.stderr
