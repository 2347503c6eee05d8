"""The views of a pair and the overview of a run, without a browser."""

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import Cohort
from helpers import drawn_texts
from PIL import Image
from written_runs import PAIRS, write_run

from cohort.commands.run_text import apart_rows
from cohort.engine.regenerate import PairImages
from cohort.report.outliers import outliers
from cohort.report.overview import matrix_plot, pair_matrix
from cohort.report.views import pair_views

SHAPE = (24, 20, 12)
SPACING_MM = (1.0, 1.0, 2.0)


def images(displacement: np.ndarray | None = None) -> PairImages:
    grid = np.indices(SHAPE).astype(np.float32)
    volume = grid[0] + 2 * grid[1] + 3 * grid[2]
    labels = np.zeros(SHAPE, np.uint16)
    labels[6:18, 6:14, 3:9] = 1
    vectors = np.zeros((3, *SHAPE), np.float32) if displacement is None else displacement
    jacobian = np.ones([size - 2 for size in SHAPE], np.float32)
    arrays = (volume, volume, volume, labels, labels, labels, vectors, jacobian)
    return PairImages(*arrays, spacing_mm=SPACING_MM)


def pixels(uri: str) -> np.ndarray:
    kind, _, content = uri.partition(",")
    assert kind == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")).astype(int)


def views(pair: PairImages) -> dict[str, np.ndarray]:
    return {view.name: pixels(view.uri) for view in pair_views(pair)}


def test_views_lie_on_each_other_in_square_millimetres() -> None:
    found = views(images())
    assert list(found) == ["fixed", "warped", "checkerboard", "volume change", "grid"]
    # axial 24 x 20 mm, coronal 24 x 24 mm, sagittal 20 x 24 mm, three pixels a mm
    assert {one.shape for one in found.values()} == {(72, 72 + 72 + 60 + 2 * 8, 3)}
    assert np.abs(found["fixed"] - found["warped"]).max() == 0


def test_where_a_displacement_is_unsure_is_bright() -> None:
    spread = np.zeros(SHAPE, np.float32)
    spread[:12] = 4
    *_, unsure = pair_views(replace(images(), spread_mm=spread))
    assert unsure.name == "uncertainty"
    assert "bright 4.0 mm and more" in unsure.alt
    axial = pixels(unsure.uri)[:, :72].sum(2)
    assert axial[:, :30].mean() > axial[:, 42:].mean() + 100


def test_every_view_says_what_it_shows() -> None:
    assert all(len(view.alt) > 20 for view in pair_views(images()))


def test_the_grid_is_straight_without_and_bent_with_a_displacement() -> None:
    def lines(pair: PairImages) -> np.ndarray:
        """How much the grid adds to each column of the axial plane."""
        found = views(pair)
        return np.abs(found["grid"] - found["checkerboard"])[:, :72].mean(axis=(0, 2))

    straight = lines(images())
    assert straight.max() > 3 * np.median(straight)  # lines from top to bottom
    vectors = np.zeros((3, *SHAPE), np.float32)
    vectors[0] = 3 * np.sin(np.indices(SHAPE)[1] / 3)
    assert lines(images(vectors)).max() < 0.7 * straight.max()


def test_volume_that_grows_and_shrinks_has_two_colours() -> None:
    pair = images()
    jacobian = pair.jacobian.copy()
    jacobian[:11], jacobian[11:] = 2.0, 0.5
    picture = views(replace(pair, jacobian=jacobian))["volume change"][:, :72]
    left, right = picture[20:50, 8:28], picture[20:50, 44:64]
    assert left[..., 0].mean() > left[..., 2].mean() + 30  # red: the moving volume is larger
    assert right[..., 2].mean() > right[..., 0].mean() + 30


def test_a_pair_without_labels_has_its_views_too() -> None:
    bare = replace(images(), fixed_labels=None, moving_labels=None, warped_labels=None)
    assert len(views(bare)) == 5


def rows(values: dict[tuple[str, str], float], **columns: float) -> pl.DataFrame:
    names = ("ncc", "hd95_mm_mean", "tre_mm", "ice_mm", "folding", "sdlogj", "displacement_mean_mm")
    table = [
        {"fixed": f, "moving": m, "status": "ok", "dice_mean": v, **dict.fromkeys(names), **columns}
        for (f, m), v in values.items()
    ]
    schema = {"dice_mean": pl.Float64, **dict.fromkeys(names, pl.Float64)}
    return pl.DataFrame(table, schema_overrides=schema)


SUBJECTS = "abcdef"


def two_groups() -> dict[tuple[str, str], float]:
    """a, c and e fit each other, b, d and f fit each other."""
    pairs = [(f, m) for f in SUBJECTS for m in SUBJECTS if f != m]
    group = {name: number % 2 for number, name in enumerate(SUBJECTS)}
    return {(f, m): 0.9 if group[f] == group[m] else 0.3 for f, m in pairs}


