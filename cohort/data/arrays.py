"""Arrays of a subject as zarr writes and reads them, and as pieces that go through a network."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from zarr.buffer.cpu import Buffer
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import MemoryStore

from cohort.data.geometry import Grid
from cohort.data.layout import ARRAYS, describe


def write_array(target: Any, name: str, values: np.ndarray) -> None:
    """Write an array of the layout's kind ``name`` to what zarr takes as a store."""
    spec = ARRAYS[name]
    chunk, shard = spec.pieces(values.shape)
    array = zarr.create_array(
        store=target,
        shape=values.shape,
        dtype=spec.dtype,
        chunks=chunk,
        shards=shard,
        compressors=(BloscCodec(cname="zstd", clevel=5, shuffle="shuffle"), Crc32cCodec()),
        fill_value=0,
        dimension_names=spec.dimension_names,
        config={"write_empty_chunks": True},
    )
    array[...] = values


def read_array(source: Any, name: str, expected: dict[str, Any], grid: Grid) -> np.ndarray:
    """An array whose shape, pieces and values are those that its record names.

    Raises:
        ValueError: if they are others; zarr raises errors of its own for what it cannot read.
    """
    spec = ARRAYS[name]
    array = zarr.open_array(store=source, mode="r", zarr_format=3)
    fault = spec.fault(array.shape, array.dtype.name, grid)
    if fault:
        raise ValueError(fault)
    if (array.chunks, array.shards) != spec.pieces(array.shape):
        raise ValueError(f"it is cut into chunks {array.chunks} and shards {array.shards}")
    values = np.asarray(array[...])
    found = describe(values)
    if found != expected:
        raise ValueError(f"its values have sha256 {found['sha256']}, not {expected['sha256']}")
    return values


def packed(name: str, values: np.ndarray) -> dict[str, bytes]:
    """The documents that `write_array` writes, by key."""
    pieces: dict[str, Any] = {}
    write_array(MemoryStore(pieces), name, values)
    return {key: piece.to_bytes() for key, piece in pieces.items()}


def unpacked(pieces: Mapping[str, bytes]) -> MemoryStore:
    """What `read_array` reads the documents of an array from."""
    return MemoryStore({key: Buffer.from_bytes(piece) for key, piece in pieces.items()})
