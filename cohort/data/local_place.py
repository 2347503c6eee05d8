"""A store in a folder: documents are replaced by renaming, and so are whole subjects.

A subject is written into a temporary folder beside the others, made durable, and renamed.
"""

import errno
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from cohort.data.arrays import write_array
from cohort.data.layout import (
    COMMIT,
    RECORDS,
    REFUSED,
    ROOT,
    arrays_folder,
    commit_key,
    sealed,
)
from cohort.data.storage import (
    REPLACED,
    TEMPORARY,
    remove,
    storage_error,
    sweep,
    sync_folder,
    sync_tree,
    to_json,
    write_atomic,
)
from cohort.data.subject_ids import id_fault
from cohort.errors import StorageError


class LocalPlace:
    """A folder on a file system; see :class:`cohort.data.places.Place`."""

    readers = 1

    def __init__(self, path: Path) -> None:
        self.where = path
        self._subjects = path / RECORDS

    @property
    def address(self) -> str:
        """The absolute path."""
        return str(self.where.resolve())

    def name(self, key: str) -> str:
        """The path of a document."""
        return str(self.where / key)

    def has(self, key: str) -> bool:
        """Whether there is such a file."""
        return (self.where / key).exists()

    def read(self, key: str) -> bytes:
        """The content of a file."""
        return (self.where / key).read_bytes()

    def write(self, key: str, content: bytes) -> None:
        """Write a file that others see whole or not at all."""
        path = self.where / key
        if self.where.is_dir():  # a store whose disk is gone is not begun anew in its place
            with self._errors(key):
                path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)

    def rename(self, key: str, new: str) -> None:
        """Rename a file."""
        (self.where / key).rename(self.where / new)

    def remove(self, key: str) -> None:
        """Remove a file."""
        with self._errors(key):
            (self.where / key).unlink(missing_ok=True)

    def names(self, folder: str) -> set[str]:
        """What lies in a folder."""
        path = self.where / folder
        return {entry.name for entry in path.iterdir()} if path.exists() else set()

    def begin(self) -> None:
        """Make the folder."""
        with self._errors(""):
            self.where.mkdir(parents=True, exist_ok=True)

    def make_root(self, content: bytes) -> bool:
        """Make the folders and then ``zarr.json``: without it there is no store yet."""
        with self._errors(""):
            self._subjects.mkdir(parents=True, exist_ok=True)
            (self.where / REFUSED).mkdir(exist_ok=True)
        write_atomic(self.where / ROOT, content)
        return True

    def sweep(self) -> None:
        """Remove what dead writers left."""
        sweep(self._subjects)
        sweep(self.where / REFUSED)

    def subject_ids(self) -> tuple[str, ...]:
        """Folders with a record."""
        with self._errors(RECORDS), os.scandir(self._subjects) as folder:
            names = [entry.name for entry in folder if id_fault(entry.name) is None]
            return tuple(sorted(name for name in names if self._is_committed(name)))

    def record(self, subject_id: str) -> bytes | None:
        """The content of ``commit.json``."""
        try:
            return self.read(commit_key(subject_id))
        except (FileNotFoundError, NotADirectoryError):
            if not self._subjects.is_dir():
                gone = f"{self.where} is gone; is it still mounted?"
                raise StorageError("E_STORAGE", gone) from None
            return None

    def array(self, subject_id: str, record: Mapping[str, Any], name: str) -> str:
        """The folder of an array, in which all its files are."""
        path = self.where / arrays_folder(subject_id, record) / name
        shard = path.joinpath("c", *("0" for _ in record["arrays"][name]["shape"]))
        if path.is_dir() and not shard.is_file():  # zarr would fill in zeros
            raise ValueError(f"its data file {shard.name} is missing")
        return str(path)

    def commit(
        self,
        subject_id: str,
        document: bytes,
        arrays: Mapping[str, np.ndarray],
        record: dict[str, Any],
    ) -> None:
        """Write a subject beside the others and rename it into its place."""
        temporary = self._subjects / f"{TEMPORARY}{uuid.uuid4().hex}"
        replaced: list[Path] = []
        try:
            with self._errors(f"{RECORDS}/{subject_id}"):
                temporary.mkdir()
                (temporary / ROOT).write_bytes(document)
                for name, values in arrays.items():
                    write_array(str(temporary / name), name, values)
                (temporary / COMMIT).write_bytes(to_json(sealed(record)))
                sync_tree(temporary)
                replaced.append(self._set_aside(subject_id))
                while not self._renamed(temporary, subject_id):
                    replaced.append(self._set_aside(subject_id))
                sync_folder(self._subjects)
        finally:
            remove(temporary)
        for folder in replaced:
            remove(folder)

    def discard(self, subject_id: str) -> None:
        """Rename a subject's folder away and remove it."""
        with self._errors(f"{RECORDS}/{subject_id}"):
            replaced = self._set_aside(subject_id)
            sync_folder(self._subjects)
            remove(replaced)

    def _is_committed(self, name: str) -> bool:
        return (self._subjects / name / COMMIT).is_file()

    def _renamed(self, temporary: Path, subject_id: str) -> bool:
        """Give a subject its name, unless another process has brought it in at this moment."""
        try:
            temporary.rename(self._subjects / subject_id)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False
            raise
        return True

    def _set_aside(self, subject_id: str) -> Path:
        """Rename a subject's folder away, if there is one: it stops existing in one step."""
        replaced = self._subjects / f"{REPLACED}{uuid.uuid4().hex}"
        with suppress(FileNotFoundError):
            (self._subjects / subject_id).rename(replaced)
        return replaced

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """Whatever the file system refuses, with the path and the free space there."""
        try:
            yield
        except OSError as error:
            raise storage_error(self.where / key, error) from error
