"""How much larger one subject is than the template, voxel by voxel and structure by structure.

The map is ln det J of the way from the template to the subject: positive where the subject is
larger. Without the affine part it says how the shape differs at the same size and pose; with it,
millimetres of the subject's own image are compared, and a large head is large everywhere.
"""

import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from scipy.ndimage import gaussian_filter

from cohort.data.align import recorded_to_native
from cohort.data.geometry import Grid
from cohort.data.one_thread import one_thread
from cohort.data.places import Where
from cohort.data.storage import storage_error, write_atomic
from cohort.data.store import CohortStore
from cohort.engine.displacements import read_kept
from cohort.engine.spec import RunSpec
from cohort.errors import StorageError, SubjectError
from cohort.studies.chain import Chain, Field, slabs
from cohort.studies.morphometry_space import read_values
from cohort.studies.published import Published, published_template

FWHM_OF_SIGMA = 2 * np.sqrt(2 * np.log(2))
_LEAST = 1e-3  # determinant; a folded voxel has no logarithm
_RUNS_AT_HAND = 4


@dataclass(frozen=True)
class MapJob:
    """One subject's map to be made, for a worker process.

    Attributes:
        subject_id: whose.
        run_dir: the run that keeps the displacement.
        store: the cohort.
        mask: file of voxels that are smoothed and kept.
        labels: file of structures; None without.
        structures: their values.
        affine: whether linear maps count.
        fwhm_mm: of the Gaussian; 0 for none.
        digest: of all that the maps depend on.
        into: the file for the result.
    """

    subject_id: str
    run_dir: Path
    store: Where
    mask: Path
    labels: Path | None
    structures: tuple[int, ...]
    affine: bool
    fwhm_mm: float
    digest: str
    into: Path


@dataclass(frozen=True, eq=False)
class SubjectMap:
    """What is found of one subject.

    Attributes:
        values: float32 ``[N]``, smoothed ln det J at the voxels of the mask.
        volumes_mm3: ``[M]`` of structures, in the subject's own millimetres.
        means: ``[M]`` of ln det J over structures, not smoothed; NaN for one without voxels.
        folded: voxels of the mask whose determinant is not above 0.001, which is what they count.
    """

    values: np.ndarray
    volumes_mm3: np.ndarray
    means: np.ndarray
    folded: int

    def save(self, path: Path) -> None:
        """Write it, whole or not at all; raises StorageError."""
        content = io.BytesIO()
        np.savez(content, **vars(self))
        write_atomic(path, content.getvalue())

    @classmethod
    def load(cls, path: Path) -> "SubjectMap":
        """What :meth:`save` wrote; raises StorageError, ``E_MORPHOMETRY`` if it is damaged."""
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as found:
                values, volumes, means = (found[one] for one in ("values", "volumes_mm3", "means"))
                return cls(values, volumes, means, int(found["folded"]))
        except OSError as error:
            raise storage_error(path, error) from error
        except (BadZipFile, ValueError, KeyError, EOFError) as error:
            message = f"{path} is damaged: {error}. Delete it and run again"
            raise StorageError("E_MORPHOMETRY", message) from error


@dataclass(frozen=True, eq=False)
class _Place:
    """What all subjects of a run share."""

    spec: RunSpec
    store: CohortStore
    published: Published
    mask: np.ndarray
    labels: np.ndarray | None


def make_map(job: MapJob) -> None:
    """Make one subject's map and write it to ``job.into``.

    Raises:
        UsageError, SubjectError, StorageError: as :func:`template_chain` does.
    """
    place = _place(job.run_dir, job.store, job.mask, job.labels, job.digest)
    grid = place.published.grid
    chain = template_chain(place.published, job.run_dir, place.spec, place.store, job.subject_id)
    linear = float(np.linalg.det(chain.alignment[:3, :3]))
    determinants = _determinants(chain, grid)
    counted = determinants if job.affine else determinants / linear
    logs = np.log(np.maximum(counted, _LEAST))
    values = smoothed(logs, place.mask, grid, job.fwhm_mm)[place.mask].astype(np.float32)
    voxel_mm3 = float(abs(np.linalg.det(grid.affine[:3, :3])))
    volumes = _sums(place.labels, job.structures, determinants) * voxel_mm3
    sizes = _sums(place.labels, job.structures, np.ones(grid.shape))
    with np.errstate(invalid="ignore"):
        means = _sums(place.labels, job.structures, logs) / sizes
    folded = int((counted[place.mask] <= _LEAST).sum())
    SubjectMap(values, volumes, means, folded).save(job.into)


