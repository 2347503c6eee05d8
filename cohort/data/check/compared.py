"""What only the company shows: subjects that are mirrored or doubled, or that lack something."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from cohort.data.check.duplicates import NEARLY_SAME, nearly_same, same_content
from cohort.data.check.facts import SubjectFacts
from cohort.data.check.findings import MIN_SUBJECTS, Finding, by_nearly_all, listed
from cohort.data.check.sides import Sides


def mirrored(facts: Sequence[SubjectFacts], sides: Sides) -> Iterator[Finding]:
    """Subjects whose structures lie on the other side; ``facts`` are those with labels."""
    seen = {
        "positions": "its structures lie on the other side",
        "halves": "the larger halves of its structures lie on the other side",
    }
    agreed = int(np.count_nonzero(sides.likeness > 0))
    for one, likeness, is_mirrored in zip(facts, sides.likeness, sides.mirrored, strict=True):
        if is_mirrored:
            yield Finding(
                "mirrored",
                "W_MIRRORED",
                one.subject_id,
                f"{one.subject_id} seems mirrored left to right: {seen[sides.measure]} than in "
                f"{agreed} of {len(facts)} subjects (likeness {likeness:.2f}). Compare it with its "
                "original; if the header is wrong, mend it or leave the subject out",
                severity=-float(likeness),
            )


def doubled(facts: Sequence[SubjectFacts]) -> Iterator[Finding]:
    """Images that are equal or nearly so, and labels that belong to several images."""
    seen = [one for one in facts if one.image]
    images = [one.image for one in seen if one.image]
    equal = same_content([image.content for image in images])
    for group in equal:
        yield _twice(seen, group, "W_DUPLICATE", "the same values, voxel by voxel", 2.0)
    if images:
        for group in nearly_same(np.stack([image.fingerprint for image in images])):
            if len({images[index].content for index in group}) > 1:
                alike = f"nearly the same content (correlation above {NEARLY_SAME:g} at 8 x 8 x 8)"
                yield _twice(seen, group, "W_NEARLY_SAME", alike, 1.0)
    labelled = [one for one in facts if one.image and one.labels]
    for group in same_content([one.labels.content for one in labelled if one.labels]):
        if len({labelled[index].image.content for index in group}) > 1:  # type: ignore[union-attr]
            yield _twice(labelled, group, "W_SAME_LABELS", "the same labels on other images", 0.0)


def _twice(
    facts: Sequence[SubjectFacts], group: list[int], code: str, what: str, severity: float
) -> Finding:
    first, *others = (facts[index].subject_id for index in group)
    return Finding(
        "duplicate",
        code,
        first,
        f"{first} and {listed(others)} have {what}; keep one of them, or their pairs tell nothing",
        severity,
        others=tuple(others),
    )


def other_structures(
    facts: Sequence[SubjectFacts], structures: Mapping[str, str]
) -> Iterator[Finding]:
    """Structures that nearly all others have, structures that nobody else has, and no labels."""
    labelled = {one.subject_id: one.labels for one in facts if one.labels}
    readable = [one for one in facts if one.image]
    if len(labelled) < MIN_SUBJECTS:
        return
    for one in readable:
        if one.labels is None and not one.faults and by_nearly_all(len(labelled), len(readable)):
            message = f"{one.subject_id} has no labels, as nearly all others have; add its file"
            yield Finding("structures", "W_NO_LABELS", one.subject_id, message, severity=1e9)
    counts = Counter(value for one in labelled.values() for value in one.values.tolist())
    expected = {value for value, count in counts.items() if by_nearly_all(count, len(labelled))}
    for subject_id, one in labelled.items():
        here = set(one.values.tolist())
        for code, found, what in (
            ("W_MISSING", sorted(expected - here), "lacks {} that nearly all others have"),
            ("W_FOREIGN", sorted(value for value in here if counts[value] == 1), "alone has {}"),
        ):
            if found:
                names = listed([structures.get(str(value), str(value)) for value in found])
                noun = "structure" if len(found) == 1 else "structures"
                yield Finding(
                    "structures",
                    code,
                    subject_id,
                    f"{subject_id} {what.format(f'{noun} {names}')}; look at its labels",
                    severity=len(found) + (code == "W_MISSING") * 1e6,
                )


def other_keypoints(facts: Sequence[SubjectFacts]) -> Iterator[Finding]:
    """Keypoints correspond by their order, so that their number must be the same."""
    counts = {one.subject_id: one.keypoints for one in facts if one.keypoints is not None}
    if len(set(counts.values())) < 2:
        return
    usual, times = Counter(counts.values()).most_common(1)[0]
    for subject_id, found in counts.items():
        if found != usual:
            yield Finding(
                "keypoints",
                "W_KEYPOINTS",
                subject_id,
                f"{subject_id} has {found} keypoints, {times} of {len(counts)} subjects have "
                f"{usual}; they correspond by their order, so give all the same",
            )
