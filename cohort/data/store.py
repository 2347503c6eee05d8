"""The cohort store: one Zarr v3 group per subject, whole or absent, read with checksums.

Every array is one shard of slabs (`cohort.data.layout`). Each slab and the shard's index carry a
crc32c; the record's sha256 of the decoded values also finds chunks that are gone or changed places.
"""

import os
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from cohort.data import quarantine
from cohort.data.geometry import Grid
from cohort.data.layout import (
    ARRAYS,
    SCHEMA,
    ArraySpec,
    Inventory,
    checked_arrays,
    describe,
    digest_of,
    read_record,
    read_root,
    subject_document,
    write_root,
)
from cohort.data.storage import (
    REPLACED,
    TEMPORARY,
    remove,
    storage_error,
    subject_faults,
    sweep,
    sync_folder,
    sync_tree,
    to_json,
)
from cohort.data.subject_ids import check_subject_id
from cohort.errors import StorageError, SubjectError

_COMMIT = "commit.json"


@dataclass(frozen=True, eq=False)
class Subject:
    """One subject on the working grid.

    volume: float32 ``[D, H, W]``, source units. labels: uint16 ``[D, H, W]``, 0 is background.
    mask: uint8 ``[D, H, W]``, 0 or 1. keypoints_mm: float64 ``[K, 3]``, RAS mm of the working
    space. to_template: float32 ``[3, D, H, W]`` voxels: working voxel x of this subject lies at
    template working voxel x + to_template(x). from_template: its inverse, on the template's voxels.
    """

    subject_id: str
    volume: np.ndarray
    labels: np.ndarray | None = None
    mask: np.ndarray | None = None
    keypoints_mm: np.ndarray | None = None
    to_template: np.ndarray | None = None
    from_template: np.ndarray | None = None


