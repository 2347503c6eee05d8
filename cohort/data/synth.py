"""A synthetic population: NIfTI files of deformed heads whose true displacements are known.

Subject k is the template head seen through its own diffeomorphism, ``image_k(x) = head(phi_k(x))``
with ``phi_k = exp(v_k)``: subject point x lies at template point ``phi_k(x)``. The velocity v_k is
zero on the border of the field of view, so the head never leaves the image.

    FOLDER/population.json                   settings, their digest, what the files mean
    FOLDER/structures.json                   label value -> name
    FOLDER/images/SUBJECT.nii.gz             int16
    FOLDER/labels/SUBJECT.nii.gz             uint8
    FOLDER/truth/SUBJECT_to-template.nii.gz  subject world point n lies at n + value(n), RAS mm
    FOLDER/truth/SUBJECT_from-template.nii.gz the inverse, on the template's grid
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from cohort.data.geometry import Grid
from cohort.data.nifti import write_nifti
from cohort.data.phantom import FIELD_OF_VIEW_MM, LABELS, sample_head
from cohort.data.storage import storage_error, to_json, write_atomic
from cohort.data.velocity import SmoothVelocity
from cohort.errors import UsageError

SCHEMA = 1  # part of the digest: raise it when the same settings would give other files
WHITE_MATTER = 800.0  # stored intensity of the phantom's level 1
BIAS_MODES = 3

Progress = Callable[[int, int], None]
"""Called with the number of subjects that are done, and of all."""


@dataclass(frozen=True)
class SynthSettings:
    """What decides the population.

    Args:
        subjects: Number of subjects; subject k does not depend on it.
        shape: Voxels ``(D, H, W)`` of every image.
        spacing_mm: Edge of the cubic voxels. The head fills the field of view at any size.
        seed: Zero or more.
        deformation_mm: Root mean square length of each subject's velocity inside the head.
        noise: Standard deviation of the Rician noise, as a share of white matter.
        bias: Root mean square of the logarithm of the multiplicative bias field.
    """

    subjects: int = 6
    shape: tuple[int, int, int] = (64, 72, 64)
    spacing_mm: float = 2.5
    seed: int = 0
    deformation_mm: float = 5.0
    noise: float = 0.03
    bias: float = 0.1

    def __post_init__(self) -> None:
        _require("subjects", self.subjects, 1 <= self.subjects <= 999_999, "1 to 999999")
        sizes_fit = len(self.shape) == 3 and all(16 <= size <= 512 for size in self.shape)
        _require("shape", self.shape, sizes_fit, "three sizes of 16 to 512")
        _require("spacing_mm", self.spacing_mm, 0.1 <= self.spacing_mm <= 20, "0.1 to 20")
        _require("seed", self.seed, self.seed >= 0, "0 or more")
        largest = 0.06 * min(self.shape) * self.spacing_mm
        fits = 0 <= self.deformation_mm <= largest
        needed = f"0 to {largest:.2f} (6 % of the shortest side of the field of view)"
        _require("deformation_mm", self.deformation_mm, fits, needed)
        _require("noise", self.noise, 0 <= self.noise <= 1, "0 to 1")
        _require("bias", self.bias, 0 <= self.bias <= 1, "0 to 1")

    @property
    def grid(self) -> Grid:
        """The voxels of the template and of every subject; world zero is in the middle."""
        return Grid.axis_aligned(self.shape, [self.spacing_mm] * 3, np.zeros(3))

    @property
    def subject_ids(self) -> tuple[str, ...]:
        """``sub-001``, ``sub-002``, ..."""
        return tuple(f"sub-{number:03d}" for number in range(1, self.subjects + 1))

    @property
    def digest(self) -> str:
        """SHA-256 of everything that the files depend on."""
        return hashlib.sha256(to_json({"schema": SCHEMA, **asdict(self)})).hexdigest()


def _require(name: str, value: object, good: bool, needed: str) -> None:
    if not good:
        raise UsageError("E_SYNTH_SETTINGS", f"synth: {name} must be {needed}, got {value}")


@dataclass(frozen=True)
class SynthReport:
    """What a call did: the subjects it wrote, and those that were there already."""

    folder: Path
    written: tuple[str, ...]
    kept: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class SyntheticSubject:
    """One subject on the grid of the settings.

    Subject point x lies at template point ``x + to_template_mm(x)``, template point p at subject
    point ``p + from_template_mm(p)``; both are float32 ``[3, D, H, W]``, RAS mm.
    """

    volume: np.ndarray  # int16 [D, H, W]
    labels: np.ndarray  # uint8 [D, H, W]
    to_template_mm: np.ndarray
    from_template_mm: np.ndarray


def synthesise_population(
    folder: Path, settings: SynthSettings, progress: Progress | None = None
) -> SynthReport:
    """Write the population of `settings` into `folder`; subjects that are complete are kept.

    A folder that holds anything else than this very population is refused.
    """
    folder = Path(folder)
    _claim(folder, settings)
    written = []
    for index, subject_id in enumerate(settings.subject_ids):
        paths = _subject_paths(folder, subject_id)
        if not all(path.is_file() for path in paths):
            _write_subject(paths, synthesise_subject(settings, index), settings.grid)
            written.append(subject_id)
        if progress is not None:
            progress(index + 1, settings.subjects)
    kept = tuple(subject for subject in settings.subject_ids if subject not in set(written))
    return SynthReport(folder, tuple(written), kept)


def synthesise_subject(settings: SynthSettings, index: int) -> SyntheticSubject:
    """Subject number `index`, counted from zero."""
    rng = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(index,)))
    grid = settings.grid
    points = grid.voxel_to_world(np.indices(grid.shape).reshape(3, -1).T)
    velocity = SmoothVelocity.draw(rng, grid.extent_mm(), settings.deformation_mm)
    forth, back = velocity.flow(points), (-velocity).flow(points)
    head_scale = float((np.array(FIELD_OF_VIEW_MM) / grid.extent_mm()).max())
    level, labels = sample_head(
        (points + forth).T * head_scale, edge_mm=0.4 * settings.spacing_mm * head_scale
    )
    return SyntheticSubject(
        _scan(rng, level.reshape(grid.shape), settings),
        labels.reshape(grid.shape),
        *(u.T.reshape(3, *grid.shape).astype(np.float32) for u in (forth, back)),
    )


def _scan(rng: np.random.Generator, level: np.ndarray, settings: SynthSettings) -> np.ndarray:
    """What a scanner makes of the intensities: bias field, Rician noise, whole numbers."""
    waves = [
        np.cos(np.pi * np.arange(BIAS_MODES)[:, None] * (np.arange(size) + 0.5) / size)
        for size in level.shape
    ]
    weights = rng.standard_normal((BIAS_MODES,) * 3)
    field = np.einsum("abc,ai,bj,ck->ijk", weights, *waves, optimize=True)
    field = (field - field.mean()) / field.std()
    biased = level * np.exp(settings.bias * field)
    in_phase, out_of_phase = settings.noise * rng.standard_normal((2, *level.shape))
    return np.rint(WHITE_MATTER * np.hypot(biased + in_phase, out_of_phase)).astype(np.int16)


def _claim(folder: Path, settings: SynthSettings) -> None:
    """Make `folder` this population's, or see that it is already."""
    description = folder / "population.json"
    if description.is_file():
        _check_same(description, settings)
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            "E_SYNTH_FOLDER",
            f"{folder} exists and holds no population.json: need a new or an empty folder",
        )
    try:
        for name in ("images", "labels", "truth"):
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error
    names = {str(label): name for name, label in LABELS.items()}
    write_atomic(folder / "structures.json", to_json(names))
    document = {
        "digest": settings.digest,
        "grid": settings.grid.to_json(),
        "settings": asdict(settings),
        "to-template": "subject world point n lies at template world point n + value(n), RAS mm",
        "from-template": "template world point p lies at subject world point p + value(p), RAS mm",
    }
    write_atomic(description, to_json(document))


