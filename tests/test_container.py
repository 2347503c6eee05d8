"""The recipes of the images: what they copy is there, and both hold the same."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import typer
from helpers import PROJECT

FOLDER = PROJECT / "workflows" / "container"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
DEFINITION = (FOLDER / "cohort.def").read_text()
INSTALL = (FOLDER / "install.sh").read_text()


def _instructions() -> list[tuple[str, str]]:
    """Dockerfile instructions and their arguments, in order."""
    text = re.sub(r"\\\n", " ", DOCKERFILE)
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1].strip()) for line in lines]


def _sections() -> dict[str, list[str]]:
    """Lines of each section of the Apptainer definition; those before the first under ''."""
    sections: dict[str, list[str]] = {"": []}
    name = ""
    for line in DEFINITION.splitlines():
        if line.startswith("%"):
            name = line[1:].strip()
            sections[name] = []
        elif line.strip() and not line.lstrip().startswith("#"):
            sections[name].append(line.strip())
    return sections


def _copied_by_docker() -> set[str]:
    copies = [arguments.split() for name, arguments in _instructions() if name == "COPY"]
    return {path for *paths, _ in copies for path in paths}


def _copied_by_apptainer() -> set[str]:
    return {line.split()[0] for line in _sections()["files"]}


def test_both_copy_what_is_there_to_the_same_places() -> None:
    assert _copied_by_docker() == _copied_by_apptainer()
    assert all((PROJECT / path).exists() for path in _copied_by_docker())
    assert all(f"/src/{line.split()[0]}" == line.split()[1] for line in _sections()["files"])
    folders = [arguments for name, arguments in _instructions() if name == "WORKDIR"]
    assert folders[0] == "/src"


def test_what_the_package_is_built_from_is_copied() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    needed |= set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    assert needed | {"constraints.txt"} < _copied_by_docker()


def test_the_context_is_what_is_copied_and_no_more() -> None:
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text().split()
    assert ignored[0] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == _copied_by_docker()


def test_both_start_from_one_base_with_one_argument_and_run_one_script() -> None:
    instructions = dict(_instructions())
    base = instructions["FROM"]
    assert f"From: {base}" in _sections()[""]
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base)
    required = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert f">={'.'.join(base.removeprefix('python:').split('.')[:2])}" == required
    assert [arguments for name, arguments in _instructions() if name == "ARG"] == (
        _sections()["arguments"]
    )
    script = "sh workflows/container/install.sh"
    runs = [arguments for name, arguments in _instructions() if name == "RUN"]
    assert runs[0] == f'TORCH_INDEX="$TORCH_INDEX" {script}'
    assert _sections()["post"] == ["cd /src", f'TORCH_INDEX="{{{{ TORCH_INDEX }}}}" {script}']


def test_the_entry_point_is_the_command_and_nobody_is_root() -> None:
    names = [name for name, _ in _instructions()]
    instructions = dict(_instructions())
    assert instructions["ENTRYPOINT"] == '["cohort"]'
    assert instructions["USER"] not in {"root", "0"}
    assert names.index("RUN") < names.index("USER") < names.index("ENTRYPOINT")
    assert _sections()["runscript"] == ['exec cohort "$@"']
    scripts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["scripts"]
    assert "cohort" in scripts


def test_every_version_is_pinned() -> None:
    (line,) = [line for line in INSTALL.splitlines() if line.startswith("pip install")]
    assert "--constraint constraints.txt" in line
    assert "--no-cache-dir" in line
    extras = re.search(r"'\.\[([\w,]+)\]'", line)
    assert extras is not None
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    asked = [one for extra in extras.group(1).split(",") for one in optional[extra]]
    pinned = {
        one.split("==")[0].lower()
        for one in (PROJECT / "constraints.txt").read_text().splitlines()
        if "==" in one
    }
    for requirement in (*project["dependencies"], *asked):
        assert re.split(r"[><=;\[ ]", requirement)[0].lower() in pinned, requirement


@pytest.mark.parametrize(
    ("text", "forbidden"),
    [
        (DOCKERFILE, r"^ADD |:latest|\bsudo\b|^MAINTAINER|apt-get upgrade|curl .*\| *sh"),
        (INSTALL, r"\bsudo\b|apt-get upgrade|apt-get install(?!.*--no-install-recommends)"),
    ],
    ids=["Dockerfile", "install.sh"],
)
def test_what_image_linters_forbid_is_not_there(text: str, forbidden: str) -> None:
    assert not re.search(forbidden, text, re.MULTILINE)


def test_the_script_is_one_and_clears_away_after_itself() -> None:
    subprocess.run(["sh", "-n", FOLDER / "install.sh"], check=True)
    assert INSTALL.splitlines()[2] == "set -eu"
    assert INSTALL.index("apt-get update") < INSTALL.index("rm -rf /var/lib/apt/lists/*")


@pytest.mark.parametrize("path", [FOLDER / "Dockerfile", FOLDER / "cohort.def"])
def test_the_commands_that_a_header_shows_exist(path: Path) -> None:
    from cohort import cli

    names = set(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]
    shown = re.findall(r"(?:triton-reg:[cg]pu(?: \\\n#)? +|\.sif )(\w+) ", path.read_text())
    assert {"ingest", "register"} <= set(shown) <= names | {"workflows"}
