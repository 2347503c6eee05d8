"""The population of a run: distances, centre, groups, outliers and triangles."""

import json
import shutil
from collections.abc import Mapping
from itertools import combinations, pairwise, permutations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from command_line import Cohort
from helpers import drawn_texts, tiny_cohort
from small_run import planned
from written_runs import spec_of, write_run

from cohort.data.store import CohortStore, Subject
from cohort.engine.opening import Opening
from cohort.engine.run import run
from cohort.engine.team import Team
from cohort.errors import UsageError
from cohort.report import population as population_page
from cohort.report.population_figures import Marked, plane_plot
from cohort.studies import population, population_distances
from cohort.studies.population import PopulationSettings, analyse
from cohort.studies.population_distances import distances_of
from cohort.studies.population_outliers import rank_outliers
from cohort.studies.population_structure import clusters, embedding, mean_distances, silhouettes
from cohort.studies.population_triangles import TriangleSample, measure_triangles
from triton_reg import Displacement
from triton_reg.metrics.transitivity import triangle_errors_mm

SHAPE = (8, 9, 10)


def rows_of(values: Mapping[tuple[str, str], float | None], **columns: Any) -> pl.DataFrame:
    """Rows of pairs with a displacement each; None is a pair that failed."""
    return pl.DataFrame([
        {
            "fixed": fixed,
            "moving": moving,
            "status": "E_FAILED" if value is None else "ok",
            "displacement_mean_mm": value,
            "ncc": None if value is None else 1 - value / 10,
            "dice_mean": None,
            **columns,
        }
        for (fixed, moving), value in values.items()
    ])  # fmt: skip


def test_distances_are_the_mean_of_both_directions_and_the_medoid_is_nearest_to_all() -> None:
    directed = {("a", "b"): 1.0, ("b", "a"): 3.0, ("a", "c"): 4.0, ("c", "a"): 4.0,
                ("b", "c"): 1.0, ("c", "b"): 2.0}  # fmt: skip
    found = distances_of(rows_of(directed), spec_of())
    expected = np.array([[0, 2, 4], [2, 0, 1.5], [4, 1.5, 0]])
    np.testing.assert_array_equal(found.matrix, expected)
    assert (found.names, found.filled, found.left_out) == (("a", "b", "c"), 0, ("d",))
    assert found.said == "mean displacement in mm"
    np.testing.assert_allclose(mean_distances(found.matrix), [3, 1.75, 2.75])
    by_ncc = distances_of(rows_of(directed), spec_of(), "ncc")
    np.testing.assert_allclose(by_ncc.matrix, expected / 10, atol=1e-12)


def test_no_other_distance_is_known() -> None:
    with pytest.raises(UsageError, match="distance is 'near'; need energy, ncc, dice") as caught:
        distances_of(rows_of({("a", "b"): 1.0}), spec_of(), "near")  # type: ignore[arg-type]
    assert caught.value.code == "E_POPULATION"


def test_a_run_without_a_good_pair_is_refused() -> None:
    failed = rows_of({("a", "b"): None, ("b", "a"): None})
    with pytest.raises(UsageError, match="none of its 2 registered pairs succeeded") as caught:
        distances_of(failed, spec_of())
    assert caught.value.code == "E_POPULATION"


def test_too_few_pairs_are_refused_before_a_matrix_of_all_of_them_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(population_distances, "symmetric_mean", None)
    few = {(f"s{one}", f"s{one + 1}"): 1.0 for one in range(7)}
    few |= {(moving, fixed): 1.0 for fixed, moving in few}
    with pytest.raises(UsageError, match=r"25\.0% of the 28 pairs of the run's 8 subjects"):
        distances_of(rows_of(few), spec_of())


def test_pairs_one_way_are_enough_and_a_failed_pair_is_filled_in() -> None:
    names = [f"s{number:02d}" for number in range(6)]
    first = ("s00", "s01")
    values = {pair: None if pair == first else 2.0 for pair in combinations(names, 2)}
    found = distances_of(rows_of(values), spec_of(subject_ids=tuple(names)))
    assert found.filled == 1
    assert found.matrix[0, 1] == found.matrix[1, 0] == 2
    assert not found.known[0, 1]
    assert found.known[0, 2]


