"""Names of a BIDS derivative: labels without signs, and the words of its files."""

import re
from pathlib import Path
from typing import Any

from cohort.errors import UsageError
from triton_reg import __version__

BIDS_VERSION = "1.10.0"
_SESSION = re.compile(r"(?P<subject>.+)_ses-(?P<session>[A-Za-z0-9]+)")
_SUFFIX = re.compile(r"sub-.*_([A-Za-z0-9]+)\.nii(\.gz)?")


def bids_label(subject_id: str) -> str:
    """A subject id as BIDS allows it: letters and digits, without ``sub-``."""
    return re.sub(r"[^A-Za-z0-9]", "", subject_id.removeprefix("sub-"))


def bids_names(subject_id: str) -> list[str]:
    """``sub-`` and, of an id as BIDS data sets with sessions have them, ``ses-``."""
    named = _SESSION.fullmatch(subject_id)
    if named is None:
        return [f"sub-{bids_label(subject_id)}"]
    return [f"sub-{bids_label(named['subject'])}", f"ses-{named['session']}"]


def check_labels(subject_ids: tuple[str, ...]) -> None:
    """Refuse subjects of a run that BIDS could not tell apart.

    Raises:
        UsageError: ``E_EXPORT`` with two of them, or one of which nothing is left.
    """
    taken: dict[str, str] = {}
    for subject_id in subject_ids:
        label = bids_label(subject_id)
        other = taken.setdefault(label.lower(), subject_id)
        if not label or other != subject_id:
            also = f" as of {other!r}" if other != subject_id else ""
            raise UsageError(
                "E_EXPORT",
                f"BIDS allows letters and digits alone, which makes sub-{label} of"
                f" {subject_id!r}{also}; need ids that stay apart",
            )


def transform_stem(onto: str, of: str, image: Path, inverse: bool) -> str:
    """Folder and name of a transform that brings images of one subject onto another's ``image``.

    ``to-`` is the suffix of that image if it is named as BIDS names it, else ``orig``.
    """
    entities, named = bids_names(onto), _SUFFIX.fullmatch(image.name)
    space = named.group(1) if named else "orig"
    described = "_desc-inverse" if inverse else ""
    name = f"{'_'.join(entities)}_from-{bids_label(of)}_to-{space}_mode-image{described}"
    return f"{'/'.join(entities)}/anat/{name}"


def dataset_description() -> dict[str, Any]:
    """``dataset_description.json`` of a derivative."""
    return {
        "Name": "Transforms between subjects",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "triton-reg", "Version": __version__}],
    }
