"""The bytes of a NIfTI file, all of them and no more, or an error.

Common readers accept a gzip file with a wrong checksum, without its trailer, or with data after its
end, and unpack whatever it holds. Here the header sets the limit before anything is unpacked, the
checksum must be right, and the file must end where the header says. Nothing is held that was not
asked for yet, so that a file never takes more memory than what is made of it and a few megabytes.
"""

import hashlib
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cohort.data.nifti_header import HEADER_BYTES, Header, parse_header
from cohort.data.storage import is_storage_fault, storage_error
from cohort.errors import SubjectError

_GZIP_MAGIC = b"\x1f\x8b"
_PIECE_BYTES = 1 << 20
# what may follow the data before the file counts as a bomb and not as one with a tail
_SLACK_BYTES = 1 << 16


class VerifiedFile:
    """A ``.nii`` or ``.nii.gz`` that is read once, from the start of its data to its end.

    Args:
        file: opened at its start, for reading bytes.
        path: of the file, for messages.
        max_bytes: of the file, and of what it decodes to.

    Attributes:
        header: checked.

    Raises:
        SubjectError: if it is no NIfTI file, or a larger one.
        StorageError: if the file system cannot read it.
    """

    def __init__(self, file: BinaryIO, path: Path, max_bytes: int) -> None:
        self._file, self._path = file, path
        self._size = os.fstat(file.fileno()).st_size
        if self._size > max_bytes:
            message = f"{path} has {self._size} bytes; at most {max_bytes} are read"
            raise SubjectError("E_BOMB", message)
        self._digest = hashlib.sha256()
        first = self._stored()
        self.header = parse_header(_start(first, path), path)
        _check_size(self.header, max_bytes)
        if not _is_gzip(first):
            self._check_length(self._size)
        self._pieces = self._unpacked(first) if _is_gzip(first) else self._plain(first)
        self._held = bytearray()
        self.read(self.header.offset)

    def read(self, count: int) -> bytearray:
        """The next ``count`` bytes.

        Raises:
            SubjectError: if they are damaged or not there.
            StorageError: if the file system cannot read them.
        """
        while len(self._held) < count:
            piece = next(self._pieces, None)
            if piece is None:
                raise _cut_off(self._path, f"{count - len(self._held)} bytes are missing")
            self._held += piece
        taken = self._held[:count]
        del self._held[:count]
        return taken

    def finished(self) -> str:
        """Check that the file ends here, as it must; the sha256 of it as it lies on the disk.

        Raises:
            SubjectError: if more follows or a checksum is wrong.
        """
        extra = len(self._held) + sum(len(piece) for piece in self._pieces)
        self._check_length(self.header.size_bytes + extra)
        return self._digest.hexdigest()

    def _stored(self) -> bytes:
        try:
            piece = self._file.read(_PIECE_BYTES)
        except OSError as error:
            raise _unreadable(self._path, error) from error
        self._digest.update(piece)
        return piece

    def _plain(self, piece: bytes) -> Iterator[bytes]:
        while piece:
            yield piece
            piece = self._stored()

    def _unpacked(self, piece: bytes) -> Iterator[bytes]:
        """Decode one whole gzip member, piece by piece, up to what the header asks for."""
        decoder, found = zlib.decompressobj(31), 0
        limit = self.header.size_bytes + _SLACK_BYTES
        while not decoder.eof:
            try:
                decoded = decoder.decompress(piece, min(_PIECE_BYTES, limit + 1 - found))
            except zlib.error as error:
                raise _damaged(self._path, error) from error
            found += len(decoded)
            if found > limit:
                raise SubjectError(
                    "E_BOMB",
                    f"{self._path} unpacks to more than the {self.header.size_bytes} bytes "
                    "that its header asks for",
                )
            yield decoded
            piece = decoder.unconsumed_tail or (b"" if decoder.eof else self._stored())
            if not piece and not decoder.eof:
                raise self._without_end(found)
        self._check_tail(len(decoder.unused_data))

    def _without_end(self, found: int) -> SubjectError:
        missing = self.header.size_bytes - found
        what = f"{missing} bytes are missing" if missing > 0 else "its gzip trailer is missing"
        return _cut_off(self._path, f"{found} of {self.header.size_bytes} bytes, {what}")

    def _check_tail(self, unused: int) -> None:
        """Nothing may follow a gzip member, neither in the last piece nor in the file."""
        unused += self._size - self._file.tell()
        if unused:
            raise SubjectError(
                "E_TRAILING",
                f"{self._path} has {unused} bytes after the end of its gzip data; "
                "need one gzip member and nothing after it",
            )

    def _check_length(self, found: int) -> None:
        extra = found - self.header.size_bytes
        if extra < 0:
            raise SubjectError(
                "E_TRUNCATED",
                f"{self._path} holds {found} bytes of NIfTI; its header needs "
                f"{self.header.size_bytes}, {-extra} are missing",
            )
        if extra > 0:
            raise SubjectError(
                "E_TRAILING",
                f"{self._path} has {extra} bytes after the {self.header.size_bytes} of its data",
            )


@contextmanager
def open_verified(path: Path, max_bytes: int) -> Iterator[VerifiedFile]:
    """Open a whole ``.nii`` or ``.nii.gz``; refuse more than ``max_bytes`` decoded bytes.

    Raises:
        SubjectError: if it is not there, or no NIfTI file.
        StorageError: if the file system cannot read it.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise _unreadable(path, error) from error
    with file:
        yield VerifiedFile(file, path, max_bytes)


def read_header(path: Path) -> Header:
    """Read only the header; what follows it is not looked at."""
    try:
        with path.open("rb") as file:
            stored = file.read(1 << 16)
    except OSError as error:
        raise _unreadable(path, error) from error
    return parse_header(_start(stored, path), path)


def read_file(path: Path, max_bytes: int) -> bytes:
    """The file as it lies on the disk."""
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise SubjectError("E_BOMB", f"{path} has {size} bytes; at most {max_bytes} are read")
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> Exception:
    if isinstance(error, FileNotFoundError):
        return SubjectError("E_MISSING", f"{path} does not exist; need a NIfTI file")
    # no permission for one source file is that file's fault; in the store it would be the store's
    if is_storage_fault(error) and not isinstance(error, PermissionError):
        return storage_error(path, error)
    return SubjectError("E_UNREADABLE", f"{path} cannot be read: {error.strerror or error}")


def _is_gzip(stored: bytes) -> bool:
    return stored[:2] == _GZIP_MAGIC


def _start(stored: bytes, path: Path) -> bytes:
    if not stored:
        raise SubjectError("E_EMPTY_FILE", f"{path} is empty: 0 bytes, need a NIfTI file")
    if not _is_gzip(stored):
        return stored[:HEADER_BYTES]
    try:
        return zlib.decompressobj(31).decompress(stored, HEADER_BYTES)
    except zlib.error as error:
        raise _damaged(path, error) from error


def _check_size(header: Header, max_bytes: int) -> None:
    if header.size_bytes > max_bytes:
        sizes = "x".join(map(str, header.dimensions))
        raise SubjectError(
            "E_BOMB",
            f"{header.path} asks for {header.size_bytes} bytes ({sizes} {header.dtype.name}); "
            f"at most {max_bytes} are read",
        )


def _cut_off(path: Path, what: str) -> SubjectError:
    return SubjectError("E_TRUNCATED", f"{path} is cut off: {what}")


def _damaged(path: Path, error: zlib.error) -> SubjectError:
    return SubjectError("E_GZIP_CRC", f"{path} is damaged, its gzip data do not check: {error}")
