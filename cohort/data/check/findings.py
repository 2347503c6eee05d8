"""What `check` has to say: sentences, each with a subject, a code and a rank."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cohort.data.check.facts import SubjectFacts

# worst first: what a kind of finding is called above its sentences
KINDS = {
    "unreadable": "cannot be used",
    "grid": "labels or mask on another grid",
    "mirrored": "mirrored left to right",
    "header": "header in doubt",
    "values": "values that cannot be used",
    "place": "badly placed on the working grid",
    "duplicate": "there twice",
    "odd": "unlike the others",
    "structures": "labels unlike the others'",
    "keypoints": "keypoints unlike the others'",
}
_KIND_OF_FAULT = {
    "E_LABEL_SHAPE": "grid",
    "E_MASK_SHAPE": "grid",
    "E_MIRROR": "mirrored",
    "E_FORM": "header",
    "E_SHEAR": "header",
    "E_QFORM": "header",
    "E_ORIENT": "header",
    "E_UNITS": "header",
    "E_AFFINE": "header",
    "E_AFFINE_NAN": "header",
    "E_AFFINE_ZERO": "header",
    "E_AFFINE_SINGULAR": "header",
    "E_NONFINITE": "values",
    "E_CONSTANT": "values",
    "E_LABEL_VALUES": "values",
    "E_MASK_EMPTY": "values",
}
MIN_SUBJECTS = 5  # fewer are no cohort to be unlike
_MAX_OUTSIDE = 0.01
_NEARLY_ALL = 0.9  # of the others
_NAMED = 5


@dataclass(frozen=True)
class Finding:
    """One sentence on one subject.

    kind: its rank, one of `KINDS`. code: ``E_`` as ingest would give it, or ``W_``. severity:
    orders findings of one kind. quarantines: whether ingest would refuse the subject. others: whom
    it is true of too.
    """

    kind: str
    code: str
    subject_id: str
    message: str
    severity: float = 0.0
    quarantines: bool = False
    others: tuple[str, ...] = ()


def ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Worst first: by kind, then what would be refused, then severity, then subject."""
    ranks = {kind: rank for rank, kind in enumerate(KINDS)}
    return tuple(
        sorted(
            findings,
            key=lambda one: (ranks[one.kind], not one.quarantines, -one.severity, one.subject_id),
        )
    )


def faults_of(facts: SubjectFacts) -> list[Finding]:
    """What would send a subject, or did send it, into quarantine."""
    return [
        Finding(
            _KIND_OF_FAULT.get(fault.code, "unreadable"),
            fault.code,
            facts.subject_id,
            f"{facts.subject_id}: {fault.message}",
            quarantines=True,
        )
        for fault in facts.faults
    ]


def on_the_grid(facts: SubjectFacts) -> list[Finding]:
    """What bringing a subject onto a store's working grid cost it."""
    found = []
    name = facts.subject_id
    if facts.outside is not None and facts.outside > _MAX_OUTSIDE:
        message = (
            f"{name} has {100 * facts.outside:.1f} % of its labelled voxels outside of the working "
            "grid; make a store with a larger --grid, or with --align center, rigid or affine"
        )
        found.append(Finding("place", "W_OUTSIDE", name, message, severity=facts.outside))
    if not facts.aligned:
        message = (
            f"{name} could not be registered to the reference and lies where its start put it; "
            "see whether it fits, or try --align-search 30deg in a new store"
        )
        found.append(Finding("place", "W_NOT_ALIGNED", name, message, severity=1.0))
    return found


def by_nearly_all(count: int, total: int) -> bool:
    """Whether ``count`` of ``total`` subjects are nearly all, the one in question left out."""
    return count >= _NEARLY_ALL * (total - 1)


def listed(names: Sequence[str]) -> str:
    """The first five names, and how many more there are."""
    shown = ", ".join(names[:_NAMED])
    return f"{shown} and {len(names) - _NAMED} more" if len(names) > _NAMED else shown
