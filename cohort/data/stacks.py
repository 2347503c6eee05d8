"""Arrays of one shape in one file: ``[P, ...]`` integers, a row a checksummed chunk of a shard."""

import uuid
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from cohort.data.storage import REPLACED, TEMPORARY, remove, storage_error, sync_folder, sync_tree


def write_stack(folder: Path, values: np.ndarray, facts: dict[str, Any]) -> None:
    """Write ``values`` and what is said of them to a Zarr array, in the place of an older one.

    It is there whole or not at all, also after a power cut.

    Raises:
        StorageError: if the file system refuses.
    """
    parent, row = folder.parent, (1, *values.shape[1:])
    temporary = parent / f"{TEMPORARY}{uuid.uuid4().hex}"
    replaced = parent / f"{REPLACED}{uuid.uuid4().hex}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        array = zarr.create_array(
            store=str(temporary),
            shape=values.shape,
            dtype=values.dtype,
            chunks=row,
            shards=values.shape,
            # a sixth of the time of what a store has, for a tenth more bytes
            compressors=(BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"), Crc32cCodec()),
            fill_value=0,
            config={"write_empty_chunks": True},
            attributes=facts,
        )
        array[...] = values
        sync_tree(temporary)
        if folder.exists():  # of an attempt that was not committed
            folder.rename(replaced)
        temporary.rename(folder)
        sync_folder(parent)
    except OSError as error:
        raise storage_error(folder, error) from error
    finally:
        remove(temporary)
        remove(replaced)


def read_facts(
    folder: Path, dtype: npt.DTypeLike = np.int16
) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Shape of a stack and what is said of it; ValueError if it is none."""
    array = _opened(folder, dtype)
    return array.shape, dict(array.attrs)


def read_row(folder: Path, row: int, dtype: npt.DTypeLike = np.int16) -> np.ndarray:
    """One row of a stack, without the first axis; ValueError if it is damaged."""
    array = _opened(folder, dtype)
    shard = folder.joinpath("c", *("0" for _ in array.shape))
    if not shard.is_file():  # zarr would fill in zeros
        raise ValueError(f"its data file {shard.name} is missing")
    return np.asarray(array[row])


def _opened(folder: Path, dtype: npt.DTypeLike) -> zarr.Array:
    array = zarr.open_array(store=str(folder), mode="r", zarr_format=3)
    if array.dtype != dtype or array.chunks != (1, *array.shape[1:]):
        raise ValueError(f"it is {array.dtype} in chunks of {array.chunks}")
    return array
