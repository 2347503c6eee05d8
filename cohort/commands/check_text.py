"""A report of `check` as people and machines read it."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from cohort.data.check.facts import SubjectFacts
from cohort.data.check.findings import KINDS
from cohort.data.check.look import CheckReport
from cohort.data.header_choices import of_header

_SHOWN = 12  # sentences of one kind
_MOST_ROWS = 500
_WIDEST = 28  # characters of a subject's name
_COLUMNS = (
    "subject",
    "axes",
    "hand",
    "voxels",
    "mm",
    "form",
    "1 to 99 %",
    "labels",
    "side",
    "note",
)


def finding_lists(report: CheckReport) -> Iterator[tuple[str, list[str]]]:
    """A heading and its sentences, worst first; long lists are cut."""
    for kind, heading in KINDS.items():
        found = [one for one in report.findings if one.kind == kind]
        lines = [f"{one.code}  {one.message}" for one in found[:_SHOWN]]
        if len(found) > _SHOWN:
            lines.append(f"and {len(found) - _SHOWN} more, see --json")
        if lines:
            yield f"{heading} ({len(found)})", lines
    if report.unused:
        yield "not used", list(report.unused)


def table(report: CheckReport) -> list[str]:
    """One line a subject under a line of column names; axes, voxels and mm as files have them.

    Of more than 500 subjects only those that something is to be said of.
    """
    notes = _codes(report)
    rows: list[tuple[str, ...]] = [_COLUMNS]
    shown = report.subjects
    if len(shown) > _MOST_ROWS:  # more would push what is wrong out of sight
        shown = [one for one in shown if one.subject_id in notes][:_MOST_ROWS]
    for one in shown:
        side = report.sides.get(one.subject_id)
        rows.append((
            _cut(one.subject_id),
            *_header_cells(one),
            f"{one.image.low:.4g} to {one.image.high:.4g}" if one.image else "-",
            str(len(one.labels.values)) if one.labels else "-",
            "-" if side is None else f"{side:.2f}",
            " ".join(notes[one.subject_id]),
        ))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    left_out = len(report.subjects) - len(shown)
    return [*lines, f"and {left_out:,} more, see --json"] if left_out else lines


def summary(report: CheckReport) -> str:
    """One line that says how it stands."""
    refused = len(report.refused)
    beside = sum(not one.quarantines for one in report.findings) + len(report.unused)
    parts = [
        f"{len(report.subjects)} subjects",
        f"{refused} cannot be used" if refused else "all can be used",
        f"{beside} more to look at" if beside else "nothing else to look at",
        f"{report.elapsed_s:.1f} s",
    ]
    if report.side_measure is None and any(one.labels for one in report.subjects):
        parts.insert(3, "sides cannot be judged, these labels agree on none")
    return ", ".join(parts)


def document(report: CheckReport) -> dict[str, Any]:
    """Everything, as JSON."""
    notes = _codes(report)
    return {
        "subjects": {
            one.subject_id: _subject(one)
            | {"side": report.sides.get(one.subject_id), "codes": notes[one.subject_id]}
            for one in report.subjects
        },
        "warnings": [vars(one) for one in report.findings],
        "refused": list(report.refused),
        "unused": list(report.unused),
        "side_measure": report.side_measure,
        "elapsed_s": report.elapsed_s,
    }


def _subject(one: SubjectFacts) -> dict[str, Any]:
    image, labels = one.image, one.labels
    return {
        "faults": [vars(fault) for fault in one.faults],
        "header": one.header,
        "image": {name: value for name, value in vars(image).items() if name != "fingerprint"}
        if image
        else None,
        "labels": {
            "voxels": {
                str(value): count
                for value, count in zip(labels.values.tolist(), labels.voxels.tolist(), strict=True)
            },
            "volume_ml": labels.volume_ml,
            "content": labels.content,
        }
        if labels
        else None,
        "mask_share": one.mask_share,
        "keypoints": one.keypoints,
        "outside": one.outside,
    }


def _header_cells(one: SubjectFacts) -> tuple[str, str, str, str, str]:
    header = one.header
    if header is None:
        return "-", "-", "-", "-", "-"
    return (
        header["axcodes"] + ("~" if header.get("oblique") else ""),
        header.get("handedness", "-"),
        " x ".join(map(str, header["shape"])),
        " x ".join(f"{step:.3g}" for step in header["spacing_mm"]),
        header["form"] + (" by choice" if of_header(header.get("fixed", ())) else ""),
    )


def _codes(report: CheckReport) -> dict[str, list[str]]:
    """What there is to say of each subject, in the order of rank; nothing of most."""
    codes: dict[str, list[str]] = defaultdict(list)
    for one in report.findings:
        for subject_id in (one.subject_id, *one.others):
            if one.code not in codes[subject_id]:
                codes[subject_id].append(one.code)
    return codes


def _cut(name: str) -> str:
    return name if len(name) <= _WIDEST else f"{name[: _WIDEST - 3]}..."