def test_a_run_that_holds_no_population_is_refused() -> None:
    names = [f"s{number}" for number in range(5)]
    sparse = dict.fromkeys(pairwise(names), 1.0)
    with pytest.raises(UsageError, match=r"40.0% of the 10 pairs .* --pairs all or unordered"):
        distances_of(rows_of(sparse), spec_of(pairs="knn:1"))
    with pytest.raises(UsageError, match="registers everyone with the atlas mni"):
        distances_of(rows_of(sparse), spec_of(atlas="mni"))
    with pytest.raises(UsageError, match="pairs of 2 subjects"):
        distances_of(rows_of({("a", "b"): 1.0}), spec_of())
    whole = dict.fromkeys(permutations(names, 2), 1.0)
    with pytest.raises(UsageError, match=r"--distance dice needs dice_mean .* 0 rows"):
        distances_of(rows_of(whole), spec_of(), "dice")
    with pytest.raises(UsageError, match="--clusters 9: need 1 to 2"):
        clusters(np.array([[0.0, 1.0], [1.0, 0.0]]), 9)
    with pytest.raises(UsageError, match="--clusters many: need 1 to 2"):
        clusters(np.array([[0.0, 1.0], [1.0, 0.0]]), "many")  # type: ignore[arg-type]


def matrix_of(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


def test_planted_points_are_found_again_in_the_plane() -> None:
    points = np.random.default_rng(0).normal(size=(12, 2)) * (3, 1)
    found = embedding(matrix_of(points))
    np.testing.assert_allclose(matrix_of(found.xy), matrix_of(points), atol=1e-9)
    assert found.share == pytest.approx(1)
    solid = np.random.default_rng(1).normal(size=(200, 4)) * (2, 2, 1, 1)
    assert embedding(matrix_of(solid)).share == pytest.approx(8 / 10, abs=0.05)
    nothing = embedding(np.zeros((3, 3)))
    assert (nothing.xy == 0).all()


def test_planted_groups_are_found_and_no_groups_where_there_are_none() -> None:
    random = np.random.default_rng(0)
    centres = np.repeat([[0, 0], [9, 0], [0, 9]], (3, 8, 5), axis=0)
    truth = np.repeat([3, 1, 2], (3, 8, 5))
    groups = clusters(matrix_of(centres + random.normal(size=(16, 2))))
    np.testing.assert_array_equal(groups.of, truth)  # the largest is the first
    assert groups.silhouette == max(groups.tried.values()) > 0.6
    even = np.ones((8, 8)) - np.eye(8)
    assert clusters(even).of.tolist() == [1] * 8
    assert clusters(even, 2).silhouette == 0
    assert clusters(even, 1).silhouette is None


def test_silhouettes_are_those_of_the_definition() -> None:
    matrix = matrix_of(np.array([[0.0], [1.0], [5.0]]))
    expected = [(5 - 1) / 5, (4 - 1) / 4, 0]
    np.testing.assert_allclose(silhouettes(matrix, np.array([1, 1, 2])), expected)


def test_an_outlier_is_ranked_first_with_its_reason_and_does_not_smear() -> None:
    names = tuple(f"s{number:02d}" for number in range(10))
    random = np.random.default_rng(0)
    rows = pl.DataFrame([
        {
            "fixed": one,
            "moving": other,
            "ncc_before": 0.8 + 0.02 * random.normal(),
            "displacement_mean_mm": 4 + 0.2 * random.normal() + 6 * ("s07" in (one, other)),
            "sdlogj": 0.3,
            "ice_mm": None,
        }
        for one, other in permutations(names, 2)
    ])  # fmt: skip
    found = rank_outliers(rows, names)
    assert found.measures == ("NCC before", "mean displacement in mm")  # the others say nothing
    assert found.scores.argmax() == 7
    assert found.reasons[7].startswith("mean displacement in mm 10")
    assert "typical 4" in found.reasons[7]
    assert found.apart[0] == "s07"
    assert np.delete(found.scores, 7).max() < 3.5


@pytest.mark.parametrize(
    ("count", "more_mm", "apart"),
    [(6, 0.15, []), (6, 1.0, ["s0"]), (12, 0.15, ["s0"])],
    ids=["few, alike", "few, one odd", "many"],
)
def test_among_few_nobody_stands_apart_for_a_little(
    count: int, more_mm: float, apart: list[str]
) -> None:
    names = tuple(f"s{number}" for number in range(count))
    own = {name: 1.93 + 0.01 * (number % 4) for number, name in enumerate(names)}
    own["s0"] += more_mm
    rows = rows_of({(one, other): own[one] + own[other] for one, other in permutations(names, 2)})
    found = rank_outliers(rows.drop("ncc"), names)
    assert found.apart == apart
    assert found.scores.argmax() == 0
    assert (found.scores[0] > 3.5) == bool(apart)


def uniform(*step: float) -> Displacement:
    vectors = torch.tensor(step, dtype=torch.float32).view(1, 3, 1, 1, 1)
    return Displacement(vectors.expand(1, 3, *SHAPE), SHAPE, SHAPE)


def test_triangle_error_is_what_the_three_displacements_leave() -> None:
    mask, spacing = torch.ones(1, 1, *SHAPE), (2.0, 1.0, 3.0)
    first, second = uniform(1, 0, 0), uniform(0, 2, 1)
    closed = triangle_errors_mm(first, second, uniform(1, 2, 1), spacing, mask)
    assert [one.item() for one in closed] == [0, 0]
    apart = triangle_errors_mm(first, second, uniform(0, 2, 1), spacing, mask)
    assert [one.item() for one in apart] == [2, 2]
    # what leaves the grid of b does not count; here that is the last plane
    only_last = torch.zeros_like(mask)
    only_last[:, :, -1] = 1
    assert triangle_errors_mm(first, second, second, spacing, only_last).mean_mm.isnan()
    ramp = torch.zeros(1, 3, *SHAPE)
    ramp[:, 2] = torch.arange(10.0)
    still = uniform(0, 0, 0)
    ramped = triangle_errors_mm(still, still, Displacement(ramp, SHAPE, SHAPE), (1, 1, 1), mask)
    assert ramped.mean_mm.item() == pytest.approx(4.5)
    assert ramped.p95_mm.item() == pytest.approx(np.percentile(np.repeat(np.arange(10), 72), 95))
    other = Displacement(ramp, SHAPE, (9, 9, 9))
    with pytest.raises(ValueError, match="one shared grid"):
        triangle_errors_mm(still, still, other, spacing, mask)


def test_every_subject_starts_its_triangles_and_legs_are_shared() -> None:
    names = tuple(f"s{number}" for number in range(6))
    blocks = TriangleSample(names=names, each=4).blocks()
    triangles = [one for block in blocks for one in block]
    assert [one.a for one in triangles] == [name for name in names for _ in range(4)]
    assert all(len(set(one)) == 3 for one in triangles)
    for before, after in pairwise(triangles[:4]):
        assert before.c == after.b
    assert len(TriangleSample(names=names, each=1).blocks()[0]) == 4
    assert sum(map(len, TriangleSample(names=names[:3], each=9).blocks())) == 6


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CohortStore]:
    """A run of six subjects, one of which shows something else."""
    folder = tmp_path_factory.mktemp("population")
    store = tiny_cohort(folder / "store.zarr", subjects=6)
    bad = store.read("sub-03")
    upside_down = Subject("sub-03", bad.volume.max() - bad.volume[::-1], labels=bad.labels)
    store.commit(upside_down, {"source": None})
    run_dir = planned(folder / "run", store)
    run(run_dir, store, team=Team(0))
    return run_dir, store


