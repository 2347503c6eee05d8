"""Files of rows: listed quickly, read with checksums of their pages and of the whole."""

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cohort.data.storage import is_storage_fault, storage_error
from cohort.engine.manifest import FOLDER, Compacted
from cohort.engine.seal import seal_fault
from cohort.errors import StorageError


def loose_tiles(run_dir: Path) -> list[str]:
    """Ids of the tiles that have a part of their own, sorted; tens of thousands are read quickly.

    Raises:
        StorageError: if the folder cannot be read.
    """
    folder = run_dir / "parts"
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.endswith(".parquet"))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise storage_error(folder, error) from error
    return [name.removesuffix(".parquet") for name in names if not name.startswith(".")]


def read_part(path: Path, schema: pa.Schema) -> pa.Table:
    """The rows of one part, with those of the columns that hold a value.

    Raises:
        FileNotFoundError: if there is none.
        StorageError: ``E_PART`` if it is damaged, ``E_STORAGE`` if the file system cannot read it.
    """
    try:
        content = path.read_bytes()
        fault = seal_fault(content)
        if fault:
            raise pa.ArrowInvalid(fault)
        with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True) as part:
            return _filled(part, schema)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(path, error) from error


def read_compacted(run_dir: Path, file: Compacted, schema: pa.Schema) -> pa.Table:
    """The rows of a compacted file that count.

    Raises:
        StorageError: ``E_PART`` if it is damaged, ``E_STORAGE`` if the file system cannot read it.
    """
    path = run_dir / FOLDER / file.name
    wanted = schema if "tile" in schema.names else schema.append(pa.field("tile", pa.string()))
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as part:
            table = _filled(part, wanted)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(path, error) from error
    names = [name for name in schema.names if name in table.schema.names]
    return table.filter(pc.field("tile").isin(file.tiles)).select(names)


def columns_with_values(path: Path) -> set[str]:
    """Columns of a file of rows in which some row holds a value, as its footer says.

    Raises:
        FileNotFoundError: if there is none.
        StorageError: ``E_PART`` if it is damaged, ``E_STORAGE`` if the file system cannot read it.
    """
    try:
        return _filled_columns(pq.read_metadata(path))
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(path, error) from error


def row_groups(path: Path, schema: pa.Schema, *, past_damage: bool = False) -> Iterator[pa.Table]:
    """The rows of a compacted file, group by group; no tile is in two of them.

    Args:
        path: of the file.
        schema: columns to read.
        past_damage: leave out what is damaged, in place of raising an error.

    Raises:
        StorageError: ``E_PART`` at the first group that is damaged, ``E_STORAGE`` if the file
            system cannot read it.
    """
    group, groups = 0, 1
    while group < groups:
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                groups = file.num_row_groups
                rows = file.read_row_group(group, schema.names, use_threads=False).cast(schema)
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            fault = damaged(path, error)
            if not past_damage or fault.code != "E_PART":
                raise fault from error
        else:
            yield rows
        group += 1


def damaged(path: Path, error: Exception) -> StorageError:
    """That a file cannot be read, and whether it is the file or the file system."""
    if isinstance(error, OSError) and is_storage_fault(error):
        return storage_error(path, error)
    run_dir = path.parents[1]
    advice = f"`cohort repair {run_dir}` moves it away, then the same command makes it anew"
    return StorageError("E_PART", f"{path} is damaged ({error}); {advice}")


def _filled(part: pq.ParquetFile, schema: pa.Schema) -> pa.Table:
    """The columns in which a part holds a value: most hold few, and each takes its time."""
    filled = _filled_columns(part.metadata)
    there = [field for field in schema if field.name in filled]
    if not there:  # rows of nothing but null are rows too
        nulls = [pa.nulls(part.metadata.num_rows, field.type) for field in schema]
        return pa.table(nulls, schema=schema)
    table = part.read([field.name for field in there], use_threads=False)
    return table.cast(pa.schema(there))


def _filled_columns(facts: pq.FileMetaData) -> set[str]:
    groups = [facts.row_group(index) for index in range(facts.num_row_groups)]
    columns = [group.column(index) for group in groups for index in range(group.num_columns)]
    return {
        column.path_in_schema.partition(".")[0]
        for column in columns
        if column.statistics is None or column.statistics.null_count != column.num_values
    }
