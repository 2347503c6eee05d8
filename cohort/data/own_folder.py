"""Folders that commands make their own: where something else lies, nothing is written over it."""

from collections.abc import Collection
from pathlib import Path

from cohort.data.storage import storage_error
from cohort.errors import UsageError


def own_folder(out: Path, code: str, kind: str, *, mark: str, begun: Collection[str] = ()) -> None:
    """Make a folder unless it is there and of this kind, empty, or of one that had only begun.

    Args:
        out: the folder.
        code: of the error.
        kind: of folder, in words: ``"fusion"``.
        mark: name of the file that makes a folder one of its kind.
        begun: names that one may hold before it has its mark.

    Raises:
        UsageError: `code` if it is a file, or a folder that holds something else.
        StorageError: if it cannot be made.
    """
    try:
        if out.exists() and not out.is_dir():
            raise UsageError(code, f"{out} is a file; need a new or an empty folder")
        out.mkdir(parents=True, exist_ok=True)
        names = {one.name for one in out.iterdir() if not one.name.startswith(".")}
    except OSError as error:
        raise storage_error(out, error) from error
    foreign = sorted(names.difference(begun))
    if foreign and mark not in names:
        raise UsageError(
            code,
            f"{out} is no {kind} and not empty (it holds {foreign[0]}); need a new or an empty"
            " folder",
        )