def test_what_else_lies_in_the_folder_is_left_as_it_is(
    done: tuple[Path, CohortStore], tmp_path: Path
) -> None:
    run_dir, store = done
    opening, settings = Opening(run_dir=run_dir, store=store.path), PopulationSettings(triangles=0)
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "subjects.csv").write_text("mine")
    with pytest.raises(UsageError, match=r"E_POPULATION: .* not empty \(it holds mine.txt\)"):
        analyse(opening, tmp_path, settings)
    with pytest.raises(UsageError, match=r"mine.txt is a file; need a new or an empty folder"):
        analyse(opening, tmp_path / "mine.txt", settings)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["mine.txt", "subjects.csv"]


def test_a_run_is_analysed_and_the_odd_one_stands_apart(
    done: tuple[Path, CohortStore], tmp_path: Path
) -> None:
    run_dir, store = done
    found = analyse(
        Opening(run_dir=run_dir, store=store.path), tmp_path, PopulationSettings(triangles=2)
    )
    assert found.subjects["subject"][0] == "sub-03"
    assert found.subjects["reason"][0].startswith("NCC")
    assert found.facts["apart"][0] == "sub-03"
    assert found.facts["medoid"] != "sub-03"
    assert found.facts["triangles"] == len(found.triangles) == 12
    assert found.facts["ice_from"] == "sample"
    assert len(found.pairs) == 15
    # every mean is that of the rows that name the pair or the subject
    touching = found.triangles.filter(pl.any_horizontal(pl.col("a", "b", "c") == "sub-03"))
    own = found.subjects.filter(subject="sub-03")
    assert own["triangle_mm"][0] == pytest.approx(touching["mean_mm"].mean())
    sides = [
        {row[i], row[j]} for row in found.triangles.rows() for i, j in ((0, 1), (1, 2), (0, 2))
    ]
    pair = found.pairs.filter(pl.col("triangles") > 1).row(0, named=True)
    assert sides.count({pair["a"], pair["b"]}) == pair["triangles"]
    assert (found.triangles["ice_mm"] > 0).all()