def test_subjects_that_fit_each_other_lie_together_in_the_matrix() -> None:
    found = pair_matrix(rows(two_groups()))
    assert found is not None
    matrix, names = found
    assert {"".join(sorted(names[:3])), "".join(sorted(names[3:]))} == {"ace", "bdf"}
    assert np.isnan(np.diag(matrix)).all()
    assert matrix[0, 1] == 0.9
    assert matrix[0, 5] == 0.3
    assert matrix_plot(matrix, names, "Dice").startswith("data:image/svg+xml")


def test_a_few_pairs_are_no_matrix() -> None:
    values = two_groups()
    few = {pair: values[pair] for pair in list(values)[:5]}
    assert pair_matrix(rows(few)) is None


def test_a_subject_that_stands_apart_is_named_with_its_reason() -> None:
    names = [f"s{number}" for number in range(12)]
    noise = np.random.default_rng(0).normal(0, 0.01, (12, 12))
    values = {
        (f, m): 0.8 + noise[i, j] - 0.3 * (f == "s7" or m == "s7")
        for i, f in enumerate(names)
        for j, m in enumerate(names)
        if f != m
    }
    table = outliers(rows(values))
    assert set(table["subject"]) == {"s7"}
    assert set(table["role"]) == {"fixed", "moving"}
    assert table["value"].max() < 0.6
    assert table["typical"].min() > 0.7


def test_nobody_stands_apart_when_all_are_alike_or_better() -> None:
    values = two_groups()
    assert outliers(rows(dict.fromkeys(values, 0.5))).is_empty()
    better = {pair: 0.99 if "a" in pair else 0.5 + 0.001 * i for i, pair in enumerate(values)}
    assert "a" not in set(outliers(rows(better))["subject"])


def test_one_bad_partner_does_not_pull_the_others_to_its_side() -> None:
    names = [f"s{number}" for number in range(5)]
    good = {(f, m): 0.5 + 0.001 * int(f[1] + m[1]) for f in names for m in names if f != m}
    table = outliers(rows({pair: 0.01 if "s4" in pair else good[pair] for pair in good}))
    assert set(table["subject"]) == {"s4"}
    assert table["typical"].min() > 0.5


def test_among_few_nobody_stands_apart_by_less_than_a_tenth() -> None:
    names = [f"s{number}" for number in range(5)]
    values = {(f, m): 0.5 + 0.001 * int(f[1]) for f in names for m in names if f != m}
    low = {pair: 0.46 if pair[0] == "s4" else value for pair, value in values.items()}
    assert outliers(rows(low)).is_empty()
    lower = {pair: 0.4 if pair[0] == "s4" else value for pair, value in values.items()}
    [found] = outliers(rows(lower)).to_dicts()
    assert found["reason"] == "median Dice as fixed: 0.4, typical 0.501"


def test_commands_name_the_five_that_stand_farthest_apart() -> None:
    names = [f"s{number:02}" for number in range(20)]
    noise = np.random.default_rng(2).normal(0, 0.01, (20, 20))
    values = {
        (f, m): 0.8 + noise[i, j] - (0.2 + 0.01 * i) * (i < 7)
        for i, f in enumerate(names)
        for j, m in enumerate(names)
        if f != m
    }
    said = apart_rows(outliers(rows(values)))
    assert list(said) == ["s06", "s05", "s04", "s03", "s02", "and"]
    assert said["and"] == "2 more, see the report"
    assert str(said["s06"]).startswith("median Dice as fixed: 0.5")


def test_a_report_says_who_stands_apart_before_its_page_is_opened(
    cohort: Cohort, tmp_path: Path
) -> None:
    noise = np.random.default_rng(3).normal(0.8, 0.01, len(PAIRS))
    scores = [0.1 if "d" in pair else noise[place] for place, pair in enumerate(PAIRS)]
    said = cohort("report", write_run(tmp_path / "run", scores.__getitem__)).out
    assert "stand apart\n  d  median " in said


@pytest.mark.parametrize("measure", ["sdlogj", "hd95_mm_mean"])
def test_more_of_what_is_bad_stands_apart_too(measure: str) -> None:
    frame = rows(two_groups())
    noise = pl.Series(measure, np.random.default_rng(1).normal(1, 0.05, len(frame)))
    bad = pl.when(pl.col("fixed") == "c").then(5.0).otherwise(pl.col(measure)).alias(measure)
    table = outliers(frame.with_columns(noise).with_columns(bad))
    assert ("c", "fixed") in set(table.select("subject", "role").iter_rows())


def test_long_names_beside_a_matrix_keep_both_ends() -> None:
    site = "a-hospital-with-a-very-long-name"
    names = [f"{site}_sub-01", f"{site}_sub-02", f"x{site}_sub-02", "sub-03"]
    drawn = drawn_texts(matrix_plot(np.eye(4), names, "Dice"))
    shown = ["a-hospital-w…name_sub-01", "a-hospital-w…name_sub-02", "xa-hospital-…name_sub-02"]
    assert [one for one in drawn if "sub-" in one] == 2 * [*shown, "sub-03"]
    assert {"fixed", "moving"} <= set(drawn)
