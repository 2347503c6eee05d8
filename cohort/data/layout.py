"""What a store looks like on disk: which arrays, in which pieces, and the documents beside them.

cohort.zarr/zarr.json                 attributes.cohort: schema, grid, settings, created_by
cohort.zarr/subjects/<subject_id>/    image, labels, mask, keypoints, to_template, from_template
                                      commit.json, written last: what has none does not exist
cohort.zarr/quarantine/<subject_id>.json
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cohort.data.geometry import Grid
from cohort.data.storage import TEMPORARY, storage_error, to_json, write_atomic
from cohort.errors import StorageError, UsageError

SCHEMA = 1
_SLAB = 16
_MAX_KEYPOINTS = 1_000_000
_SPACE = ("x", "y", "z")


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


def write_root(path: Path, grid: Grid, settings: dict[str, Any], created_by: str) -> None:
    """Make the folders of an empty store and its ``zarr.json``."""
    try:
        _refuse_other_content(path)
        (path / "subjects").mkdir(parents=True, exist_ok=True)
        (path / "quarantine").mkdir(exist_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error
    cohort = {
        "schema": SCHEMA,
        "grid": grid.to_json(),
        "settings": settings,
        "created_by": created_by,
    }
    # last and atomic: without it there is no store yet, and making it again goes on from here
    document = {"zarr_format": 3, "node_type": "group", "attributes": {"cohort": cohort}}
    write_atomic(path / "zarr.json", to_json(document))


def read_root(path: Path) -> tuple[Grid, dict[str, Any]]:
    """Grid and settings of the store at ``path``."""
    try:
        document = json.loads((path / "zarr.json").read_bytes())
        cohort = document["attributes"]["cohort"]
        if cohort["schema"] != SCHEMA:
            raise StorageError(
                "E_SCHEMA",
                f"{path} has schema version {cohort['schema']}; this program reads {SCHEMA}",
            )
        return Grid.from_json(cohort["grid"]), dict(cohort["settings"])
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(
            "E_STORE", f"{path} is no cohort store: it has no zarr.json. `cohort ingest` makes one"
        ) from error
    except OSError as error:
        raise storage_error(path, error) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StorageError(
            "E_SCHEMA", f"{path / 'zarr.json'} does not describe a cohort store: {error!r}"
        ) from error


def read_record(path: Path) -> dict[str, Any]:
    """The document of a ``commit.json``; ValueError or KeyError if it is none."""
    document = json.loads(path.read_bytes())
    names = document["arrays"].keys()
    if document["schema"] != SCHEMA or not {"image"} <= names <= ARRAYS.keys():
        raise ValueError(f"it has schema {document['schema']} and arrays {sorted(names)}")
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


@dataclass(frozen=True)
class Inventory:
    """What the records of a store say together.

    digest: sha256 over the grid and every subject's name and content. has_labels, has_masks,
    has_truth: whether any subject has labels, a mask, or a known displacement to the template.
    """

    subject_digests: dict[str, str]
    digest: str
    has_labels: bool
    has_masks: bool
    has_truth: bool

    @classmethod
    def of(cls, grid: Grid, arrays: Mapping[str, Mapping[str, Any]]) -> "Inventory":
        """From what the records say of each subject's arrays, by sorted subject id."""
        digests = {subject_id: digest_of(described) for subject_id, described in arrays.items()}
        return cls(
            digests,
            digest_of({"grid": grid.to_json(), "subjects": list(digests.items())}),
            any("labels" in described for described in arrays.values()),
            any("mask" in described for described in arrays.values()),
            any("to_template" in described for described in arrays.values()),
        )


def _refuse_other_content(path: Path) -> None:
    if not path.exists():
        return
    names = {entry.name for entry in path.iterdir()}
    if "zarr.json" in names:
        raise UsageError("E_STORE", f"{path} is a store already; open it instead")
    ours = {"subjects", "quarantine"}
    foreign = sorted(name for name in names - ours if not name.startswith(TEMPORARY))
    if foreign:
        raise UsageError(
            "E_STORE",
            f"{path} is no cohort store and not empty (it holds {foreign[0]}); "
            "need a new or an empty folder",
        )