def test_triangles_are_those_of_the_run_s_own_displacements(
    done: tuple[Path, CohortStore], tmp_path: Path
) -> None:
    run_dir, store = done
    opening = Opening(run_dir=run_dir, store=store.path)
    sample = TriangleSample(names=store.subject_ids[:3], each=1, with_inverse=False)
    rows = measure_triangles(opening, sample, tmp_path)
    assert rows["ice_mm"].null_count() == 3
    bench = opening.open()
    with torch.inference_mode():
        a, b, c = rows.row(0)[:3]
        first, second, direct = (
            bench.register(*pair).displacement for pair in ((a, b), (b, c), (a, c))
        )
        errors = triangle_errors_mm(first, second, direct, (2, 2, 2), bench.subject(a).scan.mask)
    assert rows["mean_mm"][0] == errors.mean_mm.item()


@pytest.mark.slow
def test_triangles_go_on_where_they_were_with_the_same_bits_on_two_workers(
    done: tuple[Path, CohortStore], tmp_path: Path
) -> None:
    run_dir, store = done
    opening = Opening(run_dir=run_dir, store=store.path)
    sample = TriangleSample(names=store.subject_ids, each=2)
    alone = measure_triangles(opening, sample, tmp_path / "one")
    assert alone.equals(measure_triangles(opening, sample, tmp_path / "two", workers=2))
    blocks = sorted((tmp_path / "one").rglob("*.json"))
    assert len(blocks) == 2
    kept = blocks[1].stat().st_mtime_ns
    blocks[0].unlink()
    told: list[tuple[int, int]] = []
    again = measure_triangles(
        opening, sample, tmp_path / "one", progress=lambda *news: told.append(news)
    )
    assert again.equals(alone)
    assert told == [(12, 12)]
    assert blocks[1].stat().st_mtime_ns == kept
    other = measure_triangles(
        opening, TriangleSample(names=store.subject_ids, each=2, seed=1), tmp_path / "one"
    )
    assert not other.equals(alone)


