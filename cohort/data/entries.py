"""What a source offers: entries to ingest, and what was rejected before a file was opened."""

from dataclasses import dataclass, fields
from pathlib import Path

NIFTI_SUFFIXES = (".nii.gz", ".nii")


@dataclass(frozen=True)
class SourceEntry:
    """The files of one subject.

    to_template, from_template: vector fields in RAS mm on grids of their own. A point at native
    world position n lies at template position n + U(n), template position p at native p + V(p).
    """

    subject_id: str
    image: Path
    labels: Path | None = None
    mask: Path | None = None
    keypoints: Path | None = None
    to_template: Path | None = None
    from_template: Path | None = None

    @property
    def files(self) -> dict[str, Path]:
        """The files that there are, by role."""
        roles = [field.name for field in fields(self) if field.name != "subject_id"]
        found = {role: getattr(self, role) for role in roles}
        return {role: path for role, path in found.items() if path is not None}


@dataclass(frozen=True)
class Rejected:
    """A subject that cannot be ingested, and why; its id may be anything."""

    subject_id: str
    code: str
    message: str
    source: str


@dataclass(frozen=True)
class SourceListing:
    """entries, rejected: sorted by subject id. structures: label value -> name, where known.

    unused: sentences about files that no subject takes.
    """

    entries: tuple[SourceEntry, ...]
    rejected: tuple[Rejected, ...]
    structures: dict[str, str]
    unused: tuple[str, ...] = ()


def nifti_stem(name: str) -> str | None:
    """The name without .nii or .nii.gz; None for other and for hidden files."""
    if name.startswith("."):
        return None
    for suffix in NIFTI_SUFFIXES:
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return None
