"""``RUN/run.copy.json``: the bytes of ``run.json`` with their checksum, from the first driver on.

``run.json`` says what all rows mean, and nothing else in the run could replace it.
"""

import hashlib
import json
from pathlib import Path

from cohort.data.storage import storage_error, to_json, write_atomic, write_once


def copy_path(run_dir: Path) -> Path:
    """Where the copy lies."""
    return run_dir / "run.copy.json"


def keep_copy(run_dir: Path) -> None:
    """Keep a copy of ``run.json``, unless there is one.

    Raises:
        StorageError: if it cannot be written.
    """
    if not copy_path(run_dir).exists():
        write_once(copy_path(run_dir), _sealed(_read(run_dir / "run.json")))


def kept_document(run_dir: Path) -> bytes | None:
    """What ``run.json`` was; None if that is not known: there is no copy, or it is damaged."""
    path = copy_path(run_dir)
    if not path.exists():
        return None
    try:
        said = json.loads(_read(path))
        document = said["document"].encode()
        return document if hashlib.sha256(document).hexdigest() == said["sha256"] else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def restore_from_copy(run_dir: Path, document: bytes) -> None:
    """Make ``run.json`` what it was."""
    write_atomic(run_dir / "run.json", document)


def renew_copy(run_dir: Path) -> None:
    """Make the copy anew from ``run.json``."""
    write_atomic(copy_path(run_dir), _sealed(_read(run_dir / "run.json")))


def _sealed(document: bytes) -> bytes:
    sha256 = hashlib.sha256(document).hexdigest()
    return to_json({"document": document.decode(), "sha256": sha256})


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise storage_error(path, error) from error
