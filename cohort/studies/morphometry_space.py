"""Where morphometry takes place: a finished template, its mask, its structures, its subjects."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import polars as pl
from scipy.ndimage import binary_fill_holes

from cohort.config.atlas import AtlasSettings
from cohort.data.geometry import Grid
from cohort.data.native import read_segmentation
from cohort.data.nifti import Nifti, read_nifti
from cohort.data.storage import storage_error
from cohort.engine.results import read_rows
from cohort.engine.spec import RunSpec
from cohort.errors import StorageError, SubjectError, UsageError
from cohort.studies.atlas.passes import FINAL, runs_of, sums_of
from cohort.studies.atlas.publish import DOCUMENT, image_file
from cohort.studies.atlas.settings import load_settings
from cohort.studies.chain import Chain, sample, slabs
from cohort.studies.published import Published, published_template

SEEN = 0.95  # share of the subjects whose image or mask covers a voxel of the mask


@dataclass(frozen=True, eq=False)
class TemplateSpace:
    """A finished template as morphometry sees it.

    Attributes:
        published: the template, and the way from there to what its last runs registered to.
        runs: of the last pass, and of subjects who were added to it.
        subjects: those who were registered, by id, and the run that has their displacement.
        failed: the others, and why.
        labels: the majority of the labels; None if no subject has any.
        store: where the cohort was when the template was made.
    """

    published: Published
    runs: tuple[Path, ...]
    subjects: dict[str, Path]
    failed: dict[str, str]
    labels: Path | None
    store: str

    @classmethod
    def open(cls, out: Path) -> "TemplateSpace":
        """The template that `cohort atlas` left in ``out``.

        Raises:
            UsageError: ``E_MORPHOMETRY`` if there is none, it is not finished, or its image is no
                longer what was written.
            SubjectError: ``E_EMPTY`` if nobody could be registered to it.
            StorageError: if its files are damaged.
        """
        settings = load_settings(out)
        runs = tuple(runs_of(out / FINAL))
        published = _published(out, settings, runs)
        rows = pl.concat([read_rows(one).with_columns(run=pl.lit(str(one))) for one in runs])
        good = rows.filter(pl.col("status") == "ok").sort("moving")
        # a later run may have registered whom an earlier one could not
        bad = rows.filter(pl.col("status") != "ok").join(good, on="moving", how="anti")
        if good.is_empty():
            raise SubjectError("E_EMPTY", f"no subject could be registered to the template {out}")
        labels = published.image.with_name(f"{published.image.name.rpartition('_')[0]}_dseg.nii.gz")
        return cls(
            published,
            runs,
            {one: Path(run) for one, run in good.select("moving", "run").iter_rows()},
            dict(bad.sort("moving").select("moving", "message").iter_rows()),
            labels if labels.exists() else None,
            RunSpec.load(runs[0]).store,
        )

    @property
    def grid(self) -> Grid:
        """Of the template's files."""
        return self.published.grid

    def mask(self, given: Nifti | None = None, workers: int = 1) -> np.ndarray:
        """bool ``[D, H, W]``: the given mask, or the template's foreground, where it was seen.

        Foreground is brighter than the template's mean, with the holes inside, or has a label. Seen
        is what lies inside the images, masks counted, of at least `SEEN` of the subjects.
        """
        if given is not None:
            return (given.data > 0) & (self._seen(workers) >= SEEN)
        image = read_values(self.published.image)
        found = np.asarray(binary_fill_holes(image > image.mean()))
        if self.labels is not None:
            found |= read_values(self.labels) > 0
        return found & (self._seen(workers) >= SEEN)

    def given_mask(self, path: Path) -> Nifti:
        """A mask that somebody drew on the template.

        Raises:
            UsageError: ``E_MASK_SHAPE`` on another grid than the template's, ``E_MASK_EMPTY``
                without voxels, and the codes of what :func:`cohort.data.nifti.read_nifti` raises.
        """
        template = read_nifti(self.published.image)
        try:
            return read_segmentation(path, template, is_mask=True)
        except SubjectError as error:  # not a subject's fault
            raise UsageError(error.code, error.message) from error

    def structures(self) -> dict[int, str]:
        """Label value -> name, from the table beside the labels."""
        if self.labels is None:
            return {}
        path = self.labels.with_name(self.labels.name.replace(".nii.gz", ".tsv"))
        try:
            lines = path.read_text(encoding="utf-8").splitlines()[1:]
        except OSError as error:
            raise storage_error(path, error) from error
        pairs = [line.split("\t", 1) for line in lines]
        return {int(value): name for value, name in pairs}

    def _seen(self, workers: int) -> np.ndarray:
        """Share of the subjects, by weight, whose image covers a voxel ``[D, H, W]``."""
        sums = sums_of(self.runs, workers)
        share = sums.row("weight") / max(sums.weight, 1)
        field = self.published.field
        chain = Chain("template", "run", (self.published.to_working_mm, np.eye(4)), (field,))
        size = np.array(field.grid.shape)[:, None]
        found = np.empty(self.grid.shape)
        for slab, voxels in slabs(self.grid.shape):
            there = chain.map(voxels, start=self.grid, end=field.grid)
            values = sample(share, there)
            values[((there < -0.5) | (there > size - 0.5)).any(axis=0)] = 0
            found[slab] = values.reshape(found[slab].shape)
        return found


def read_values(path: Path) -> np.ndarray:
    """The values of a file of ours as they are stored; raises StorageError."""
    try:
        return np.asarray(nib.load(path).dataobj)  # pyright: ignore[reportAttributeAccessIssue]
    except (OSError, EOFError) as error:
        fault = error if isinstance(error, OSError) else OSError("the file ends too early")
        raise storage_error(path, fault) from error


def _document(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except OSError as error:
        raise storage_error(path, error) from error
    except ValueError as error:
        message = f"{path} is damaged: {error}. Delete it and run the same `cohort atlas` again"
        raise StorageError("E_MORPHOMETRY", message) from error


def _published(out: Path, settings: AtlasSettings | None, runs: tuple[Path, ...]) -> Published:
    """What all runs are told that their template became."""
    unfinished = UsageError(
        "E_MORPHOMETRY",
        f"{out} holds no finished template; need the folder that `cohort atlas STORE OUT` made."
        " The same `cohort atlas` again finishes one that was stopped",
    )
    if settings is None or not (out / DOCUMENT).exists():
        raise unfinished
    document = _document(out / DOCUMENT)
    found = [published_template(one) for one in runs]
    if document.get("runs") != [one.name for one in runs] or found[0] is None:
        raise unfinished
    image = image_file(out, settings)  # the folder may have been moved
    try:
        digest = hashlib.sha256(image.read_bytes()).hexdigest()
    except OSError as error:
        raise storage_error(image, error) from error
    if any(one is None or one.sha256 != digest for one in found):
        raise UsageError(
            "E_MORPHOMETRY",
            f"{image} is not what `cohort atlas` wrote there; need the template as it was made",
        )
    first = found[0]
    return Published(image, digest, first.grid, first.to_working_mm, first.field)
