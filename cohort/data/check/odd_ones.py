"""Subjects that differ from the others: in voxels, field of view, intensities, looks or labels."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from cohort.data.check.facts import ImageFacts, LabelFacts, SubjectFacts
from cohort.data.check.findings import MIN_SUBJECTS, Finding, by_nearly_all, listed

_ODD = 5.0
_ALONE = 3  # more are a group
# the least spread of a logarithm that counts: five times as much is odd whatever the others do
_SPACING_SPREAD, _EXTENT_SPREAD, _VOLUME_SPREAD, _INTENSITY_SPREAD = 0.02, 0.05, 0.05, 0.1
# heads and hippocampi that belong together lie up to 3 times as far from their mean as the median
# one does, a head of another contrast 15 times: five of these are 4.5 times
_LOOKS_SPREAD = 0.3


def unlike(facts: Sequence[SubjectFacts]) -> Iterator[Finding]:
    """Subjects whose voxels, field of view, intensities or axes are not those of the others."""
    images = {one.subject_id: one.image for one in facts if one.image}
    labels = {one.subject_id: one.labels for one in facts if one.labels}

    def show(numbers: np.ndarray) -> str:
        return " x ".join(f"{number:.3g}" for number in numbers)

    yield from _odd(
        images, lambda image: image.spacing_mm, _SPACING_SPREAD, "W_SPACING",
        lambda found, usual: f"has voxels of {show(found)} mm, the median is {show(usual)} mm",
    )  # fmt: skip
    yield from _odd(
        images, lambda image: image.extent_mm, _EXTENT_SPREAD, "W_EXTENT",
        lambda found, usual: f"shows {show(found)} mm, the median is {show(usual)} mm",
    )  # fmt: skip
    yield from _odd(
        images, lambda image: (image.high - image.low,), _INTENSITY_SPREAD, "W_INTENSITY",
        lambda found, usual: f"has intensities over a range of {found[0]:.4g} (1 to 99 %), the "
        f"median is {usual[0]:.4g}",
    )  # fmt: skip
    yield from _odd(
        labels, lambda one: (one.volume_ml,), _VOLUME_SPREAD, "W_LABELLED",
        lambda found, usual: f"has {found[0]:.4g} ml labelled, the median is {usual[0]:.4g} ml",
    )  # fmt: skip
    yield from _other_axes(facts)


def unlike_in_looks(facts: Sequence[SubjectFacts]) -> Iterator[Finding]:
    """Subjects on one working grid that do not look like the mean of all of them."""
    known = {one.subject_id: one.image.fingerprint for one in facts if one.image}
    if len(known) < MIN_SUBJECTS:
        return
    mean = np.mean(list(known.values()), axis=0, dtype=np.float64)
    mean /= np.linalg.norm(mean) or 1.0
    # how far each is from looking the same, so that a ratio of two tells how much farther one is
    away = {subject_id: 1 - float(looks @ mean) for subject_id, looks in known.items()}
    yield from _odd(
        away, lambda one: (one,), _LOOKS_SPREAD, "W_LOOKS",
        lambda found, usual: f"does not look like the others on the working grid (correlation "
        f"{1 - found[0]:.2f} with their mean at 8 x 8 x 8, the median is {1 - usual[0]:.2f}): "
        "another contrast, another anatomy, or badly aligned",
    )  # fmt: skip


def _odd(
    known: Mapping[str, ImageFacts] | Mapping[str, LabelFacts] | Mapping[str, float],
    measure: Callable,
    spread: float,
    code: str,
    sentence: Callable[[np.ndarray, np.ndarray], str],
) -> Iterator[Finding]:
    if len(known) < MIN_SUBJECTS:
        return
    measures = np.array([measure(one) for one in known.values()], dtype=np.float64)
    usual = np.median(measures, axis=0)
    scores = robust_z(np.log(np.maximum(measures, 1e-12)), spread).max(axis=1)
    order = [index for index in np.argsort(-scores) if scores[index] > _ODD]
    ids = np.array(list(known))[order].tolist()
    sentences = [sentence(measures[index], usual) for index in order]
    if len(order) > _ALONE:
        # not mishaps, but a second kind of scan: one sentence tells it better than fifty
        text = (
            f"{len(ids)} subjects stand apart ({listed(ids)}): the first {sentences[0]}; is this a "
            "second scanner or protocol?"
        )
        yield Finding("odd", code, ids[0], text, float(scores[order[0]]), others=tuple(ids[1:]))
        return
    for subject_id, found, score in zip(ids, sentences, scores[order].tolist(), strict=True):
        text = f"{subject_id} {found} (robust z {score:.0f}); see whether it belongs to this cohort"
        yield Finding("odd", code, subject_id, text, score)


def robust_z(values: np.ndarray, least_spread: float) -> np.ndarray:
    """Distance ``[N, K]`` from the median in standard deviations, judged by the median distance."""
    away = np.abs(values - np.median(values, axis=0))
    return away / np.maximum(1.4826 * np.median(away, axis=0), least_spread)


def _other_axes(facts: Sequence[SubjectFacts]) -> Iterator[Finding]:
    axes = {one.subject_id: one.header["axcodes"] for one in facts if one.header}
    if len(axes) < MIN_SUBJECTS:
        return
    usual, times = Counter(axes.values()).most_common(1)[0]
    if not by_nearly_all(times, len(axes)):
        return
    others = [subject_id for subject_id, found in axes.items() if found != usual]
    if others:
        verb = "is" if len(others) == 1 else "are"
        yield Finding(
            "odd",
            "W_AXES",
            others[0],
            f"{listed(others)} {verb} stored with axes {axes[others[0]]}, nearly all others with "
            f"{usual}: that is allowed, but in scans of one scanner it tells of a rewritten file",
            others=tuple(others[1:]),
        )
