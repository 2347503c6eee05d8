"""The folder of a run before its first part: made, refused, and given its plan."""

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from cohort.data.storage import storage_error, write_atomic, write_once
from cohort.engine.atlas import FOLDER
from cohort.errors import UsageError

PAIRS_FILE = "pairs.csv"


def make_folder(run_dir: Path) -> None:
    """Make the run's folder; only an empty one becomes a run.

    Raises:
        UsageError: ``E_RUN`` if something else is there.
        StorageError: if it cannot be made.
    """
    try:
        refuse_other_content(run_dir)
        (run_dir / "parts").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(run_dir, error) from error


def write_pairs(run_dir: Path, pairs: Iterable[tuple[str, str]]) -> None:
    """Keep pairs that the run's own facts would not give again."""
    write_atomic(run_dir / PAIRS_FILE, as_table(pairs))


def as_table(pairs: Iterable[tuple[str, str]]) -> bytes:
    """The CSV that a design can be."""
    lines = [f"{fixed},{moving}" for fixed, moving in pairs]
    return "\n".join(["fixed,moving", *lines, ""]).encode()


def write_spec(run_dir: Path, document: str) -> bool:
    """Make it a run; False if another process made one there at the same time."""
    return write_once(run_dir / "run.json", document.encode())


def take_back(run_dir: Path) -> None:
    """Take away a plan that is refused after all, unless somebody has begun to work on it."""
    with suppress(OSError):  # the refusal says more than why this failed
        names = {one.name for one in run_dir.iterdir()}
        if not names <= {"run.json", "parts", PAIRS_FILE, FOLDER}:
            return
        (run_dir / "parts").rmdir()  # fails if it is not empty
        for name in ("run.json", PAIRS_FILE):
            (run_dir / name).unlink(missing_ok=True)
        shutil.rmtree(run_dir / FOLDER, ignore_errors=True)
        run_dir.rmdir()


def refuse_other_content(run_dir: Path) -> None:
    """Leave a folder alone that is no run and not empty: its parts would pass for this run's.

    Raises:
        UsageError: ``E_RUN`` with what is there.
    """
    if not run_dir.exists():
        return
    if not run_dir.is_dir():
        raise UsageError("E_RUN", f"{run_dir} is a file; need a new or an empty folder for a run")
    found = [*run_dir.iterdir(), *(run_dir / "parts").glob("*")]
    ours = ("parts", PAIRS_FILE, FOLDER)  # of a plan that was not finished
    foreign = [path for path in found if path.name not in ours and not path.name.startswith(".")]
    if foreign:
        raise UsageError(
            "E_RUN",
            f"{run_dir} is no run and not empty (it holds {min(foreign).relative_to(run_dir)}); "
            "need a new or an empty folder",
        )
