"""The bytes of a NIfTI file, all of them and no more, or an error.

Common readers accept a gzip file with a wrong checksum, without its trailer, or with data after its
end, and unpack whatever it holds. Here the header sets the limit before anything is unpacked, the
checksum must be right, and the file must end where the header says.
"""

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

from cohort.data.nifti_header import HEADER_BYTES, Header, parse_header
from cohort.data.storage import is_storage_fault, storage_error
from cohort.errors import SubjectError

_GZIP_MAGIC = b"\x1f\x8b"
_PIECE_BYTES = 1 << 22
# what may follow the data before the file counts as a bomb and not as one with a tail
_SLACK_BYTES = 1 << 16


@dataclass(frozen=True, eq=False)
class VerifiedBytes:
    """content: the decoded file, header included. sha256: of the file as it lies on the disk."""

    header: Header
    content: bytes | bytearray
    sha256: str


def read_verified(path: Path, max_bytes: int) -> VerifiedBytes:
    """Read a whole ``.nii`` or ``.nii.gz``; refuse more than ``max_bytes`` decoded bytes."""
    stored = read_file(path, max_bytes)
    start = _start(stored, path)
    header = parse_header(start, path)
    _check_size(header, max_bytes)
    content = _gunzip(stored, header) if _is_gzip(stored) else stored
    extra = len(content) - header.size_bytes
    if extra < 0:
        raise SubjectError(
            "E_TRUNCATED",
            f"{path} holds {len(content)} bytes of NIfTI; its header needs {header.size_bytes}, "
            f"{-extra} are missing",
        )
    if extra > 0:
        raise SubjectError(
            "E_TRAILING", f"{path} has {extra} bytes after the {header.size_bytes} of its data"
        )
    return VerifiedBytes(header, content, hashlib.sha256(stored).hexdigest())


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


def _gunzip(stored: bytes, header: Header) -> bytearray:
    """Decode one whole gzip member, piece by piece, up to what the header asks for."""
    decoder = zlib.decompressobj(31)
    limit = header.size_bytes + _SLACK_BYTES
    content = bytearray()
    piece: bytes | memoryview = stored
    try:
        while not decoder.eof and piece:
            content += decoder.decompress(piece, min(_PIECE_BYTES, limit + 1 - len(content)))
            if len(content) > limit:
                raise SubjectError(
                    "E_BOMB",
                    f"{header.path} unpacks to more than the {header.size_bytes} bytes "
                    "that its header asks for",
                )
            piece = decoder.unconsumed_tail
    except zlib.error as error:
        raise _damaged(header.path, error) from error
    _check_end(decoder, content, header)
    return content


def _check_end(decoder: "zlib._Decompress", content: bytearray, header: Header) -> None:
    missing = header.size_bytes - len(content)
    if not decoder.eof:
        what = f"{missing} bytes are missing" if missing > 0 else "its gzip trailer is missing"
        raise SubjectError(
            "E_TRUNCATED",
            f"{header.path} is cut off: {len(content)} of {header.size_bytes} bytes, {what}",
        )
    if decoder.unused_data:
        raise SubjectError(
            "E_TRAILING",
            f"{header.path} has {len(decoder.unused_data)} bytes after the end of its gzip data; "
            "need one gzip member and nothing after it",
        )


def _damaged(path: Path, error: zlib.error) -> SubjectError:
    return SubjectError("E_GZIP_CRC", f"{path} is damaged, its gzip data do not check: {error}")
