"""A store on object storage, where nothing can be renamed: a subject's record is its commit.

The arrays of each version of a subject go under a fresh name. ``commit.json``, put last and only
if no other process did meanwhile, names the version: readers see the old subject or the new one.
"""

import time
import uuid
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from cohort.data.arrays import packed, unpacked
from cohort.data.layout import (
    COMMIT,
    RECORDS,
    ROOT,
    VERSIONS,
    arrays_folder,
    commit_key,
    parse_record,
    sealed,
)
from cohort.data.object_client import Entry, ObjectClient
from cohort.data.storage import ABANDONED_AFTER_S, to_json
from cohort.data.subject_ids import id_fault
from cohort.errors import RunActiveError, StorageError, UsageError

_READERS = 16


class ObjectPlace:
    """A prefix on object storage; see :class:`cohort.data.places.Place`."""

    readers = _READERS

    def __init__(self, url: str, client: ObjectClient) -> None:
        self.where = url
        self._client = client

    @property
    def address(self) -> str:
        """The URL."""
        return self.where

    def name(self, key: str) -> str:
        """The URL of an object."""
        return f"{self.where}/{key}"

    def has(self, key: str) -> bool:
        """Whether there is such an object."""
        return self._client.tag(key) is not None

    def read(self, key: str) -> bytes:
        """The content of an object."""
        return self._client.get(key)

    def write(self, key: str, content: bytes) -> None:
        """Put an object."""
        self._client.put(key, content)

    def rename(self, key: str, new: str) -> None:
        """Put an object under another name and delete the first."""
        self._client.put(new, self._client.get(key))
        self._client.delete([key])

    def remove(self, key: str) -> None:
        """Delete an object."""
        self._client.delete([key])

    def names(self, folder: str) -> set[str]:
        """Names below a prefix."""
        return self._client.names(folder)

    def begin(self) -> None:
        """Nothing: prefixes need no making."""

    def make_root(self, content: bytes) -> bool:
        """Put ``zarr.json`` if there is none, and make sure that such conditions count here."""
        if not self._client.put_if(ROOT, content, None):
            return False
        other = dict.fromkeys(self._client.tag(ROOT) or {}, "0")
        if self._client.put_if(ROOT, content, None) or self._client.put_if(ROOT, content, other):
            self._client.delete([ROOT])
            raise UsageError(
                "E_STORE",
                f"{self.where} is on a service that overwrites what it is told to leave (it ignores"
                " If-None-Match or If-Match), so that commits would not be safe; make the store in"
                " a folder and copy it there to be read",
            )
        return True

    def sweep(self) -> None:
        """Delete versions that no record has named for an hour."""
        oldest = time.time() - ABANDONED_AFTER_S
        found: dict[str, dict[str, list[Entry]]] = defaultdict(lambda: defaultdict(list))
        for entry in self._client.entries(VERSIONS):
            _, subject_id, version, *_ = (*entry.key.split("/"), "", "", "")
            found[subject_id][version].append(entry)
        commits = self._commits()
        for subject_id, versions in found.items():
            commit = commits.get(subject_id)
            if commit and (len(versions) == 1 or _modified(commit) > oldest):
                continue  # what a new record replaced may still be read
            current = self._version(subject_id) if commit else None
            for version, entries in versions.items():
                if version != current and max(map(_modified, entries)) < oldest:
                    self._client.delete([entry.key for entry in entries])

    def subject_ids(self) -> tuple[str, ...]:
        """Subjects with a record."""
        found = tuple(sorted(self._commits()))
        if not found:
            self._refuse_missing()
        return found

    def record(self, subject_id: str) -> bytes | None:
        """The content of ``commit.json``."""
        try:
            return self._client.get(commit_key(subject_id))
        except FileNotFoundError:
            self._refuse_missing()
            return None

    def array(self, subject_id: str, record: Mapping[str, Any], name: str) -> Any:
        """The objects of an array, fetched."""
        folder = f"{arrays_folder(subject_id, record)}/{name}"
        shard = "/".join(["c", *("0" for _ in record["arrays"][name]["shape"])])
        pieces = {}
        for key in (ROOT, shard):
            try:
                pieces[key] = self._client.get(f"{folder}/{key}")
            except FileNotFoundError:
                self._refuse_missing()
                raise ValueError(f"its data file {key} is missing") from None
        return unpacked(pieces)

    def commit(
        self,
        subject_id: str,
        document: bytes,
        arrays: Mapping[str, np.ndarray],
        record: dict[str, Any],
    ) -> None:
        """Put the arrays under a fresh version, then the record that names it."""
        key = commit_key(subject_id)
        before = self._client.tag(key)
        record = {**record, "version": uuid.uuid4().hex}
        folder = arrays_folder(subject_id, record)
        keys = [f"{folder}/{ROOT}"]
        self._client.put(keys[0], document)
        for name, values in arrays.items():
            for piece, content in packed(name, values).items():
                keys.append(f"{folder}/{name}/{piece}")
                self._client.put(keys[-1], content)
        content = to_json(sealed(record))
        if self._client.put_if(key, content, before) or self._holds(key, content):
            return
        self._client.delete(keys)
        raise RunActiveError(
            "E_CONFLICT",
            f"another process committed {subject_id} to {self.where} at the same time, and its"
            " version is the one that is there; let one process at a time write a subject",
        )

    def discard(self, subject_id: str) -> None:
        """Delete a subject's record; its arrays are swept later."""
        self._client.delete([commit_key(subject_id)])

    def _commits(self) -> dict[str, Entry]:
        ending = f"/{COMMIT}"
        entries = self._client.entries(RECORDS)
        paths = ((one.key.removeprefix(f"{RECORDS}/"), one) for one in entries)
        return {
            path.removesuffix(ending): one
            for path, one in paths
            if path.endswith(ending) and id_fault(path.removesuffix(ending)) is None
        }

    def _version(self, subject_id: str) -> str | None:
        """The version that a record names; of a damaged record none is known."""
        try:
            return parse_record(self._client.get(commit_key(subject_id))).get("version")
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def _holds(self, key: str, content: bytes) -> bool:
        """Whether an object is this one: a service may refuse a write whose answer was lost."""
        try:
            return self._client.get(key) == content
        except FileNotFoundError:
            return False

    def _refuse_missing(self) -> None:
        if not self.has(ROOT):
            raise StorageError("E_STORAGE", f"{self.where} is gone: it has no {ROOT} any more")


def _modified(entry: Entry) -> float:
    """When an object was written; one that does not say is new."""
    return time.time() if entry.modified is None else entry.modified
