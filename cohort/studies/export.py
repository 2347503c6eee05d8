"""A pair's transform as other tools read it, with a document that says what each file does."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from cohort.data.geometry import Grid
from cohort.data.storage import TEMPORARY, remove, storage_error, to_json, write_atomic
from cohort.engine.displacements import read_kept
from cohort.engine.workbench import Workbench
from cohort.errors import UsageError
from cohort.studies.bids_names import bids_label, check_labels, dataset_description, transform_stem
from cohort.studies.itk_composite import MISSING, can_write_composite, write_composite
from cohort.studies.itk_files import write_itk_affine, write_itk_field
from cohort.studies.learn2reg import challenge_numbers, write_learn2reg
from cohort.studies.native_field import (
    difference_between_voxels,
    native_determinant,
    native_field,
)
from cohort.studies.native_space import NativePair, NativeSubject, Route, native_pair
from cohort.studies.nifti_images import RAS_DISPLACEMENT, write_image
from cohort.studies.other_readers import caution
from triton_reg import __version__

Format = Literal["itk", "nifti", "learn2reg", "bids"]
FORMATS: tuple[Format, ...] = get_args(Format)
_MAX_SHEAR = 1e-3


@dataclass(frozen=True, eq=False)
class Exported:
    """What was written.

    record: the document beside the files. facts: what it holds.
    """

    record: Path
    facts: dict[str, Any]


def export(
    workbench: Workbench, route: Route, format_: Format, out: Path, *, jacobian: bool = False
) -> Exported:
    """Write the transform of one route of a run into the folder ``out``.

    Several pairs may go into one folder; a file that is there already is refused. Each file is
    there whole or not at all, and the record last.

    ``jacobian`` adds a map of the determinant of the Jacobian on the file's own grid.

    Raises:
        UsageError: ``E_EXISTS`` if one of the files is there, or ``out`` is a file; ``E_PAIRS``,
            ``E_EXPORT`` if the pair or its subjects' names cannot be exported.
        SubjectError: if one of the subjects is broken or did not come from a file.
    """
    if out.exists() and not out.is_dir():
        raise UsageError("E_EXISTS", f"{out} is a file; need a folder, new or there already")
    if format_ == "bids":
        check_labels(workbench.spec.subject_ids)
    pair = native_pair(workbench, route)
    if format_ in ("itk", "bids"):
        _check_orthogonal(pair)
    stem = _stem(workbench, pair, format_)
    with _published(out) as folder:
        (folder / stem).parent.mkdir(parents=True, exist_ok=True)
        written = _Writer(pair, folder, stem)
        if format_ == "learn2reg":
            written.learn2reg(workbench)
        else:
            written.native(format_)
        if jacobian or format_ == "nifti":
            written.determinant()
        facts = _facts(workbench, pair, format_) | written.facts
        record = f"{stem}_xfm.json" if format_ == "bids" else f"{stem}.json"
        write_atomic(folder / record, to_json(facts))
    return Exported(out / record, facts)


class _Writer:
    """Writes the files of a pair into a folder and notes what each is."""

    def __init__(self, pair: NativePair, folder: Path, stem: str) -> None:
        self.pair, self.folder, self.stem = pair, folder, stem
        onto, of = pair.onto.subject_id, pair.of.subject_id
        self.said = f"{of} resampled onto {onto}; points of {onto} to {of}"
        self.files: dict[str, str] = {}
        self.facts: dict[str, Any] = {"files": self.files}

    def native(self, format_: Format) -> None:
        """The field on the grid of the file, and what else the format has."""
        pair, grid = self.pair, self.pair.onto.grid
        field = native_field(pair.chain, grid)
        self.facts["between_voxels"] = asdict(difference_between_voxels(pair.chain, grid, field))
        whole = f"{self.said}: the whole transform, on the grid of the file of"
        if format_ == "nifti":
            path = self._file("_displacement.nii.gz", f"{whole} {self._onto}; RAS mm, intent 1006")
            write_image(path, field[:, :, :, None], grid, f"RAS mm: {self.said}", RAS_DISPLACEMENT)
            return
        ending = "_xfm.nii.gz" if format_ == "bids" else "_displacement.nii.gz"
        path = self._file(ending, f"{whole} {self._onto}; LPS mm, as ITK and ANTs read it")
        write_itk_field(path, field, grid, f"LPS mm: {self.said}")
        if format_ == "itk":
            self._affine(grid)
        self._composite("_xfm.h5" if format_ == "bids" else "_composite.h5", grid)
        if format_ == "bids":
            names = {one.subject_id: bids_label(one.subject_id) for one in (pair.onto, pair.of)}
            self.facts["subject_labels"] = names
            write_atomic(self.folder / "dataset_description.json", to_json(dataset_description()))

    def learn2reg(self, workbench: Workbench) -> None:
        """Voxels of the working grid, and which subject has which number."""
        grid, numbers = workbench.store.grid, challenge_numbers(workbench.spec.subject_ids)
        self.files |= write_learn2reg(self.folder, self.stem, self.pair.chain, grid)
        self.facts["grid"] = grid.to_json()
        write_atomic(self.folder / "subjects.json", to_json(numbers))

    def determinant(self) -> None:
        """How volume changes, voxel by voxel."""
        said = f"mm3 of {self.pair.of.subject_id} per mm3 of {self._onto}"
        path = self._file("_jacobian.nii.gz", f"determinant of the Jacobian, {said}")
        determinant = native_determinant(self.pair.chain, self.pair.onto.grid)
        write_image(path, determinant, self.pair.onto.grid, said)

    @property
    def _onto(self) -> str:
        return self.pair.onto.subject_id

    def _affine(self, grid: Grid) -> None:
        alone = "ingest's alignments alone, without the displacement: not to be added to the field"
        for ending in (".tfm", ".mat"):
            self._file(f"_affine{ending}", alone)
        stem = self.folder / f"{self.stem}_affine"
        write_itk_affine(stem, self.pair.chain.alignment, grid.center_mm)

    def _composite(self, ending: str, grid: Grid) -> None:
        if not can_write_composite():
            self.facts["composite"] = MISSING
            return
        steps = "affine, displacement on the working grid, affine: exact between voxels too"
        path = self._file(ending, f"{self.said}: the whole transform in its own steps, {steps}")
        write_composite(path, self.pair.chain, grid)

    def _file(self, ending: str, what: str) -> Path:
        name = f"{self.stem}{ending}"
        self.files[name] = what
        return self.folder / name


def _stem(workbench: Workbench, pair: NativePair, format_: Format) -> str:
    onto, of = pair.onto.subject_id, pair.of.subject_id
    if format_ == "learn2reg":
        numbers = challenge_numbers(workbench.spec.subject_ids)
        return f"disp_{numbers[onto]}_{numbers[of]}"
    if format_ == "bids":
        return transform_stem(onto, of, pair.onto.image, pair.route.inverse)
    inverse = "_desc-inverse" if pair.route.inverse else ""
    return f"from-{of}_to-{onto}_mode-image{inverse}"


def _facts(workbench: Workbench, pair: NativePair, format_: Format) -> dict[str, Any]:
    ends = (pair.onto, pair.of)
    return {
        "direction": pair.direction,
        "resampled": pair.of.subject_id,
        "onto": pair.onto.subject_id,
        "via": list(pair.route.via),
        "inverse": pair.route.inverse,
        "inverse_residual_voxels": pair.residual_voxels,
        "format": format_,
        "images": {one.subject_id: str(one.image) for one in ends},
        "affines": {one.subject_id: one.grid.affine.tolist() for one in ends},
        "cautions": _cautions(ends, format_),
        "method": workbench.spec.fingerprint,
        "plan_digest": workbench.spec.plan_digest,
        "version": __version__,
    } | _errors_of_kept(workbench, pair.route)


def _cautions(ends: tuple[NativeSubject, ...], format_: Format) -> dict[str, str]:
    """By subject, where the format's own tools read its file otherwise."""
    if format_ == "learn2reg":  # of the working grid, not of the files
        return {}
    found = {one.subject_id: caution(one, itk=format_ != "nifti") for one in ends}
    return {name: said for name, said in found.items() if said}


