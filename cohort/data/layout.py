"""What a store looks like on disk: which arrays, in which pieces, and the documents beside them.

cohort.zarr/zarr.json                 attributes.cohort: schema, grid, settings, created_by
cohort.zarr/subjects/<subject_id>/    image, labels, mask, keypoints, to_template, from_template
                                      commit.json, written last: what has none does not exist
cohort.zarr/quarantine/<subject_id>.json
cohort.zarr/features/<method>/         what `--keep-features` keeps; see cohort.data.kept_features

On object storage, where no folder can be renamed, a subject's arrays lie in
``versions/<subject_id>/<version>/`` and ``commit.json`` names the version.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cohort.data.geometry import Grid
from cohort.data.storage import TEMPORARY, storage_error, to_json
from cohort.errors import StorageError, UsageError

if TYPE_CHECKING:
    from cohort.data.places import Place

SCHEMA = 1
ROOT, COMMIT = "zarr.json", "commit.json"
RECORDS, VERSIONS, REFUSED = "subjects", "versions", "quarantine"
_SLAB = 16
_MAX_KEYPOINTS = 1_000_000
_SPACE = ("x", "y", "z")
_RECORD = {"schema", "subject_id", "arrays", "source", "provenance", "version", "digest"}


@dataclass(frozen=True)
class ArraySpec:
    """How one field of a subject lies in the store."""

    field: str
    dtype: str
    dimension_names: tuple[str, ...]

    def fault(self, shape: tuple[int, ...], dtype: str, grid: Grid) -> str | None:
        """What is wrong with an array of this shape and dtype, or None; nothing is allocated."""
        if self.field == "keypoints_mm":
            fits = len(shape) == 2 and shape[1] == 3 and 0 < shape[0] <= _MAX_KEYPOINTS
            needed = f"[1 to {_MAX_KEYPOINTS}, 3]"
        else:
            expected = (3, *grid.shape) if len(self.dimension_names) == 4 else grid.shape
            fits, needed = shape == expected, str(list(expected))
        if fits and dtype == self.dtype:
            return None
        return f"is {dtype} {list(shape)}, need {self.dtype} {needed}"

    def pieces(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Chunk and shard: slabs of 16 along the first axis of space, all of them in one shard."""
        if self.field == "keypoints_mm":
            return shape, shape
        *vector, depth, height, width = shape
        slab = min(_SLAB, depth)
        whole = -(-depth // slab) * slab
        return (*(1 for _ in vector), slab, height, width), (*vector, whole, height, width)


ARRAYS = {
    "image": ArraySpec("volume", "float32", _SPACE),
    "labels": ArraySpec("labels", "uint16", _SPACE),
    "mask": ArraySpec("mask", "uint8", _SPACE),
    "keypoints": ArraySpec("keypoints_mm", "float64", ("point", "coordinate")),
    "to_template": ArraySpec("to_template", "float32", ("vector", *_SPACE)),
    "from_template": ArraySpec("from_template", "float32", ("vector", *_SPACE)),
}


def commit_key(subject_id: str) -> str:
    """Where the record of a subject lies."""
    return f"{RECORDS}/{subject_id}/{COMMIT}"


def arrays_folder(subject_id: str, record: Mapping[str, Any]) -> str:
    """Where the arrays of a record lie."""
    if "version" not in record:
        return f"{RECORDS}/{subject_id}"
    return f"{VERSIONS}/{subject_id}/{record['version']}"


def write_root(place: "Place", grid: Grid, settings: dict[str, Any], created_by: str) -> None:
    """Make an empty store."""
    _refuse_other_content(place)
    cohort = {
        "schema": SCHEMA,
        "grid": grid.to_json(),
        "settings": settings,
        "created_by": created_by,
    }
    attributes = {"cohort": sealed(cohort)}
    document = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    if not place.make_root(to_json(document)):
        raise UsageError("E_STORE", f"{place.where} was just made by another process; run again")


def read_root(place: "Place") -> tuple[Grid, dict[str, Any]]:
    """Grid and settings of a store."""
    where = place.where
    try:
        document = json.loads(place.read(ROOT))
        cohort = document["attributes"]["cohort"]
        if cohort["schema"] != SCHEMA:
            raise StorageError(
                "E_SCHEMA",
                f"{where} has schema version {cohort['schema']}; this program reads {SCHEMA}",
            )
        _check_seal(cohort)
        return Grid.from_json(cohort["grid"]), dict(cohort["settings"])
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(
            "E_STORE", f"{where} is no cohort store: it has no zarr.json. `cohort ingest` makes one"
        ) from error
    except OSError as error:
        raise storage_error(where, error) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StorageError(
            "E_SCHEMA", f"{place.name(ROOT)} does not describe a cohort store: {error!r}"
        ) from error


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    """A document with the sha256 of all else that it says."""
    return {**document, "digest": digest_of(document)}


def _check_seal(document: dict[str, Any]) -> None:
    """ValueError if a document says something else than what was written; older ones say less."""
    said = {name: value for name, value in document.items() if name != "digest"}
    if "digest" in document and document["digest"] != digest_of(said):
        raise ValueError("it is not what was written: its digest is that of another document")


def parse_record(content: bytes) -> dict[str, Any]:
    """The document of a ``commit.json``; ValueError or KeyError if it is none."""
    document = json.loads(content)
    names = document["arrays"].keys()
    if document["schema"] != SCHEMA or not {"image"} <= names <= ARRAYS.keys():
        raise ValueError(f"it has schema {document['schema']} and arrays {sorted(names)}")
    unknown = document.keys() - _RECORD
    if unknown:
        raise ValueError(f"it says {sorted(unknown)}, which records do not")
    if not str(document.get("version", "0")).isalnum():
        raise ValueError(f"it names the version {document['version']!r}")
    _check_seal(document)
    return document


def subject_document(grid: Grid) -> dict[str, Any]:
    """``zarr.json`` of one subject: OME-Zarr 0.5 for viewers, which knows no full affine."""
    transformations = [
        {"type": "scale", "scale": list(grid.spacing_mm)},
        {"type": "translation", "translation": grid.affine[:3, 3].tolist()},
    ]
    axes = [{"name": name, "type": "space", "unit": "millimeter"} for name in _SPACE]
    datasets = [{"path": "image", "coordinateTransformations": transformations}]
    ome = {"version": "0.5", "multiscales": [{"name": "image", "axes": axes, "datasets": datasets}]}
    attributes = {"ome": ome, "cohort": {"schema": SCHEMA, "affine": grid.affine.tolist()}}
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def checked_arrays(fields: Mapping[str, Any], grid: Grid) -> dict[str, np.ndarray]:
    """The arrays among a subject's fields by their name in the store; wrong shapes are refused."""
    arrays = {}
    for name, spec in ARRAYS.items():
        values = fields[spec.field]
        if values is None:
            continue
        fault = spec.fault(values.shape, values.dtype.name, grid)
        if fault:
            raise ValueError(f"commit: {spec.field} of subject {fields['subject_id']} {fault}")
        arrays[name] = values
    return arrays


def describe(values: np.ndarray) -> dict[str, Any]:
    """What a record says of an array: sha256 of its C-order bytes, shape, dtype."""
    content = np.ascontiguousarray(values)
    digest = hashlib.sha256(content.data.cast("B")).hexdigest()
    return {"sha256": digest, "shape": list(values.shape), "dtype": values.dtype.name}


def digest_of(document: Any) -> str:
    """sha256 of a JSON document, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _refuse_other_content(place: "Place") -> None:
    where = place.where
    try:
        names = place.names("")
    except OSError as error:
        raise storage_error(where, error) from error
    if ROOT in names:
        raise UsageError("E_STORE", f"{where} is a store already; open it instead")
    ours = {RECORDS, VERSIONS, REFUSED}
    foreign = sorted(name for name in names - ours if not name.startswith(TEMPORARY))
    if foreign:
        raise UsageError(
            "E_STORE",
            f"{where} is no cohort store and not empty (it holds {foreign[0]}); "
            "need a new or an empty folder",
        )