def template_chain(
    published: Published, run_dir: Path, spec: RunSpec, store: CohortStore, subject_id: str
) -> Chain:
    """From the world of a published template to a subject's own, by the displacement that was kept.

    Raises:
        UsageError: ``E_PAIRS`` if the run keeps no displacement of the subject.
        SubjectError: ``E_CHANGED`` if the subject is no longer what was registered.
        StorageError: if the displacement is damaged.
    """
    template = spec.atlas
    assert template is not None, run_dir
    registered = spec.subject_digests[spec.subject_ids.index(subject_id)]
    if store.subject_digest(subject_id) != registered:
        raise SubjectError("E_CHANGED", f"{subject_id} is no longer what it was when registered")
    with one_thread():
        displacement = read_kept(run_dir, spec, template, subject_id).displacement
        vectors = displacement.full()[0].numpy()
    field = Field(vectors, published.field.grid.resampled(displacement.fixed_shape))
    try:
        to_native_mm = recorded_to_native(store.record(subject_id)["provenance"])
    except KeyError:  # it came from no file: its own world is the cohort's
        to_native_mm = np.eye(4)
    matrices = (published.to_working_mm, np.eye(4), to_native_mm)
    return Chain(template, subject_id, matrices, (published.field, field))


def smoothed(values: np.ndarray, mask: np.ndarray, grid: Grid, fwhm_mm: float) -> np.ndarray:
    """A Gaussian of this full width at half maximum inside a mask, ``[D, H, W]``; 0 outside.

    Normalised convolution: what the Gaussian takes from outside of the mask is left out of the
    weights too, so that a constant stays one up to the border. Knutsson and Westin, "Normalized and
    differential convolution", CVPR 1993. The standard deviation is the width over 2.3548.
    """
    inside = np.where(mask, values, 0.0)
    if fwhm_mm == 0:
        return inside
    sigma = [fwhm_mm / FWHM_OF_SIGMA / spacing for spacing in grid.spacing_mm]
    weight = gaussian_filter(mask.astype(np.float64), sigma, mode="constant")
    found = gaussian_filter(inside, sigma, mode="constant")
    return np.divide(found, weight, out=np.zeros_like(found), where=mask)


@lru_cache(maxsize=_RUNS_AT_HAND)
def _place(run_dir: Path, store: Where, mask: Path, labels: Path | None, digest: str) -> _Place:
    del digest  # tells apart what lay in the same files before
    published = published_template(run_dir)
    assert published is not None, run_dir
    return _Place(
        RunSpec.load(run_dir),
        CohortStore.open(store),
        published,
        read_values(mask) > 0,
        None if labels is None else read_values(labels),
    )


def _determinants(chain: Chain, grid: Grid) -> np.ndarray:
    """Of the chain's Jacobian in mm, float64 ``[D, H, W]``."""
    found = np.empty(grid.shape)
    for slab, voxels in slabs(grid.shape):
        found[slab] = chain.determinant(voxels, start=grid).reshape(found[slab].shape)
    return found


def _sums(labels: np.ndarray | None, structures: tuple[int, ...], values: np.ndarray) -> np.ndarray:
    """Of values over each structure, ``[M]``."""
    if labels is None or not structures:
        return np.zeros(0)
    totals = np.bincount(labels.ravel(), values.ravel(), minlength=max(structures) + 1)
    return totals[list(structures)]
