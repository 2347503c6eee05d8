"""Tables of DIO, made of the committed results."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.markdown_tables import fraction, machine, paragraph, rows_of, table, whole

# rows of dio_quality.csv that are shown, and how they are called there
_QUALITY = {
    "default": "`DIO()`",
    "free-form": '`DIO(transform="freeform")`',
    "stationary velocity": '`DIO(transform="svf")`',
    "B-spline": '`DIO(transform="bspline")`',
    "MIND": "`DIO(features=MindSSC())`",
    "learned": '`DIO(features=Pretrained("brain-t1", voxel_mm=2))`',
    "VoxelOpt on learned features": '`VoxelOpt(features=Pretrained("brain-t1", voxel_mm=2))`',
}
_KERNELS = (
    "free-form iteration 96x112x96x16",
    "diffeomorphic iteration 96x112x96x16",
    "free-form iteration 96x112x96x1, lncc 5",
    "force, forward and backward, 48x56x48x16",
)


def dio_quality(results: Path) -> list[str]:
    """DIO's transforms and features, from ``dio_quality.csv``."""
    rows = {row["settings"]: row for row in rows_of(results / "dio_quality.csv")}
    chosen = {name: rows[settings] for settings, name in _QUALITY.items() if settings in rows}
    if not chosen:
        return []
    intro = paragraph(
        "DIO on the same pairs; time is again that of VoxelOpt's published settings "
        "(`benchmarks/dio_quality.py`). `brain-t1` has learned from labels of the same automatic "
        "segmentation, of other subjects, at 4 mm:"
    )
    lines = [
        (name, fraction(row["dice_mean"]), fraction(row["sdlogj"]),
         f"{100 * float(row['folding']):.3f}", f"{float(row['time_ratio']):.1f}")
        for name, row in chosen.items()
    ]  # fmt: skip
    return [intro, table("| Dice | sd ln det J | folding, % | time", lines)]


def dio_brains(results: Path) -> list[str]:
    """Learned and other features on brains at 4 mm, from ``dio_brains.csv``."""
    rows = rows_of(results / "dio_brains.csv")
    if not rows:
        return []
    intro = paragraph(
        f"{rows[0]['pairs']} pairs of 24 brains that `brain-t1` has not seen, at 4 mm, where it "
        f"has learned; mean Dice of 148 structures, {fraction(rows[0]['dice_before'])} before. "
        "Some of these pairs were in view while solvers and features of fewer steps were "
        "compared. The last columns are the gain over local correlation, and its standard "
        "deviation over pairs "
        "(`benchmarks/dio_brains.py`):"
    )
    lines = [
        (row["method"], fraction(row["dice_mean"]), fraction(row["sdlogj"]),
         f"{100 * float(row['folding']):.3f}", f"{float(row['over_lncc']):+.3f}",
         fraction(row["over_lncc_sd"]))
        for row in rows
    ]  # fmt: skip
    return [intro, table("| Dice | sd ln det J | folding, % | gain | its sd", lines)]


def dio_robustness(results: Path) -> list[str]:
    """What changed scans do to features and networks, from ``dio_robustness.csv``."""
    rows = rows_of(results / "dio_robustness.csv")
    if not rows:
        return []
    methods = dict.fromkeys(row["method"] for row in rows)
    found = {(row["change"], row["method"]): row["dice_clear"] for row in rows}
    lines = []
    for change in dict.fromkeys(row["change"] for row in rows):
        values = [found.get((change, method)) for method in methods]
        lines.append((change, *(fraction(one) if one else "" for one in values)))
    minutes = next(row["training_min"] for row in rows if row["training_min"])
    intro = paragraph(
        f"{rows[0]['pairs']} of such pairs with scans changed and nothing trained again, beside a "
        "network that sees both volumes and predicts the displacement, "
        f"trained on the same brains and their labels for {minutes} minutes of one core. "
        "It and learned features have seen random changes of contrast. "
        "Dice of the structures with no voxel in the third that is cropped, empty where a method "
        "takes no such pair (`benchmarks/dio_robustness.py`). Contrast turned over is beyond "
        "that network, learned features and VoxelOpt's local contrast:"
    )
    return [intro, table(" | ".join(("", *methods)), lines)]


