"""Where a store is: a folder, or a prefix on object storage.

Keys are relative and have slashes: ``subjects/a/commit.json``. Documents are written whole or not
at all, and so are subjects. What a place cannot do for want of the file system or the service is
no subject's fault: a `StorageError`, or on a file system an `OSError` that says so.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import numpy as np

from cohort.data.fsspec_client import FsspecClient
from cohort.data.local_place import LocalPlace
from cohort.data.object_client import SERVICES, ObstoreClient
from cohort.data.object_place import ObjectPlace
from cohort.errors import UsageError

# a folder, or a URL such as s3://bucket/cohort.zarr
Where = Path | str
_MANGLED = re.compile(r"[a-z][a-z0-9+.-]*:/[^/]")


class Place(Protocol):
    """What a store needs of the place that it is at."""

    @property
    def where(self) -> Where:
        """The path or the URL that it was named by."""
        ...

    @property
    def readers(self) -> int:
        """How many records are best read at a time."""
        ...

    @property
    def address(self) -> str:
        """The place for others: an absolute path, or the URL."""
        ...

    def name(self, key: str) -> str:
        """What people know a document as."""
        ...

    def has(self, key: str) -> bool:
        """Whether there is such a document."""
        ...

    def read(self, key: str) -> bytes:
        """A document; FileNotFoundError if there is none."""
        ...

    def write(self, key: str, content: bytes) -> None:
        """Write a document, or replace it."""
        ...

    def rename(self, key: str, new: str) -> None:
        """Give a document another name; FileNotFoundError if there is none."""
        ...

    def remove(self, key: str) -> None:
        """Remove a document; none is no error."""
        ...

    def names(self, folder: str) -> set[str]:
        """What lies directly in a folder; ``""`` is the store's own. None for one that is not."""
        ...

    def begin(self) -> None:
        """Make the folder itself, so that documents can be written before there is a store."""
        ...

    def make_root(self, content: bytes) -> bool:
        """Write the ``zarr.json`` that makes a store; False if somebody else just did."""
        ...

    def sweep(self) -> None:
        """Remove what writers that died more than an hour ago left."""
        ...

    def subject_ids(self) -> tuple[str, ...]:
        """Committed subjects, sorted."""
        ...

    def record(self, subject_id: str) -> bytes | None:
        """What was committed last of a subject; None if nothing was."""
        ...

    def array(self, subject_id: str, record: Mapping[str, Any], name: str) -> Any:
        """What zarr opens to read an array of a record; ValueError if a part of it is missing."""
        ...

    def commit(
        self,
        subject_id: str,
        document: bytes,
        arrays: Mapping[str, np.ndarray],
        record: dict[str, Any],
    ) -> None:
        """Put a subject there, in the place of an older version, whole or not at all.

        document: its ``zarr.json``. Raises RunActiveError ``E_CONFLICT`` if another process
        committed the subject at the same time.
        """
        ...

    def discard(self, subject_id: str) -> None:
        """Take a subject away in one step; none is no error."""
        ...


def place_of(where: Where) -> Place:
    """The place that a path or a URL names; nothing is read.

    Raises:
        UsageError: ``E_STORE`` if no store can be there, or a library is missing.
    """
    text = str(where)
    if isinstance(where, Path) or "://" not in text:
        if _MANGLED.match(text):
            raise UsageError("E_STORE", f"{text} looks like a URL that lost a slash")
        return LocalPlace(Path(where))
    parts = urlsplit(text)
    if parts.scheme == "file":
        return LocalPlace(Path(unquote(parts.path)))
    if parts.scheme == "memory":
        raise UsageError("E_STORE", f"{text}: a store in memory would end with this process")
    if parts.password is not None:
        raise UsageError(
            "E_STORE",
            f"the URL of {parts.scheme}://{parts.hostname} holds a password, which runs would keep;"
            " need it in the environment instead",
        )
    if parts.scheme in SERVICES and not parts.netloc:
        raise UsageError("E_STORE", f"{text} names no bucket; need {parts.scheme}://BUCKET/NAME")
    url = text.rstrip("/")
    return ObjectPlace(url, ObstoreClient(url) if parts.scheme in SERVICES else FsspecClient(url))
