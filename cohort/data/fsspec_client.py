"""Objects by key wherever fsspec reaches, to read alone.

It has no writes that depend on what is there, which commits need.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cohort.data.object_client import SERVICES, Entry, service_error
from cohort.errors import CohortError, UsageError


class FsspecClient:
    """Objects through fsspec, to read alone."""

    def __init__(self, url: str) -> None:
        core: Any = importlib.import_module("fsspec.core")
        self._url = url
        try:
            self._files, self._root = core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise UsageError("E_STORE", f"{url} cannot be opened: {error}") from error

    def get(self, key: str) -> bytes:
        """See :class:`ObjectClient`."""
        with self._faults(key):
            return self._files.cat_file(f"{self._root}/{key}")

    def tag(self, key: str) -> bool | None:
        """See :class:`ObjectClient`; whether there is an object is all that is known."""
        with self._faults(key):
            return True if self._files.isfile(f"{self._root}/{key}") else None

    def put(self, key: str, content: bytes) -> None:
        """Refused."""
        self._refuse()

    def put_if(self, key: str, content: bytes, tag: Any | None) -> bool:
        """Refused."""
        self._refuse()
        return False

    def names(self, folder: str) -> set[str]:
        """See :class:`ObjectClient`."""
        try:
            with self._faults(folder):
                paths = self._files.ls(f"{self._root}/{folder}".rstrip("/"), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return set()
        return {path.rstrip("/").rpartition("/")[2] for path in paths}

    def entries(self, folder: str) -> Iterator[Entry]:
        """See :class:`ObjectClient`."""
        try:
            with self._faults(folder):
                paths = self._files.find(f"{self._root}/{folder}".rstrip("/"))
        except FileNotFoundError:
            return
        for path in paths:
            yield Entry(path[len(self._root) :].lstrip("/"), None)

    def delete(self, keys: list[str]) -> None:
        """Refused, unless there is nothing to delete."""
        if keys:
            self._refuse()

    def _refuse(self) -> None:
        raise UsageError(
            "E_STORE",
            f"{self._url} can be read alone: commits need writes that depend on what is there,"
            f" which {', '.join(SERVICES[:4])} have. Make the store in a folder and copy it",
        )

    @contextmanager
    def _faults(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, CohortError):
            raise
        except Exception as error:  # every protocol has errors of its own
            raise service_error(f"{self._url}/{key}".rstrip("/"), error) from error