def dio_kernels(results: Path) -> list[str]:
    """Iterations of DIO, the last run of each in ``dio_cpu.csv``."""
    last = {(row["case"], row["implementation"]): row for row in rows_of(results / "dio_cpu.csv")}
    lines = []
    for case in _KERNELS:
        pair = [last.get((case, name)) for name in ("plain torch", "kernel")]
        slow, fast = pair
        if slow is None or fast is None:
            continue
        ratio = float(slow["median_ms"]) / float(fast["median_ms"])
        times = [whole(one["median_ms"]) for one in (slow, fast)]
        memory = [whole(one["peak_extra_mib"]) for one in (slow, fast)]
        lines.append((case, *times, f"{ratio:.0f}", fast["over_floor"], *memory))
    if not lines:
        return []
    intro = paragraph(
        "DIO, voxels x channels, against plain PyTorch with autograd, on one core of an "
        f"{machine(next(iter(last.values())))} (`benchmarks/dio_cpu.py`):"
    )
    head = "| PyTorch, ms | compiled, ms | times as fast | over its floor | MiB | MiB compiled"
    return [intro, table(head, lines)]


_MEANS = ("dice_mean", "sdlogj", "hd95_mm", "folding", "network_s", "optimisation_s")
_HEAD = "Dice | sd ln det J | HD95, mm | folding, % | s"
_PUBLISHED = ("freeform", "diffeomorphic")


def dio_trained(results: Path) -> list[str]:
    """Networks trained on hippocampi, each registered with several transforms."""
    rows = rows_of(results / "dio_trained.csv")
    if not rows:
        return []
    folds = {row["fold"] for row in rows}
    full = [row for row in rows if _folds_of(rows, row) == folds]
    steps = {row["training_steps"]: row["training_min"] for row in full if row["training_steps"]}
    taught = ", ".join(f"{count} steps ({minutes} minutes)" for count, minutes in steps.items())
    intro = paragraph(
        f"Hippocampi, 27 to train on, {rows[0]['pairs']} pairs of 13 held back, means over "
        f"{len(folds)} of 3 folds; a network learns codes of the structures in {taught} of one "
        "core, and its transform is switched when it is called (`benchmarks/dio_trained.py`):"
    )
    names = dict.fromkeys((row["features"], row["transform"]) for row in full)
    lines = [
        (*name, *_means([row for row in full if (row["features"], row["transform"]) == name]))
        for name in names
    ]
    return [intro, table(f"features | transform | {_HEAD}", lines), *_all_networks(rows)]


def _all_networks(rows: Sequence[dict[str, str]]) -> list[str]:
    """The paper's networks on the first fold, which some of them have alone."""
    first = [
        row
        for row in rows
        if row["fold"] == "0" and row["training_steps"] and row["transform"] in _PUBLISHED
    ]
    if len({row["features"] for row in first}) < 2:
        return []
    lines = [
        (row["features"], row["transform"], row["training_steps"], row["training_min"],
         *_means([row]))
        for row in first
    ]  # fmt: skip
    intro = paragraph(
        "All four networks of the paper on the first fold, those of large kernels with 8 feature "
        "maps at full resolution in place of 16:"
    )
    return [intro, table(f"features | transform | steps | minutes | {_HEAD}", lines)]


def _folds_of(rows: Sequence[dict[str, str]], one: dict[str, str]) -> set[str]:
    return {row["fold"] for row in rows if row["features"] == one["features"]}


def _means(rows: Sequence[dict[str, str]]) -> tuple[str, ...]:
    mean = {key: statistics.mean(float(row[key]) for row in rows) for key in _MEANS}
    return (
        *(fraction(str(mean[key])) for key in ("dice_mean", "sdlogj")),
        f"{mean['hd95_mm']:.2f}",
        f"{100 * mean['folding']:.4f}",
        f"{mean['network_s']:.2f} + {mean['optimisation_s']:.2f}",
    )