class CohortStore:
    """A cohort on disk; make one with `create`, open one with `open`."""

    def __init__(self, path: Path, grid: Grid, settings: dict[str, Any]) -> None:
        self.path = path
        self.grid = grid
        self.settings = settings
        self._subjects = path / "subjects"
        self._quarantine = path / "quarantine"

    @classmethod
    def create(cls, path: Path, grid: Grid, *, settings: dict[str, Any]) -> "CohortStore":
        """Make an empty store; ``settings`` is JSON and stays as it is for ever."""
        from triton_reg import __version__  # here, so that workers that only read need no torch

        write_root(Path(path), grid, settings, created_by=f"triton_reg {__version__}")
        return cls(Path(path), grid, settings)

    @classmethod
    def open(cls, path: Path, *, for_writing: bool = False) -> "CohortStore":
        """Open a store; for writing, also clear away what writers that died left behind."""
        store = cls(Path(path), *read_root(Path(path)))
        if for_writing:
            sweep(store._subjects)
            sweep(store._quarantine)
        return store

    @property
    def subject_ids(self) -> tuple[str, ...]:
        """Committed subjects, sorted."""
        try:
            with os.scandir(self._subjects) as folder:
                names = [entry.name for entry in folder if not entry.name.startswith(".")]
            return tuple(sorted(name for name in names if self._is_committed(name)))
        except OSError as error:
            raise storage_error(self._subjects, error) from error

    @property
    def digest(self) -> str:
        """sha256 over the grid and every subject's name and content."""
        return self.inventory().digest

    @property
    def has_labels(self) -> bool:
        """Whether any subject has labels."""
        return self.inventory().has_labels

    @property
    def has_truth(self) -> bool:
        """Whether any subject has a known displacement to the template."""
        return self.inventory().has_truth

    @property
    def quarantined(self) -> dict[str, dict[str, Any]]:
        """Refused subjects: ``{"code", "message", "source", "time"}`` each."""
        return quarantine.read_entries(self._quarantine)

    def inventory(self) -> Inventory:
        """What all records say together; reads each of them once."""
        arrays = {name: self.record(name)["arrays"] for name in self.subject_ids}
        return Inventory.of(self.grid, arrays)

    def subject_digest(self, subject_id: str) -> str:
        """sha256 of a subject's decoded content, from its record; arrays are not read."""
        return digest_of(self.record(subject_id)["arrays"])

    def record(self, subject_id: str) -> dict[str, Any]:
        """What was committed: arrays (sha256, shape, dtype each), source, provenance."""
        path = self._folder(subject_id) / _COMMIT
        if not self._is_committed(subject_id):
            if not self._subjects.is_dir():
                raise StorageError("E_STORAGE", f"{self.path} is gone; is it still mounted?")
            raise SubjectError("E_UNKNOWN_SUBJECT", f"{self.path} has no subject {subject_id!r}")
        with subject_faults(subject_id, "record", path):
            return read_record(path)

    def read(self, subject_id: str) -> Subject:
        """Read all arrays of a subject and check them against its record."""
        arrays = self.record(subject_id)["arrays"]
        fields = {}
        for name, expected in arrays.items():
            path = self._folder(subject_id) / name
            with subject_faults(subject_id, f"array {name}", path):
                fields[ARRAYS[name].field] = _read_array(path, ARRAYS[name], expected, self.grid)
        return Subject(subject_id, **fields)

    def commit(self, subject: Subject, provenance: dict[str, Any]) -> None:
        """Store a subject, replacing an older version; it is there whole or not at all.

        provenance: JSON; its ``source`` entry becomes the record's source.
        """
        final = self._folder(subject.subject_id)
        arrays = checked_arrays(vars(subject), self.grid)
        temporary = self._subjects / f"{TEMPORARY}{uuid.uuid4().hex}"
        try:
            temporary.mkdir()
            (temporary / "zarr.json").write_bytes(to_json(subject_document(self.grid)))
            for name, values in arrays.items():
                _write_array(temporary / name, ARRAYS[name], values)
            record = {
                "schema": SCHEMA,
                "subject_id": subject.subject_id,
                "arrays": {name: describe(values) for name, values in arrays.items()},
                "source": provenance.get("source"),
                "provenance": {key: provenance[key] for key in provenance if key != "source"},
            }
            (temporary / _COMMIT).write_bytes(to_json(record))
            sync_tree(temporary)
            replaced = self._set_aside(subject.subject_id)
            temporary.rename(final)
            sync_folder(self._subjects)
        except OSError as error:
            raise storage_error(final, error) from error
        finally:
            remove(temporary)
        remove(replaced)
        quarantine.remove_entry(self._quarantine, subject.subject_id)

    def remove(self, subject_id: str) -> None:
        """Take a subject out of the store; one that is not there is no error."""
        try:
            replaced = self._set_aside(subject_id)
            sync_folder(self._subjects)
            remove(replaced)
        except OSError as error:
            raise storage_error(self._folder(subject_id), error) from error

    def quarantine(self, subject_id: str, code: str, message: str, source: Any) -> None:
        """Record why a subject is refused; what is committed under its name stays."""
        quarantine.write_entry(self._quarantine, subject_id, code, message, source)

    def release(self, subject_id: str) -> None:
        """Forget why a subject was refused."""
        quarantine.remove_entry(self._quarantine, subject_id)

    def _folder(self, subject_id: str) -> Path:
        check_subject_id(subject_id)
        return self._subjects / subject_id

    def _is_committed(self, name: str) -> bool:
        return (self._subjects / name / _COMMIT).is_file()

    def _set_aside(self, subject_id: str) -> Path:
        """Rename a subject's folder away, if there is one: it stops existing in one step."""
        replaced = self._subjects / f"{REPLACED}{uuid.uuid4().hex}"
        with suppress(FileNotFoundError):
            self._folder(subject_id).rename(replaced)
        return replaced


def _write_array(path: Path, spec: ArraySpec, values: np.ndarray) -> None:
    chunk, shard = spec.pieces(values.shape)
    array = zarr.create_array(
        store=str(path),
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


def _read_array(path: Path, spec: ArraySpec, expected: dict[str, Any], grid: Grid) -> np.ndarray:
    array = zarr.open_array(store=str(path), mode="r", zarr_format=3)
    fault = spec.fault(array.shape, array.dtype.name, grid)
    if fault:
        raise ValueError(fault)
    if (array.chunks, array.shards) != spec.pieces(array.shape):
        raise ValueError(f"it is cut into chunks {array.chunks} and shards {array.shards}")
    shard = path.joinpath("c", *("0" for _ in array.shape))
    if not shard.is_file():  # zarr would fill in zeros
        raise ValueError(f"its data file {shard.name} is missing")
    values = np.asarray(array[...])
    found = describe(values)
    if found != expected:
        raise ValueError(f"its values have sha256 {found['sha256']}, not {expected['sha256']}")
    return values