def _errors_of_kept(workbench: Workbench, route: Route) -> dict[str, Any]:
    """How far displacements that the run kept in 16 bits are from those that it registered."""
    if not route.kept:
        return {}
    kept = {
        (fixed, moving): read_kept(workbench.run_dir, workbench.spec, fixed, moving)
        for fixed, moving in route.pairs
    }
    said = [
        {"fixed": fixed, "moving": moving, "bound_mm": one.bound_mm, "error_mm": one.error_mm}
        for (fixed, moving), one in kept.items()
    ]
    return {"kept_displacements": said}


def _check_orthogonal(pair: NativePair) -> None:
    grid = pair.onto.grid
    if grid.shear > _MAX_SHEAR:
        raise UsageError(
            "E_EXPORT",
            f"the axes of {pair.onto.subject_id} are not at right angles (a cosine of"
            f" {grid.shear:.3g}), which ITK images cannot hold; --to nifti and `cohort apply` can",
        )


@contextmanager
def _published(out: Path) -> Iterator[Path]:
    """A folder whose files move into ``out`` when all are written, documents last."""
    folder = out / f"{TEMPORARY}{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True)
        yield folder
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        new = [path for path in paths if not _is_there(path, out / path.relative_to(folder))]
        for path in sorted(new, key=lambda path: path.suffix == ".json"):
            target = out / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    except OSError as error:
        raise storage_error(out, error) from error
    finally:
        remove(folder)


def _is_there(path: Path, target: Path) -> bool:
    """Whether ``target`` is the same file already, as what the pairs of a folder share is."""
    if not target.exists():
        return False
    if path.suffix == ".json" and path.read_bytes() == target.read_bytes():
        return True
    raise UsageError("E_EXISTS", f"{target} is there already; choose another folder")
