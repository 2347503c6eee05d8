"""The cohort store: one Zarr v3 group per subject, whole or absent, read with checksums.

Every array is one shard of slabs (`cohort.data.layout`). Each slab and the shard's index carry a
crc32c; the record's sha256 of the decoded values also finds chunks that are gone or changed places.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cohort.data import quarantine
from cohort.data.arrays import read_array
from cohort.data.geometry import Grid
from cohort.data.inventory import Inventory
from cohort.data.layout import (
    ARRAYS,
    SCHEMA,
    arrays_folder,
    checked_arrays,
    commit_key,
    describe,
    digest_of,
    parse_record,
    read_root,
    subject_document,
    write_root,
)
from cohort.data.places import Place, Where, place_of
from cohort.data.storage import subject_faults, to_json
from cohort.data.subject_ids import check_subject_id
from cohort.errors import SubjectError

Result = TypeVar("Result")


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
    """A cohort in a folder or on object storage; make one with `create`, open one with `open`.

    place: where it is. grid: the working grid. settings: what it was made with.
    """

    def __init__(self, place: Place, grid: Grid, settings: dict[str, Any]) -> None:
        self.place = place
        self.grid = grid
        self.settings = settings

    @classmethod
    def create(cls, where: Where, grid: Grid, *, settings: dict[str, Any]) -> "CohortStore":
        """Make an empty store; ``settings`` is JSON and stays as it is for ever."""
        from triton_reg import __version__  # here, so that workers that only read need no torch

        place = place_of(where)
        write_root(place, grid, settings, created_by=f"triton_reg {__version__}")
        return cls(place, grid, settings)

    @classmethod
    def open(cls, where: Where, *, for_writing: bool = False) -> "CohortStore":
        """Open a store; for writing, also clear away what writers that died left behind."""
        place = place_of(where)
        store = cls(place, *read_root(place))
        if for_writing:
            place.sweep()
        return store

    @property
    def where(self) -> Where:
        """The path or the URL that it was opened by."""
        return self.place.where

    @property
    def path(self) -> Path:
        """The folder of a store on a file system."""
        return Path(self.place.where)

    @property
    def address(self) -> str:
        """The absolute path or the URL: by what other processes open it."""
        return self.place.address

    @property
    def subject_ids(self) -> tuple[str, ...]:
        """Committed subjects, sorted."""
        return self.place.subject_ids()

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
        return quarantine.read_entries(self.place)

    def inventory(self, planned: Mapping[str, str] | None = None) -> Inventory:
        """What all records say together; reads each of them once.

        planned: digests that stand for those of subjects whose records are damaged, so that a run
        that knows them can go on with the others.
        """
        names = self.subject_ids
        arrays = self.each(self._arrays_or_fault, names)
        return Inventory.of(self.grid, dict(zip(names, arrays, strict=True)), planned or {})

    def subject_digest(self, subject_id: str) -> str:
        """sha256 of a subject's decoded content, from its record; arrays are not read."""
        return digest_of(self.record(subject_id)["arrays"])

    def record(self, subject_id: str) -> dict[str, Any]:
        """What was committed: arrays (sha256, shape, dtype each), source, provenance."""
        check_subject_id(subject_id)
        with subject_faults(subject_id, "record", self.place.name(commit_key(subject_id))):
            content = self.place.record(subject_id)
            if content is None:
                said = f"{self.where} has no subject {subject_id!r}"
                raise SubjectError("E_UNKNOWN_SUBJECT", said)
            return parse_record(content)

    def each(self, work: Callable[[str], Result], names: Sequence[str]) -> list[Result]:
        """``work`` of each name, of as many at once as the place takes well."""
        if self.place.readers == 1:
            return [work(name) for name in names]
        with ThreadPoolExecutor(self.place.readers) as readers:
            return list(readers.map(work, names))

    def _arrays_or_fault(self, subject_id: str) -> dict[str, Any] | SubjectError:
        """What a record says of its arrays: of 50,000 subjects all else is 0.4 GB."""
        try:
            return self.record(subject_id)["arrays"]
        except SubjectError as error:
            return error

    def read(self, subject_id: str) -> Subject:
        """Read all arrays of a subject and check them against its record."""
        record = self.record(subject_id)
        folder = self.place.name(arrays_folder(subject_id, record))

        def array(name: str) -> np.ndarray:
            with subject_faults(subject_id, f"array {name}", f"{folder}/{name}"):
                source = self.place.array(subject_id, record, name)
                return read_array(source, name, record["arrays"][name], self.grid)

        names = list(record["arrays"])
        found = zip(names, self.each(array, names), strict=True)
        return Subject(subject_id, **{ARRAYS[name].field: values for name, values in found})

    def commit(self, subject: Subject, provenance: dict[str, Any]) -> None:
        """Store a subject, replacing an older version; it is there whole or not at all.

        provenance: JSON; its ``source`` entry becomes the record's source.
        """
        check_subject_id(subject.subject_id)
        arrays = checked_arrays(vars(subject), self.grid)
        record = {
            "schema": SCHEMA,
            "subject_id": subject.subject_id,
            "arrays": {name: describe(values) for name, values in arrays.items()},
            "source": provenance.get("source"),
            "provenance": {key: provenance[key] for key in provenance if key != "source"},
        }
        document = to_json(subject_document(self.grid))
        self.place.commit(subject.subject_id, document, arrays, record)
        quarantine.remove_entry(self.place, subject.subject_id)

    def remove(self, subject_id: str) -> None:
        """Take a subject out of the store; one that is not there is no error."""
        check_subject_id(subject_id)
        self.place.discard(subject_id)

    def quarantine(self, subject_id: str, code: str, message: str, source: Any) -> None:
        """Record why a subject is refused; what is committed under its name stays."""
        quarantine.write_entry(self.place, subject_id, code, message, source)

    def release(self, subject_id: str) -> None:
        """Forget why a subject was refused."""
        quarantine.remove_entry(self.place, subject_id)
