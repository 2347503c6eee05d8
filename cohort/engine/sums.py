"""What a run adds up over its pairs, on request: the makings of a template.

Each moving subject arrives on the fixed grid and is added there to integers: values and voxels in
units of 2^-16, times the subject's weight. Integers add up to the same whatever the order, so that
a mean has the same bits for any number of workers and any tiles. ``RUN/sums.zarr/TILE`` holds what
one tile adds, sealed by the tile's part.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cohort.data.layout import digest_of
from cohort.data.stacks import read_facts, read_row, write_stack
from cohort.data.storage import is_storage_fault, storage_error, sweep
from cohort.errors import StorageError

FOLDER, TOTAL = "sums.zarr", "total.zarr"
UNIT = 1 << 16
FIELDS = ("weight", "image", "first", "second", "third")  # of the displacement along three axes
DETAIL = ("log_jacobian", "log_jacobian_squared")
RANGE = (-0.25, 1.75)  # of a histogram's bins; subjects' 1st and 99th percentiles are 0 and 1
FAN_IN = 8  # sums that are added up to one at a time
_SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Sums:
    """What some subjects add up to.

    Attributes:
        fields: int64 ``[5 or 7, D, H, W]``, as `FIELDS` and `DETAIL` name them.
        histogram: int32 ``[bins, D, H, W]``; None without one.
        subjects: whose sums they are, by weight in 256ths.
    """

    fields: np.ndarray
    histogram: np.ndarray | None
    subjects: dict[str, int]

    def __add__(self, other: "Sums") -> "Sums":
        """Of the subjects of both, who must be different ones."""
        twice = self.subjects.keys() & other.subjects.keys()
        if twice:
            raise ValueError(f"Sums: {min(twice)} is in both")
        both = None
        if self.histogram is not None and other.histogram is not None:
            both = self.histogram + other.histogram
        return Sums(self.fields + other.fields, both, self.subjects | other.subjects)

    @property
    def weight(self) -> int:
        """Of all subjects, in 256ths."""
        return sum(self.subjects.values())

    def row(self, name: str) -> np.ndarray:
        """One of the fields by its name."""
        return self.fields[(*FIELDS, *DETAIL).index(name)]


def write_sums(folder: Path, sums: Sums) -> None:
    """Write sums into ``folder``, each array whole or not at all; raises StorageError."""
    parts = {"histogram": sums.histogram, "fields": sums.fields}  # fields last: they vouch for both
    for name, values in parts.items():
        if values is not None:
            write_stack(folder / name, values, _facts(values, {"subjects": sums.subjects}))


def write_labels(folder: Path, labels: dict[str, np.ndarray]) -> None:
    """Write warped label maps, a row a subject; raises StorageError."""
    if labels:
        values = np.stack(list(labels.values()))
        write_stack(folder / "labels", values, _facts(values, {"subjects": list(labels)}))


def has_sums(folder: Path) -> bool:
    """Whether :func:`write_sums` wrote anything there."""
    return (folder / "fields").is_dir()


def read_sums(folder: Path) -> Sums | None:
    """What :func:`write_sums` wrote; None if it wrote nothing.

    Raises:
        StorageError: ``E_SUMS`` if it is damaged.
    """
    if not has_sums(folder):
        return None
    fields, facts = _read(folder / "fields", np.int64)
    counted = _read(folder / "histogram", np.int32)[0] if (folder / "histogram").is_dir() else None
    return Sums(fields, counted, dict(facts["subjects"]))


def labels_there(folder: Path) -> list[str]:
    """Subjects whose warped labels were kept; raises StorageError as :func:`read_sums`."""
    if not (folder / "labels").is_dir():
        return []
    try:
        return list(_document(read_facts(folder / "labels", np.uint16)[1])["subjects"])
    except Exception as error:  # zarr has many names for damage
        raise _damaged(folder / "labels", error) from error


def read_labels(folder: Path, row: int) -> np.ndarray:
    """One subject's warped labels, uint16 ``[D, H, W]``; raises StorageError as `read_sums`."""
    try:
        return read_row(folder / "labels", row, np.uint16)
    except Exception as error:
        raise _damaged(folder / "labels", error) from error


def check_sums(folder: Path) -> None:
    """Read all that a tile added, if it added anything; raises StorageError as `read_sums`."""
    read_sums(folder)
    if (folder / "labels").is_dir():
        _read(folder / "labels", np.uint16)


def sweep_sums(run_dir: Path) -> None:
    """Remove what writers that died left; only the run's one driver may. Raises StorageError."""
    for tile in (run_dir / FOLDER).glob("*"):
        try:
            sweep(tile)
        except OSError as error:
            raise storage_error(tile, error) from error


def _facts(values: np.ndarray, said: dict[str, Any]) -> dict[str, Any]:
    digest = hashlib.sha256(np.ascontiguousarray(values).data.cast("B")).hexdigest()
    document = {"schema": _SCHEMA, "sha256": digest, **said}
    return {"cohort": {**document, "digest": digest_of(document)}}


def _read(folder: Path, dtype: type[np.integer]) -> tuple[np.ndarray, dict[str, Any]]:
    try:
        shape, facts = read_facts(folder, dtype)
        document = _document(facts)
        values = np.stack([read_row(folder, row, dtype) for row in range(shape[0])])
    except Exception as error:
        raise _damaged(folder, error) from error
    if document["sha256"] != _facts(values, {})["cohort"]["sha256"]:
        raise _damaged(folder, ValueError("its values are others"))
    return values, document


def _document(facts: dict[str, Any]) -> dict[str, Any]:
    document = dict(facts["cohort"])
    if document.pop("digest") != digest_of(document) or document["schema"] != _SCHEMA:
        raise ValueError("what it says of itself is not what was written")
    return document


def _damaged(folder: Path, error: Exception) -> StorageError:
    if isinstance(error, OSError) and is_storage_fault(error):
        return storage_error(folder, error)
    said = f"{folder} is damaged: {error}"
    if TOTAL in folder.parts:  # the tiles' own sums are gone
        run_dir = Path(*folder.parts[: folder.parts.index(TOTAL)])
        return StorageError(
            "E_SUMS", f"{said}. Remove {run_dir}: `cohort atlas` does that pass again"
        )
    return StorageError("E_SUMS", f"{said}. `cohort repair` makes it anew")
