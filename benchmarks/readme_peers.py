"""Tables of our methods beside other tools, made of the committed results."""

from pathlib import Path

from benchmarks.markdown_tables import Row, fraction, machine, paragraph, rows_of, table, whole
from benchmarks.peers_ours import AS_SMOOTH, AS_THEY_COME

Rows = dict[str, Row]


def headline(results: Path) -> list[str]:
    """Overlap, smoothness and seconds of each tool, and what of DIO is as smooth as one of them."""
    rows = _rows(results)
    if not rows:
        return []
    shown = [*_as_they_come(rows), *_as_smooth_dio(rows), *_peers(rows)]
    intro = paragraph(
        "Six affinely aligned brain pairs, 96 x 112 x 96 voxels of 2 mm; mean Dice of 148 "
        f"structures of an automatic segmentation, {fraction(shown[0]['dice_before'])} before; "
        f"one run, on one core of an {machine(shown[0])} (`make peers SLOW=--slow`):"
    )
    head = "| Dice | sd ln det J | seconds a pair | MiB"
    lines = [(row["tool"], *_measures(row), _seconds(row), whole(row["peak_mib"])) for row in shown]
    return [intro, table(head, lines)]


def peers(results: Path) -> list[str]:
    """The same with versions and settings, and with ours at each tool's smoothness."""
    rows = _rows(results)
    if not rows:
        return []
    ours = _as_they_come(rows)
    features = ", ".join(f"{row['features_s']} s for {row['tool']}" for row in ours)
    intro = paragraph(
        f"The same pairs with other tools, in one run on one core of an {machine(ours[0])} (`make "
        "peers SLOW=--slow`). Seconds are those of the processor, a pair; ours are without the "
        f"features of both scans, made once a scan in a cohort: {features}. MiB are the whole "
        "process. The last columns are ours with the settings whose sd ln det J comes nearest to "
        "that tool's, as Dice / sd / seconds:"
    )
    head = "| version | settings | Dice | sd ln det J | s | MiB"
    lines = []
    for row in (*ours, *_peers(rows)):
        settings = row["settings"] or "defaults"
        measures = *_measures(row), _seconds(row), whole(row["peak_mib"])
        beside = [_beside(rows, row[column]) for column in AS_SMOOTH]
        lines.append((row["tool"], row["version"], settings, *measures, *beside))
    columns = " | ".join(f"{family} as smooth" for family in AS_SMOOTH.values())
    return [intro, table(f"{head} | {columns}", lines)]


def _rows(results: Path) -> Rows:
    """The rows of a whole run, by tool; none of one that is not there."""
    return {row["tool"]: row for row in rows_of(results / "peers_ixi6.csv")}


def _as_they_come(rows: Rows) -> list[Row]:
    return [rows[name] for name in AS_THEY_COME if name in rows]


def _peers(rows: Rows) -> list[Row]:
    return [row for row in rows.values() if any(row[column] for column in AS_SMOOTH)]


def _as_smooth_dio(rows: Rows) -> list[Row]:
    """DIO's settings that stand beside a peer, from the longest steps, and not as it comes."""
    beside = {row["dio_as_smooth"] for row in _peers(rows)} - {"DIO"}
    return [row for name, row in rows.items() if name in beside]


def _beside(rows: Rows, name: str) -> str:
    return " / ".join((*_measures(rows[name]), _seconds(rows[name]))) if name else ""


def _measures(row: Row) -> tuple[str, str]:
    return fraction(row["dice_mean"]), fraction(row["sdlogj"])


def _seconds(row: Row) -> str:
    return f"{float(row['register_cpu_s']):.2f}"
