import base64
import io
import os
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image

from cohort.config.method import MethodConfig
from cohort.data.geometry import Grid
from cohort.data.storage import ABANDONED_AFTER_S
from cohort.data.store import CohortStore, Subject
from cohort.engine.regenerate import PairImages
from cohort.engine.results import SCHEMA, commit_part, read_rows
from cohort.engine.spec import RunSpec
from cohort.errors import UsageError
from cohort.report import content, figures, layout, page, tables
from cohort.report.aggregate import run_tables
from cohort.report.page import Cohort, is_current, render_page, write_report
from cohort.report.pictures import Picture
from cohort.report.run_values import RunValues
from cohort.report.structure_scores import StructureScores, dice_of_pairs, structure_table
from cohort.report.views import pair_views

SUBJECTS = ("a", "b", "c")
PAIRS = [(f, m) for f in SUBJECTS for m in SUBJECTS if f != m]
NAMES = {1: "thalamus", 2: "putamen"}
HOSTILE = '<script>alert("x")</script>'


def _row(fixed: str, moving: str, **values) -> dict:
    """A registered pair with two structures and a known truth."""
    score = 0.8 + 0.01 * PAIRS.index((fixed, moving))
    row = {
        "pair_key": f"{fixed}-{moving}",
        "tile": "t",
        "fixed": fixed,
        "moving": moving,
        "status": "ok",
        "dice_mean": score,
        "dice_before": 0.5,
        "dice": {1: score - 0.1, 2: score + 0.1},
        "dice_structures_before": {1: 0.4, 2: 0.6},
        "ncc": 0.9,
        "ncc_before": 0.7,
        "folding": 0.0,
        "sdlogj": 0.2,
        "epe_mm": 1.5,
        "epe_before_mm": 6.0,
        "elapsed_s": 2.0,
        "worker": "host-1",
        "finished_at": "2026-08-01T12:00:00.000+00:00",
    }
    return row | values