@pytest.mark.slow
def test_the_command_writes_a_page_tables_and_lists(
    done: tuple[Path, CohortStore], tmp_path: Path, cohort: Cohort
) -> None:
    run_dir, _ = done
    asked = ("population", run_dir, "--out", tmp_path / "out", "--workers", 0, "--triangles", 1)
    told = cohort(*asked, "--clusters", 2)
    assert told.code == 0
    assert "medoid" in told.out
    assert "sub-03" in told.out
    facts = json.loads((tmp_path / "out" / "population.json").read_text())
    members = [name for one in facts["clusters"] for name in one["subjects"]]
    assert sorted(members) == [f"sub-{number:02d}" for number in range(6)]
    lists = sorted((tmp_path / "out" / "clusters").iterdir())
    assert [path.read_text().split() for path in lists] == [
        one["subjects"] for one in facts["clusters"]
    ]
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("<img") == 3
    assert "cluster-1.txt" in page
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}
    one = cohort(*asked, "--clusters", 1, "--json").json
    assert len(one["clusters"]) == 1
    assert len(list((tmp_path / "out" / "clusters").iterdir())) == 1
    again = cohort(*asked, "--clusters", 2)
    assert again.code == 0
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}


@pytest.mark.slow
def test_a_store_that_was_moved_is_that_of_the_printed_commands(
    done: tuple[Path, CohortStore], tmp_path: Path, cohort: Cohort
) -> None:
    run_dir, store = done
    shutil.copytree(store.path, tmp_path / "moved.zarr")
    where = ("--store", tmp_path / "moved.zarr", "--triangles", 0, "--out", tmp_path / "out")
    told = cohort("population", run_dir, *where, "--clusters", 2, "--json").json
    address = CohortStore.open(tmp_path / "moved.zarr").address
    assert told["store"] == address
    assert told["commands"]
    assert all(f"cohort atlas {address} " in one for one in told["commands"])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--distance", "far"), "--distance is 'far'; need energy, ncc, dice"),
        (("--clusters", "some"), "--clusters is 'some'; need a number or auto"),
        (("--clusters", "7"), "--clusters 7: need 1 to 6"),
    ],
)
def test_what_makes_no_sense_is_refused(
    asked: tuple[str, str],
    said: str,
    done: tuple[Path, CohortStore],
    tmp_path: Path,
    cohort: Cohort,
) -> None:
    told = cohort("population", done[0], "--out", tmp_path / "out", "--triangles", 0, *asked)
    assert told.code == 2
    assert said in " ".join(told.err.split())


def test_the_plane_tells_the_medoid_of_all_from_those_of_clusters() -> None:
    subjects = [
        {"subject": name, "x": x, "y": 0.0, "cluster": 1 + (x > 3)}
        for name, x in (("a", 0.0), ("b", 1.0), ("c", 2.0), ("d", 9.0), ("e", 9.5))
    ]
    drawn = drawn_texts(plane_plot(subjects, Marked("c", ["b", "d"], ["e"]), "mm"))
    legend = [one for one in drawn if "medoid" in one or "apart" in one]
    assert legend == ["medoid of all", "medoid of its cluster", "stands apart"]
    crowd = [{**subjects[0], "subject": f"sub-{number}", "x": number} for number in range(61)]
    drawn = drawn_texts(plane_plot(crowd, Marked("sub-7", [], []), "mm"))
    assert [one for one in drawn if one.startswith("sub-")] == ["sub-7"]


def test_subjects_that_are_called_by_numbers_keep_their_names(tmp_path: Path) -> None:
    table = tmp_path / "subjects.csv"
    table.write_text("subject,nearest,reason,x\n001,002,,0.5\n002,001,,1\n")
    read = population_page._table(table, "subject", "nearest", "reason")
    assert read["subject"].to_list() == ["001", "002"]


def test_no_scores_of_structures_are_read(tmp_path: Path, monkeypatch) -> None:
    class Read(Exception):
        pass

    def noted(run_dir: Path, columns: tuple[str, ...] | None = None) -> None:
        assert columns is not None
        assert {"status", "ncc", "ice_mm", "displacement_rms_mm", "dice_mean"} <= set(columns)
        assert "dice" not in columns
        raise Read

    run_dir = write_run(tmp_path / "run", lambda index: 0.5)
    monkeypatch.setattr(population, "read_rows", noted)
    with pytest.raises(Read):
        analyse(Opening(run_dir=run_dir, store="nowhere"), tmp_path / "out", PopulationSettings())
