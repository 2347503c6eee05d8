"""Files of a source folder that no subject takes: told, as their owner takes them for used."""

from collections.abc import Sequence, Set
from pathlib import Path

from cohort.data.entries import NIFTI_SUFFIXES

_FOLDERS = {"images": NIFTI_SUFFIXES, "labels": NIFTI_SUFFIXES, "masks": NIFTI_SUFFIXES}
_FOLDERS |= {"keypoints": (".csv",)}
# of images in other formats; what else lies beside scans, such as .json, is nobody's loss
_IMAGES = (*NIFTI_SUFFIXES, ".hdr", ".mgh", ".mgz", ".mha", ".mhd", ".nhdr", ".nrrd")


def unused_files(source: Path, taken: Set[Path]) -> tuple[str, ...]:
    """A sentence for each folder and reason; ``taken`` are the files that subjects have."""
    said = []
    for folder, endings in _FOLDERS.items():
        left = sorted(set((source / folder).glob("[!.]*")) - taken)
        other = [path for path in left if not path.name.endswith(endings)]
        other = [path for path in other if path.name.lower().endswith((*_IMAGES, *endings))]
        nobodys = [path for path in left if path.name.endswith(endings)]
        deeper = sorted((source / folder).glob("[!.]*/[!.]*"))
        deeper = [path for path in deeper if path.name.endswith(endings)]
        own = source / folder
        said += told(other, own, f"in no format that is read, need {' or '.join(endings)}")
        said += told(nobodys, own, f"of no image, need the name that a file in {source}/images has")
        said += told(deeper, own, f"in a folder below, need to lie in {own} itself")
    return tuple(said)


def told(paths: Sequence[Path], folder: Path, why: str) -> list[str]:
    """A sentence about files of a folder; none about no files."""
    if not paths:
        return []
    count = f", such as {paths[0]}" if len(paths) > 1 else ""
    which = f"{len(paths)} files of {folder}" if count else str(paths[0])
    return [f"{which} {'are' if count else 'is'} {why}{count}"]
