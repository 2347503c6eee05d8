"""Subjects that a user names: ids and patterns, in the command line or in a file."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from cohort.errors import UsageError

_SHOWN = 5


def chosen_subjects(option: str, text: str, subject_ids: Sequence[str]) -> tuple[str, ...]:
    """The subjects that ``a,b,site1-*`` or ``@FILE`` with one id or pattern a line names, sorted.

    Args:
        option: what the text was given for, such as ``--subjects``.
        text: ids and patterns.
        subject_ids: who there is.

    Raises:
        UsageError: ``E_SUBJECTS`` for one that nobody matches, or a file that cannot be read.
    """
    found: set[str] = set()
    for entry in _entries(option, text):
        matching = [name for name in subject_ids if fnmatchcase(name, entry)]
        if not matching:
            known = ", ".join(subject_ids[:_SHOWN]) + (", ..." if subject_ids[_SHOWN:] else "")
            raise UsageError("E_SUBJECTS", f"{option}: no subject {entry!r}; there are {known}")
        found.update(matching)
    return tuple(sorted(found))


def _entries(option: str, text: str) -> list[str]:
    if not text.startswith("@"):
        entries = text.split(",")
    else:
        try:
            entries = Path(text[1:]).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            message = f"{option}: {text[1:]} cannot be read: {error}"
            raise UsageError("E_SUBJECTS", message) from None
    named = [entry.strip() for entry in entries if entry.strip()]
    if not named:
        raise UsageError("E_SUBJECTS", f"{option} names nobody; need ids such as a,b or @FILE")
    return named