def _table(rows: list[dict]) -> pa.Table:
    rows = [
        {name: list(v.items()) if isinstance(v, dict) else v for name, v in row.items()}
        for row in rows
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _frame(rows: list[dict]) -> pl.DataFrame:
    frame = pl.from_arrow(_table(rows))
    assert isinstance(frame, pl.DataFrame)
    return frame


def _failed(fixed: str, moving: str, code: str, message: str | None) -> dict:
    names = ("dice_mean", "dice_before", "dice", "dice_structures_before", "ncc", "elapsed_s")
    return _row(fixed, moving, status=code, message=message) | dict.fromkeys(names)


def _without_labels(row: dict) -> dict:
    absent = ("dice_mean", "dice_before", "dice", "dice_structures_before", "epe_mm")
    return row | dict.fromkeys((*absent, "epe_before_mm"))


def _spec(**values) -> RunSpec:
    facts = {
        "plan_digest": "0" * 64,
        "created_at": "2026-08-01T10:00:00+00:00",
        "store": "/data/cohort.zarr",
        "store_digest": "1" * 64,
        "grid": Grid.axis_aligned((12, 14, 10), [2, 2, 3], np.zeros(3)).to_json(),
        "subject_ids": SUBJECTS,
        "subject_digests": ("2" * 64,) * 3,
        "has_labels": True,
        "has_truth": True,
        "pairs": "all",
        "pairs_digest": "3" * 64,
        "seed": 0,
        "n_pairs": len(PAIRS),
        "n_tiles": 1,
        "tile_size": 8,
        "method": MethodConfig(),
        "fingerprint": MethodConfig().build().fingerprint,
        "versions": {"python": "3.11"},
    }
    return RunSpec.model_validate(facts | values)


def _values(rows: list[dict]) -> RunValues:
    return RunValues.of_rows(
        "run-1", _spec(), lambda names: [_table(rows).select(names)], SCHEMA.names
    )


def _page(
    rows: list[dict],
    cohort: Cohort | None = None,
    pictures: dict | None = None,
    spec: RunSpec | None = None,
) -> str:
    cohort, frame = cohort or Cohort(NAMES), _frame(rows)
    worst = tables.worst_pairs(frame).select("fixed", "moving").rows()
    run = _values(rows)
    by_structure = run_tables(run, cohort.names)["by_structure"]
    scores = StructureScores(structure_table(by_structure), dice_of_pairs(run.read, worst))
    return render_page("run-1", spec or _spec(), frame, scores, cohort, pictures or {}, 1800.0)


def _rows() -> list[dict]:
    return [_row(*pair) for pair in PAIRS]


def _images(*, labels: bool = True) -> PairImages:
    rng = np.random.default_rng(0)
    volume = rng.random((12, 14, 10), np.float32)
    regions = np.zeros(volume.shape, np.uint16)
    regions[3:8, 4:9, 2:6] = 300
    given = regions if labels else None
    return PairImages(
        fixed=volume,
        moving=volume,
        warped=volume,
        fixed_labels=given,
        moving_labels=given,
        warped_labels=given,
        displacement=np.zeros((3, 12, 14, 10), np.float32),
        jacobian=np.ones((10, 12, 8), np.float32),
        spacing_mm=(2.0, 2.0, 3.0),
    )


class _Checked(HTMLParser):
    """Every tag of a page; fails on tags that are not closed in order."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def _plain(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def test_structures_are_counted_and_averaged_over_the_pairs_that_have_them():
    rows = [_row("a", "b"), _row("a", "c", dice={1: 0.2}), _failed("b", "a", "E_X", None)]
    table = structure_table(run_tables(_values(rows), {1: "thalamus"})["by_structure"])
    assert table["name"].to_list() == ["thalamus", "structure 2"]
    assert table["n"].to_list() == [2, 1]
    np.testing.assert_allclose(table["mean"], [(0.7 + 0.2) / 2, 0.9])
    np.testing.assert_allclose(table["before"], [0.4, 0.6])
    np.testing.assert_allclose(table["p05"], [0.2 + 0.05 * 0.5, 0.9])


def test_subjects_are_averaged_in_both_roles():
    rows = [_row("a", "b"), _row("a", "c"), _failed("b", "a", "E_X", "why")]
    table = tables.subject_table(_frame(rows)).sort("subject_id")
    assert table["subject_id"].to_list() == ["a", "b", "c"]
    assert table["as_fixed"].to_list() == [pytest.approx(0.805), None, None]
    assert table["as_moving"].to_list() == [None, pytest.approx(0.8), pytest.approx(0.81)]
    assert table["failed"].to_list() == [1, 1, 0]


def test_the_worst_pairs_come_first_and_failed_ones_are_not_among_them():
    rows = [*_rows()[1:], _failed("a", "b", "E_X", "why")]
    worst = tables.worst_pairs(_frame(rows), 2)
    assert worst.select("fixed", "moving").rows() == [("a", "c"), ("b", "a")]


def test_without_labels_pairs_are_judged_by_their_correlation():
    rows = [_without_labels(row) for row in _rows()]
    rows[3]["ncc"] = 0.1
    frame = _frame(rows)
    assert tables.main_measure(frame) == "ncc"
    assert tables.worst_pairs(frame, 1)["moving"].item() == PAIRS[3][1]


def test_failures_are_grouped_by_code_and_reason():
    rows = [
        _failed("a", "b", "E_OOM", "no memory"),
        _failed("a", "c", "E_CORRUPT", "c is broken"),
        _failed("b", "c", "E_CORRUPT", "c is broken"),
        _row("c", "b"),
    ]
    assert tables.failure_table(_frame(rows)).rows() == [
        ("E_CORRUPT", "c is broken", 2, "a", "c"),
        ("E_OOM", "no memory", 1, "a", "b"),
    ]


def test_the_page_is_whole_and_needs_nothing_from_outside():
    picture = Picture(figures.mosaic(_images()))
    page = _page(_rows(), pictures={PAIRS[0]: picture})
    checked = _Checked(page)
    assert checked.all("html") == [{"lang": "en"}]
    images = checked.all("img")
    assert len(images) == 6 + 1 + 1 + 1  # measures, structures, matrix, pair
    assert all(image["src"].startswith("data:image/") and image["alt"] for image in images)
    assert all("scope" in head for head in checked.all("th"))
    assert not checked.all("link")
    without_data = re.sub(r"data:image/[^\"]*", "", page)
    assert not re.search(r"https?://|@import|url\(|src=\"[^\"]", without_data)


def test_the_page_tells_the_run_and_its_headline():
    text = _plain(_page(_rows()))
    for expected in (
        "12x14x10 voxels of 2 x 2 x 3 mm",
        "6 (all) in 1 tile",
        "6, none failed",
        "2026-08-01 10:00 UTC",
        "0.500 → 0.825",
        "6.00 → 1.50 mm",
        "Pairs per hour 1,800",
        "No pair failed.",
        "No subject is in quarantine.",
        "a moved onto b",
        "thalamus 0.70, putamen 0.90",
    ):
        assert expected in text or expected.replace(" moved", "  moved") in text, expected


def test_surfaces_and_the_way_back_are_told_if_they_were_measured():
    measured = {"hd95_mm_mean": 4.5, "surface_dice_mean": 0.875, "ice_mm": 0.25}
    with_them = _plain(_page([_row(*pair, **measured) for pair in PAIRS]))
    without = _plain(_page(_rows())).partition("How these numbers")[0]
    for title, text in (("HD95", "4.50 mm"), ("Surface Dice", "0.875"), ("There and back", "0.25")):
        assert f"{title} {text}" in with_them
        assert title not in without


def test_strings_from_files_are_escaped():
    rows = [
        _row("a", "b", worker=HOSTILE),
        _failed("a", "c", HOSTILE, HOSTILE),
    ]
    entry = {"code": "E_X", "message": HOSTILE, "source": HOSTILE, "time": ""}
    cohort = Cohort({1: HOSTILE, 2: "$x^2$ 海馬 \x00"}, {HOSTILE: entry})
    page = _page(rows, cohort, pictures={("a", "b"): Picture(missing=HOSTILE)})
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    assert len(_Checked(page).all("script")) == 1


def test_failures_and_quarantine_give_their_reasons():
    rows = [_row("a", "b"), _failed("a", "c", "E_CORRUPT", "c is broken")]
    entry = {"code": "E_CRC", "message": "wrong checksum", "source": "/in/d.nii.gz", "time": ""}
    text = _plain(_page(rows, Cohort(NAMES, {"d": entry})))
    for expected in ("1 pair failed", "E_CORRUPT", "c is broken", "E_CRC", "/in/d.nii.gz"):
        assert expected in text
    assert "Of 6 planned pairs 4 are not done yet" in text


def test_a_run_without_labels_and_truth_has_neither_in_its_page():
    page = _page([_without_labels(row) for row in _rows()])
    text = _plain(page)
    assert "The 6 pairs with the lowest NCC" in text
    assert "No pair has labels on both sides" in text
    assert "Mean NCC as fixed" in text
    assert len(_Checked(page).all("img")) == 4 + 1  # measures, matrix


def test_one_pair_is_told_in_the_singular():
    text = _plain(_page(_rows()[:1], Cohort(), spec=_spec(n_pairs=2)))
    assert "The pair with the lowest Dice" in text
    assert "2 (all) in 1 tile" in text
    assert "1 tiles" not in text
    assert "2 planned pairs 1 is not done yet" in text


@pytest.mark.parametrize("labels", [True, False], ids=["labels", "no labels"])
def test_outlines_are_told_of_where_there_are_any(labels):
    images = _images(labels=labels)
    picture = Picture("data:,", "", pair_views(images), has_outlines=labels)
    page = _page(_rows(), Cohort(), {PAIRS[0]: picture})
    assert ("Outlines are those of the fixed labels" in page) == labels
    assert ("outlines of the fixed labels" in page) == labels
    assert ("through the middle of the volume;" in page) == (not labels)


def test_marks_of_a_perfect_structure_are_whole():
    scores = {"dice": {1: 1.0}, "dice_structures_before": {1: 1.0}}
    run = _values([_row("a", "b", **scores)])
    table = structure_table(run_tables(run, NAMES)["by_structure"])
    content = base64.b64decode(figures.structure_plot(table).partition(",")[2]).decode()
    assert "<use" in content
    assert not re.search(r"<g clip-path=[^>]*>\s*<use", content)


def test_a_run_without_pairs_says_so():
    page = _page([])
    assert "No pair is done yet" in page
    assert not _Checked(page).all("img")


def test_a_run_whose_pairs_all_failed_still_has_a_page():
    page = _page([_failed(*pair, "E_OOM", None) for pair in PAIRS])
    assert "6 pairs failed" in _plain(page)
    assert not _Checked(page).all("img")


def test_without_its_store_the_page_says_why_there_are_no_pictures():
    text = _plain(_page(_rows(), Cohort(missing="/data/cohort.zarr is gone")))
    assert "There are no pictures, because the store cannot be read: /data/cohort.zarr" in text


def test_a_long_list_of_structures_is_plotted_in_part_and_listed_in_full():
    scores = {label: 0.5 + label / 1000 for label in range(1, 149)}
    page = _page([_row("a", "b", dice=scores, dice_structures_before=scores)], Cohort())
    assert "The 40 of 148 structures with the lowest mean" in page
    assert page.count('<th scope="row">structure ') == 148


def test_of_very_many_subjects_the_page_shows_those_that_register_worst(monkeypatch):
    monkeypatch.setattr(layout, "MOST_ROWS", 2)
    refused = {f"bad-{name}": {"code": "E_NDIM", "message": "x", "source": "f"} for name in "xyz"}
    shown = layout.subjects(_frame(_rows()))
    assert len(shown.rows) == 2
    assert shown.caption.endswith("; 1 more are in the tables beside this page")
    shown = layout.quarantine(refused)
    assert [row[0] for row in shown.rows] == ["bad-x", "bad-y"]
    assert shown.caption.endswith("; 1 more, which `cohort info --json` lists")


def test_a_page_is_made_without_the_columns_that_it_does_not_show(run_dir, monkeypatch):
    read = []

    def noted(run_dir, columns=None):
        read.extend(SCHEMA.names if columns is None else columns)
        return read_rows(run_dir, columns)

    monkeypatch.setattr(page, "read_rows", noted)
    write_report(run_dir)
    assert {"dice_mean", "ncc"} <= set(read)
    assert not {"dice", "jaccard", "pair_key", "hd95_mm"} & set(read)  # scores by themselves


def test_equal_results_give_equal_bytes():
    picture = {PAIRS[0]: Picture(figures.mosaic(_images()))}
    again = {PAIRS[0]: Picture(figures.mosaic(_images()))}
    assert _page(_rows(), pictures=picture) == _page(_rows(), pictures=again)


@pytest.mark.parametrize("labels", [True, False])
def test_a_mosaic_is_drawn_with_and_without_labels(labels):
    kind, _, content = figures.mosaic(_images(labels=labels)).partition(",")
    assert kind == "data:image/png;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")
    pixels = np.asarray(picture).astype(int)
    assert pixels.std() > 40
    assert (np.ptp(pixels, axis=2) > 40).any() == labels  # the outlines are the only colour


@pytest.mark.parametrize(
    ("after", "before", "lower"),
    [
        ([0.0, 0.0], None, 0.0),
        ([0.5], [0.5], None),
        ([1.0, 2.0], [5.0], 0.0),
        ([-1.0, 1.0], None, 0),
    ],
)
def test_a_histogram_is_drawn_of_any_values(after, before, lower):
    uri = figures.histogram(after, before, label="x", lower=lower)
    assert uri.startswith("data:image/svg+xml;base64,")


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.34, "12.3 s"), (190, "3 min 10 s"), (18_130, "5 h 2 min")]
)
def test_durations_are_told_in_the_units_of_their_size(seconds, text):
    assert content.duration(seconds) == text


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run of three small subjects with one part that holds two of the six pairs."""
    grid = Grid.axis_aligned((16, 18, 16), [2.0] * 3, np.zeros(3))
    store = CohortStore.create(
        tmp_path / "store", grid, settings={"structures": {"1": "core", "odd": "left out"}}
    )
    for number, subject_id in enumerate(SUBJECTS):
        volume = np.random.default_rng(number).random(grid.shape, np.float32)
        labels = np.zeros(grid.shape, np.uint16)
        labels[4:12, 4:12, 4 + number : 12] = 1
        store.commit(Subject(subject_id, volume, labels), {"source": {}})
    store.quarantine("d", "E_CRC", "wrong checksum", "/in/d.nii.gz")
    spec = _spec(
        store=str(store.path),
        grid=grid.to_json(),
        subject_digests=[store.subject_digest(name) for name in SUBJECTS],
    )
    folder = tmp_path / "run"
    (folder / "parts").mkdir(parents=True)
    (folder / "run.json").write_text(spec.model_dump_json())
    _commit(folder, "one", PAIRS[:2])
    return folder


def _commit(folder: Path, tile: str, pairs: list[tuple[str, str]]) -> None:
    rows = [
        {name: list(v.items()) if isinstance(v, dict) else v for name, v in _row(*pair).items()}
        for pair in pairs
    ]
    assert commit_part(folder, tile, rows)


def test_a_report_is_written_once_for_the_parts_that_are_there(run_dir):
    assert not is_current(run_dir)
    seen = []
    path = write_report(run_dir, progress=lambda done, total: seen.append((done, total)))
    assert path == run_dir / "report" / "index.html"
    assert seen == [(1, 2), (2, 2)]
    assert is_current(run_dir)
    _commit(run_dir, "two", PAIRS[2:])
    assert not is_current(run_dir)


def test_a_report_has_the_pictures_names_and_quarantine_of_its_store(run_dir):
    page = write_report(run_dir).read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "Outlines are those of the fixed labels" in page
    text = _plain(page)
    assert "core" in text
    assert "left out" not in text
    assert "wrong checksum" in text


def test_a_subject_that_changed_is_told_in_place_of_its_picture(run_dir):
    store = CohortStore.open(run_dir.parent / "store")
    subject = store.read("b")
    store.commit(Subject("b", subject.volume + 1, subject.labels), {"source": {}})
    page = write_report(run_dir).read_text()
    assert "No picture: b is no longer what it was" in page
    assert page.count("data:image/png;base64,") == 1


def test_what_a_killed_report_left_half_written_goes_with_the_next(run_dir):
    left = [run_dir / "report" / f".tmp-{name}" for name in ("old", "young")]
    left[0].parent.mkdir()
    for path in left:
        path.write_text("half a page")
    long_ago = time.time() - 2 * ABANDONED_AFTER_S
    os.utime(left[0], (long_ago, long_ago))
    write_report(run_dir)
    assert [path.exists() for path in left] == [False, True]  # another may still write the young


def test_a_store_that_moved_is_found_where_it_is_said_to_be(run_dir):
    moved = (run_dir.parent / "store").rename(run_dir.parent / "elsewhere")
    page = write_report(run_dir).read_text()
    assert "There are no pictures" in page
    assert not is_current(run_dir, store_path=moved)
    assert "There are no pictures" not in write_report(run_dir, store_path=moved).read_text()
    assert is_current(run_dir, store_path=moved)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"no run\.json"):
        write_report(tmp_path)
