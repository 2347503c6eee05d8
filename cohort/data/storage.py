"""Whose fault an `OSError` is, and files that are whole or absent."""

import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cohort.errors import CohortError, StorageError, SubjectError

TEMPORARY = ".tmp-"
REPLACED = ".old-"
ABANDONED_AFTER_S = 3600
_STORAGE_ERRNOS = {
    errno.EIO,
    errno.ESTALE,
    errno.EACCES,
    errno.EPERM,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOTCONN,
    errno.EROFS,
}


def is_storage_fault(error: OSError) -> bool:
    """Whether the file system is to blame, and not the content of one file."""
    return error.errno in _STORAGE_ERRNOS


def storage_error(path: Path | str, error: OSError) -> StorageError:
    """``error`` at ``path`` as a sentence with the free space there."""
    reason, path = error.strerror or str(error), Path(path)
    return StorageError(
        "E_STORAGE", f"{path}: {reason}; {_free_space(path)}. Nothing committed is lost; run again"
    )


@contextmanager
def subject_faults(subject_id: str, what: str, path: str) -> Iterator[None]:
    """Whatever fails in reading a subject is a broken file system or a broken subject."""
    try:
        yield
    except (CohortError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and is_storage_fault(error):
            raise storage_error(path, error) from error
        raise SubjectError(
            "E_CORRUPT",
            f"subject {subject_id}: {what} in {path} is damaged: {error}; ingest it again with"
            " --recheck",
        ) from error


def _free_space(path: Path) -> str:
    for folder in (path, *path.parents):
        try:
            return f"{shutil.disk_usage(folder).free} bytes are free"
        except OSError:
            continue
    return "the free space cannot be read"


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file that other processes see whole or not at all, also after a power cut."""
    with _written_beside(path, content) as temporary:
        temporary.replace(path)


def write_once(path: Path, content: bytes) -> bool:
    """Like `write_atomic`, but a file that is there stays: the first complete writer wins.

    Returns:
        Whether ``content`` is what is there now.
    """
    with _written_beside(path, content) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            # a network file system may say so of a link of its own whose answer was lost
            return temporary.stat().st_nlink == 2
    return True


@contextmanager
def _written_beside(path: Path, content: bytes) -> Iterator[Path]:
    """A complete temporary file in the folder of ``path``, to be given its name."""
    temporary = path.parent / f"{TEMPORARY}{uuid.uuid4().hex}"
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
        sync_folder(path.parent)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        with suppress(OSError):  # what went wrong before is the news
            temporary.unlink(missing_ok=True)


def to_json(document: Any) -> bytes:
    """Readable JSON with sorted keys: equal documents are equal bytes."""
    return (json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def sync_folder(folder: Path) -> None:
    """Make renames and new names in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make every file below ``folder`` survive a power cut."""
    for root, _, names in os.walk(folder):
        for name in names:
            with (Path(root) / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(root))


def sweep(folder: Path) -> None:
    """Remove what writers that died more than an hour ago left in ``folder``."""
    oldest = time.time() - ABANDONED_AFTER_S
    try:
        folder.mkdir(exist_ok=True)  # copying tools may have left out an empty one
        entries = list(os.scandir(folder))
    except OSError as error:
        raise storage_error(folder, error) from error
    for entry in entries:
        if not entry.name.startswith((TEMPORARY, REPLACED)):
            continue
        try:
            abandoned = entry.stat(follow_symlinks=False).st_mtime < oldest
        except FileNotFoundError:
            continue
        if abandoned:
            remove(Path(entry.path))


def remove(path: Path) -> None:
    """Delete a file or a folder; what is gone already is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
