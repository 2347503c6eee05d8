"""A checksum of a whole Parquet file within it: also of its footer, which page checksums leave out.

The footer has a key whose value is the sha256 of the file with zeros in the place of that sha256.
"""

import hashlib
import struct

import pyarrow as pa
import pyarrow.parquet as pq

_KEY = "cohort.seal"
_MARK = b"sha256-of-the-rest:"
_ZEROS = b"0" * 64


def sealed_parquet(table: pa.Table) -> bytes:
    """A table as a Parquet file with checksums of its pages and of the whole."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink, table.schema, compression="zstd", write_page_checksum=True
    ) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({_KEY: (_MARK + _ZEROS).decode()})
    content = sink.getvalue().to_pybytes()
    at = _place(content)
    assert content[at : at + 64] == _ZEROS
    return content[:at] + hashlib.sha256(content).hexdigest().encode() + content[at + 64 :]


def seal_fault(content: bytes) -> str | None:
    """What is wrong with a file, as far as its seal says; older files have none."""
    at = _place(content)
    if at < 0:
        # one of the two is left where a bit of the other has changed
        footer = content[_footer(content) :]
        return "its seal is damaged" if _KEY.encode() in footer or _MARK in footer else None
    view, found = memoryview(content), hashlib.sha256()
    for part in (view[:at], _ZEROS, view[at + 64 :]):  # without a copy of the file
        found.update(part)
    said = content[at : at + 64]
    return (
        None if said == found.hexdigest().encode() else "its bytes are not those that were written"
    )


def _place(content: bytes) -> int:
    """Where the sha256 is; -1 if nowhere."""
    at = content.rfind(_MARK, _footer(content))
    key_at = content.rfind(_KEY.encode(), _footer(content), max(at, 0))
    return -1 if at < 0 or key_at < 0 else at + len(_MARK)


def _footer(content: bytes) -> int:
    """Where the footer begins; a length that cannot be is read as the whole file."""
    if len(content) < 12:
        return 0
    (length,) = struct.unpack("<I", content[-8:-4])
    return max(len(content) - 8 - length, 0)
