"""Objects by key on S3, Google Cloud Storage and Azure, through obstore.

Credentials and endpoints come from the variables that these services' own tools read.
"""

import importlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from cohort.errors import StorageError, UsageError

SERVICES = ("s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss")
# said in place of a missing key by services whose bucket is missing
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")
_CONFLICTS = ("AlreadyExistsError", "PreconditionError")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_MACHINE_ROLES = "169.254.169.254"  # where machines of a cloud ask for credentials of their own


@dataclass(frozen=True)
class Entry:
    """An object in a listing; modified: seconds since 1970, None where it is not said."""

    key: str
    modified: float | None


class ObjectClient(Protocol):
    """What an object place needs; keys are relative to its URL.

    All raise StorageError ``E_STORAGE`` for what the service cannot do.
    """

    def get(self, key: str) -> bytes:
        """An object; FileNotFoundError if there is none."""
        ...

    def tag(self, key: str) -> Any | None:
        """What tells this version of an object from others; None if there is none."""
        ...

    def put(self, key: str, content: bytes) -> None:
        """Write an object, whatever is there."""
        ...

    def put_if(self, key: str, content: bytes, tag: Any | None) -> bool:
        """Write an object if what is there still has this tag, or nothing is there for None."""
        ...

    def names(self, folder: str) -> set[str]:
        """Names directly in a folder, of objects and folders."""
        ...

    def entries(self, folder: str) -> Iterator[Entry]:
        """All objects below a folder."""
        ...

    def delete(self, keys: list[str]) -> None:
        """Delete objects; those that are not there are no error."""
        ...


class ObstoreClient:
    """Objects of one bucket below a prefix; nothing is asked of the service at first."""

    def __init__(self, url: str) -> None:
        try:
            self._library: Any = importlib.import_module("obstore")
            stores: Any = importlib.import_module("obstore.store")
        except ImportError as error:
            raise UsageError(
                "E_STORE", f"{url} needs obstore: pip install 'triton-reg[object]'"
            ) from error
        self._url = url
        if url.startswith("s3"):
            _check_endpoint()
        with self._faults(""):
            self._store = stores.from_url(
                url,
                # an endpoint that says http means it
                client_options={"allow_http": True, "timeout": timedelta(minutes=2)},
                retry_config={"max_retries": 8, "retry_timeout": timedelta(minutes=1)},
            )

    def get(self, key: str) -> bytes:
        """See :class:`ObjectClient`."""
        with self._faults(key):
            return bytes(self._library.get(self._store, key).bytes())

    def tag(self, key: str) -> dict[str, str] | None:
        """See :class:`ObjectClient`."""
        try:
            with self._faults(key):
                facts = self._library.head(self._store, key)
        except FileNotFoundError:
            return None
        return {name: facts[name] for name in ("e_tag", "version") if facts[name] is not None}

    def put(self, key: str, content: bytes) -> None:
        """See :class:`ObjectClient`."""
        self._put(key, content, "overwrite")

    def put_if(self, key: str, content: bytes, tag: dict[str, str] | None) -> bool:
        """See :class:`ObjectClient`."""
        try:
            self._put(key, content, "create" if tag is None else tag)
        except _ConflictError:
            return False
        return True

    def names(self, folder: str) -> set[str]:
        """See :class:`ObjectClient`."""
        with self._faults(folder):
            found = self._library.list_with_delimiter(self._store, folder or None)
        paths = [one["path"] for one in found["objects"]] + list(found["common_prefixes"])
        return {path.rstrip("/").rpartition("/")[2] for path in paths}

    def entries(self, folder: str) -> Iterator[Entry]:
        """See :class:`ObjectClient`."""
        with self._faults(folder):
            for batch in self._library.list(self._store, folder or None):
                for one in batch:
                    yield Entry(one["path"], one["last_modified"].timestamp())

    def delete(self, keys: list[str]) -> None:
        """See :class:`ObjectClient`."""
        with self._faults(keys[0] if keys else ""):
            self._library.delete(self._store, keys)

    def _put(self, key: str, content: bytes, mode: Any) -> None:
        try:
            with self._faults(key):
                self._library.put(self._store, key, content, mode=mode)
        except FileNotFoundError as error:
            if isinstance(mode, dict):  # some services say so of a version that is no more
                raise _ConflictError from error
            raise service_error(self._name(key), error) from error

    @contextmanager
    def _faults(self, key: str) -> Iterator[None]:
        base = self._library.exceptions.BaseError
        try:
            yield
        except FileNotFoundError as error:
            if any(said in str(error) for said in _NO_BUCKET):
                raise service_error(self._name(key), error) from error
            raise
        except base as error:
            if type(error).__name__ in _CONFLICTS:
                raise _ConflictError from error
            raise service_error(self._name(key), error) from error

    def _name(self, key: str) -> str:
        return f"{self._url}/{key}".rstrip("/")


def _check_endpoint() -> None:
    """Refuse what obstore, which reads these variables itself, would end the process over."""
    for name in _ENDPOINTS:
        given = os.environ.get(name)
        if given and not given.startswith(("http://", "https://")):
            raise UsageError(
                "E_STORE",
                f"{name} is {given!r}; need an address that begins with http:// or https://",
            )


class _ConflictError(Exception):
    """What is there is not what a write depends on."""


def service_error(name: str, error: Exception) -> StorageError:
    """What a service said of an object, in one sentence without secrets."""
    text = str(error).partition("\n\nDebug source")[0]
    code = re.search(r"<Code>(\w+)</Code>", text)
    # a query may hold a signature, an answer the name of a key
    said = re.sub(r"\?\S+", "?...", text.partition("<")[0].strip().rstrip(":"))
    reason = f"{code.group(1)}: {said}" if code else said or type(error).__name__
    if _MACHINE_ROLES in text:
        reason = (
            "there are no credentials: neither AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY nor a"
            f" role of this machine ({reason})"
        )
    return StorageError("E_STORAGE", f"{name}: {reason}. Nothing committed is lost; run again")