def _check_same(description: Path, settings: SynthSettings) -> None:
    try:
        found = json.loads(description.read_bytes())
        digest, theirs = found["digest"], dict(found["settings"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            "E_SYNTH_FOLDER", f"{description} does not describe a synthetic population: {error}"
        ) from error
    if digest == settings.digest:
        return
    asked = json.loads(to_json(asdict(settings)))
    differing = [
        f"{name} {theirs.get(name)} there, {value} asked for"
        for name, value in asked.items()
        if theirs.get(name) != value
    ]
    raise UsageError(
        "E_SYNTH_FOLDER",
        f"{description} is of another population ({'; '.join(differing) or 'another version'}): "
        "need the same settings or another folder",
    )


def _subject_paths(folder: Path, subject_id: str) -> tuple[Path, Path, Path, Path]:
    return (
        folder / "images" / f"{subject_id}.nii.gz",
        folder / "labels" / f"{subject_id}.nii.gz",
        folder / "truth" / f"{subject_id}_to-template.nii.gz",
        folder / "truth" / f"{subject_id}_from-template.nii.gz",
    )


def _write_subject(paths: tuple[Path, ...], subject: SyntheticSubject, grid: Grid) -> None:
    image, labels, to_template, from_template = paths
    write_nifti(image, subject.volume, grid.affine)
    write_nifti(labels, subject.labels, grid.affine)
    write_nifti(to_template, subject.to_template_mm, grid.affine, intent="vector")
    write_nifti(from_template, subject.from_template_mm, grid.affine, intent="vector")
