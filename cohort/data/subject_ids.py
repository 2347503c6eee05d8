"""Which names a subject may have: they become folder names on any file system."""

import re

from cohort.errors import SubjectError

_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_DEVICES = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{port}{n}" for port in ("com", "lpt") for n in range(10)),
}
_SHOWN = 60


def id_fault(subject_id: str) -> str | None:
    """What is wrong with a subject id, as a sentence, or None."""
    if not _PATTERN.fullmatch(subject_id):
        return (
            f"subject id {_shown(subject_id)} ({len(subject_id)} characters): need 1 to 128 "
            "of A-Z, a-z, digits, dots, underscores or dashes, the first a letter or digit"
        )
    if subject_id.endswith("."):
        return f"subject id {_shown(subject_id)} ends with a dot, which some file systems drop"
    if subject_id.split(".")[0].lower() in _DEVICES:
        return (
            f"subject id {_shown(subject_id)} is the name of a device on Windows; need another name"
        )
    return None


def _shown(subject_id: str) -> str:
    return repr(subject_id[:_SHOWN]) + ("..." if len(subject_id) > _SHOWN else "")


def check_subject_id(subject_id: str) -> None:
    """Refuse what `id_fault` finds."""
    fault = id_fault(subject_id)
    if fault:
        raise SubjectError("E_ID", fault)
