"""Register native subjects to a cohort's reference, which the store keeps as it was.

The reference lies in the store as ``reference.npz``: volume, affine and, if it has one, mask. The
store's settings hold the digest of their values, so that subjects that come later are aligned to
the same thing or not at all.
"""

import io
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import distance_transform_edt

from cohort.data.entries import SourceEntry
from cohort.data.header_choices import HeaderChoices
from cohort.data.native import Native, load_native
from cohort.data.one_thread import one_thread
from cohort.data.places import Place, Where, place_of
from cohort.data.storage import TEMPORARY, storage_error
from cohort.errors import CohortError, StorageError, SubjectError, UsageError

if TYPE_CHECKING:
    from triton_reg.affine.placed import PlacedVolume
    from triton_reg.affine.register import AffineSettings

_KEPT = "reference.npz"
_PENDING = f"{TEMPORARY}{_KEPT}"
_CANDIDATES, _COMPARED = 8, 16
_COARSE_MM = 8.0
# room for the edge of what is labelled: it is what places it
_AROUND_LABELS_MM = 10.0


def write_reference(place: Place, reference: Native) -> dict[str, Any]:
    """Write the reference beside a store that is about to be made; what its settings say of it.

    `keep_reference` makes it the store's, `drop_reference` takes it away again.
    """
    arrays = {
        "volume": reference.volume,
        "affine": reference.grid.affine,
        "mask": mask_of(reference),
    }
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=False, **arrays)
    place.begin()
    place.write(_PENDING, packed.getvalue())
    return {"image_sha256": reference.sha256["image"], "digest": _digest(arrays)}


def keep_reference(place: Place) -> None:
    """Give a store the reference that was written for it, if that is yet to be done."""
    try:
        with suppress(FileNotFoundError):
            place.rename(_PENDING, _KEPT)
    except OSError as error:
        raise storage_error(place.where, error) from error


def drop_reference(place: Place) -> None:
    """Take away a reference that was written for a store that could not be made."""
    with suppress(CohortError):
        place.remove(_PENDING)


def mask_of(reference: Native) -> np.ndarray:
    """Where a reference is looked at: in its mask, within 10 mm of its labels, or near its centre.

    Near is within the radius of gyration of its intensities: of a head that keeps the brain and
    leaves out the neck and most of the face, which go where they please.
    """
    if reference.mask is not None:
        return reference.mask
    if reference.labels is None or not reference.labels.any():
        return _within_gyration(reference)
    away_mm = distance_transform_edt(reference.labels == 0, sampling=reference.grid.spacing_mm)
    return (np.asarray(away_mm) <= _AROUND_LABELS_MM).astype(np.uint8)


def search_settings(align: str, search_degrees: float) -> "AffineSettings":
    """How ingest registers: by mutual information, whatever the scanners."""
    from triton_reg.affine.register import AffineSettings

    assert align in ("rigid", "affine")
    return AffineSettings(transform=align, cost="mi", search_degrees=search_degrees)


def register_to_reference(
    native: Native, where: Where, settings: dict[str, Any]
) -> tuple[np.ndarray, dict[str, Any]]:
    """Working world mm -> native world mm ``[4, 4]``, and how it was found, for the record."""
    facts = settings["reference_facts"]
    if native.sha256["image"] == facts["image_sha256"]:
        return np.eye(4), {"to_native_mm": np.eye(4).tolist(), "start": "reference"}
    from triton_reg.affine.register import register_affine

    fixed = _kept_reference(where, facts["digest"])
    search = search_settings(settings["align"], settings["align_search_degrees"])
    with one_thread():
        found = register_affine([fixed], [_placed_native(native)], search)
    matrix = found.matrices[0].numpy()
    return matrix, {
        "to_native_mm": matrix.tolist(),
        "start": found.starts[0],
        "score_start": float(found.score_start[0]),
        "score_end": float(found.score_end[0]),
        "accepted": bool(found.accepted[0]),
        "iterations": int(found.iterations[0]),
    }


def choose_closest(entries: Sequence[SourceEntry], choices: HeaderChoices) -> Native:
    """The subject whose moments and intensities fit the others best.

    Up to 8 candidates are scored against up to 16 others, all evenly spread over the source, by
    the correlation at 8 mm after moments alone.
    """
    from triton_reg.affine.register import AffineSettings, register_affine

    natives = []
    for entry in _spread(entries, _COMPARED):
        try:
            natives.append(load_native(entry, choices))
        except SubjectError:  # it is quarantined when its turn comes
            continue
    if not natives:
        raise UsageError(
            "E_SOURCE", f"none of {len(entries)} subjects that were tried as reference can be read"
        )
    placed = [_placed_native(native) for native in natives]
    moments = AffineSettings(transform="rigid", spacings_mm=(_COARSE_MM,), iterations=0)

    def likeness(candidate: Native) -> float:
        index = natives.index(candidate)
        others = placed[:index] + placed[index + 1 :]
        if not others:
            return 0.0
        found = register_affine([placed[index]] * len(others), others, moments)
        return float(found.score_end.mean())

    with one_thread():
        return max(_spread(natives, _CANDIDATES), key=likeness)


def _within_gyration(reference: Native) -> np.ndarray:
    """uint8 ``[D, H, W]``: 1 within the root mean square distance of the intensities from their
    centre, weighted by what they are above the minimum."""
    weights = reference.volume.astype(np.float64) - reference.volume.min()
    weights /= weights.sum()
    voxels = np.stack(np.indices(weights.shape), axis=-1)
    world_mm = reference.grid.voxel_to_world(voxels)
    away_mm2 = ((world_mm - np.einsum("dhw,dhwk->k", weights, world_mm)) ** 2).sum(axis=-1)
    return (away_mm2 <= (weights * away_mm2).sum()).astype(np.uint8)


def _spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most ``most`` items, evenly over all."""
    count = min(len(items), most)
    return [items[index * len(items) // count] for index in range(count)]


@lru_cache(maxsize=1)
def _kept_reference(where: Where, digest: str) -> "PlacedVolume":
    place = place_of(where)
    path = place.name(_KEPT)
    try:
        # read whole first: numpy leaves a damaged file open
        with np.load(io.BytesIO(place.read(_KEPT))) as packed:
            arrays = dict(packed)
    except OSError as error:
        raise storage_error(path, error) from error
    except (ValueError, zipfile.BadZipFile) as error:
        raise StorageError("E_REFERENCE", f"{path} is damaged: {error}") from error
    if _digest(arrays) != digest:
        raise StorageError(
            "E_REFERENCE",
            f"{path} is not the reference that the store was made with; make another store",
        )
    return _placed(arrays["volume"], arrays["affine"], arrays.get("mask"))


def _placed_native(native: Native) -> "PlacedVolume":
    return _placed(native.volume, native.grid.affine, native.mask)


def _placed(volume: np.ndarray, affine: np.ndarray, mask: np.ndarray | None) -> "PlacedVolume":
    import torch

    from triton_reg.affine.placed import PlacedVolume

    seen = None if mask is None else torch.from_numpy(mask)
    return PlacedVolume(torch.from_numpy(volume), torch.tensor(affine), seen)


def _digest(arrays: dict[str, np.ndarray]) -> str:
    found = sha256()
    for name, values in sorted(arrays.items()):
        found.update(f"{name} {values.dtype} {values.shape}".encode())
        found.update(np.ascontiguousarray(values).tobytes())
    return found.hexdigest()
