"""The entropy of features matched with themselves, and what ``cohort features`` makes of it."""

import re
from pathlib import Path

import polars as pl
import pytest
import torch
from command_line import Cohort
from helpers import smooth_volume, tiny_cohort
from scipy.stats import spearmanr

from cohort.config.method import method_config
from cohort.data.store import CohortStore
from cohort.engine.choices import PlanSettings
from cohort.engine.discrimination import BINS, compare_features, overlap_of_run, spread
from cohort.engine.plan import open_run
from cohort.engine.results import read_rows
from cohort.engine.run import run
from cohort.engine.spec import RunSpec
from cohort.errors import UsageError
from triton_reg import Architecture, Intensity, LearnedFeatures, LocalContrast
from triton_reg.features.pretrained import save_features
from triton_reg.metrics.discrimination import shift_entropy
from triton_reg.ops.cost_volume import cost_volume_reference
from triton_reg.ops.entropy import entropy_reference
from triton_reg.weights import Weights

EXTRACTORS = {"plain": Intensity(), "contrast": LocalContrast(widths=(3,))}


def test_what_cannot_be_told_apart_has_entropy_one() -> None:
    entropy = shift_entropy(torch.full((1, 2, 6, 7, 8), 0.5))
    inner = entropy[0, 2:-2, 2:-2, 2:-2]
    torch.testing.assert_close(inner, torch.ones_like(inner))


def test_what_is_unlike_all_around_it_has_entropy_near_zero() -> None:
    noise = 100 * torch.rand(1, 4, 6, 7, 8, generator=torch.Generator().manual_seed(0))
    assert shift_entropy(noise)[0, 1:-1, 1:-1, 1:-1].max() < 0.01


def test_it_is_the_entropy_of_the_cost_volume() -> None:
    features = smooth_volume((6, 7, 8), 0, channels=3)
    shifts = [cost_volume_reference(features, features.roll(1, axis), 1) for axis in (2, 3, 4)]
    expected = torch.stack([entropy_reference(cost) for cost in shifts]).mean(0)
    torch.testing.assert_close(shift_entropy(features), expected / torch.log(torch.tensor(27.0)))


@pytest.fixture
def store(tmp_path: Path) -> CohortStore:
    return tiny_cohort(tmp_path / "store")


def test_extractors_are_ranked_over_the_subjects(store: CohortStore) -> None:
    said: list[tuple[int, int]] = []
    subject_ids = ["sub-00", "sub-02"]
    found = compare_features(store, EXTRACTORS, subject_ids, lambda *done: said.append(done))
    assert said == [(1, 2), (2, 2)]
    assert sorted(found.subjects.select("extractor", "subject").rows()) == [
        ("contrast", "sub-00"), ("contrast", "sub-02"), ("plain", "sub-00"), ("plain", "sub-02"),
    ]  # fmt: skip
    ranking = found.ranking
    assert ranking["mean"].is_sorted()
    assert ranking["mean"].is_between(0, 1).all()
    shares = found.histograms.group_by("extractor").agg(pl.col("share").sum(), pl.len())
    assert shares["len"].to_list() == [BINS, BINS]
    assert shares["share"].to_list() == pytest.approx([1, 1])


def test_subjects_are_spread_over_the_cohort() -> None:
    names = list("abcdefg")
    assert spread(names, 3) == ["a", "d", "g"]
    assert spread(names, 9) == names


def test_the_overlap_of_a_run_is_set_against_entropy(store: CohortStore, tmp_path: Path) -> None:
    method = method_config("voxelopt", None, ["features=intensity", "levels=2"])
    open_run(tmp_path / "run", store, PlanSettings(method))
    run(tmp_path / "run", store)
    entropy = pl.DataFrame({
        "subject": [f"sub-{number:02d}" for number in range(4)], "mean": [0.1, 0.2, 0.3, 0.4],
    })  # fmt: skip
    found = overlap_of_run(tmp_path / "run", store, entropy)
    assert found["pairs"] == 12
    assert 0.5 < found["dice_mean"] < 1
    of, rows = dict(entropy.rows()), read_rows(tmp_path / "run")
    both = [of[one] + of[other] for one, other in rows.select("fixed", "moving").iter_rows()]
    assert found["spearman"] == pytest.approx(spearmanr(rows["dice_mean"], both).statistic)
    assert abs(found["spearman"]) > 0.05
    with pytest.raises(UsageError, match=r"2 pairs of the compared subjects.*at least 3"):
        overlap_of_run(tmp_path / "run", store, entropy[:2])
    other = tiny_cohort(tmp_path / "other", subjects=5)
    stranger = entropy.with_columns(subject=pl.lit("sub-04"))
    with pytest.raises(UsageError, match="is not a run on"):
        overlap_of_run(tmp_path / "run", other, stranger)


def test_the_command_writes_tables_and_maps(
    store: CohortStore, tmp_path: Path, cohort: Cohort
) -> None:
    run_dir, out = tmp_path / "run", tmp_path / "out"
    cohort("register", store.path, run_dir, "--set", "features=intensity", "--workers", 0)
    shown = cohort("features", store.path, out, "--run", run_dir, "--compare", "features=local")
    assert shown.code == 0
    assert re.search(r"^  features=intensity +mean 0\.", shown.out, re.MULTILINE)
    assert "over 12 pairs, rank correlation with entropy" in shown.out
    assert (out / "entropy.png").read_bytes().startswith(b"\x89PNG")
    assert set(pl.read_csv(out / "entropy.csv")["extractor"]) == {
        "features=local", "features=intensity",
    }  # fmt: skip
    document = cohort("features", store.path, out, "--json").json
    assert len(document["ranking"]) == 3
    refused = cohort("features", store.path, out, "--compare", "features=nothing")
    assert refused.code == 2
    assert "features" in refused.err


@pytest.mark.slow
def test_features_of_a_run_are_those_of_its_own_method(
    store: CohortStore, tmp_path: Path, cohort: Cohort
) -> None:
    run_dir, out = tmp_path / "run", tmp_path / "out"
    settings = ("iterations=1", "levels=2")
    options = [part for one in settings for part in ("--set", one)]
    cohort("register", store.path, run_dir, "--method", "dio", *options, "--workers", 0)
    shown = cohort("features", store.path, out, "--run", run_dir, "--compare", "features=local")
    assert shown.code == 0, shown.err
    found = pl.read_csv(out / "entropy.csv")
    own = found.filter(extractor="dio: features=intensity")
    extractor = RunSpec.load(run_dir).method.settings.build().features
    expected = compare_features(store, {"own": extractor}, ["sub-00"], lambda *_: None)
    assert own.filter(subject="sub-00")["mean"].item() == pytest.approx(
        expected.subjects["mean"].item()
    )
    assert set(found["extractor"]) == {"dio: features=intensity", "features=local"}


def test_learned_features_of_a_run_and_those_that_are_named_are_the_same(
    store: CohortStore, tmp_path: Path, cohort: Cohort
) -> None:
    small = Architecture(kind="unet_encoder", width=4, channels=4)
    features = LearnedFeatures(
        weights=Weights.of(small.build().state_dict()), architecture=small, spacing_mm=(4.0,) * 3
    )
    path, run_dir, out = tmp_path / "own.safetensors", tmp_path / "run", tmp_path / "out"
    save_features(path, features, {})
    said = ("features=learned", f"weights={path}")
    settings = [part for one in said for part in ("--set", one)]
    planned = cohort("register", store.path, run_dir, *settings, "--workers", 0)
    assert planned.code == 0, planned.err
    assert RunSpec.load(run_dir).method.settings.voxel_mm == store.grid.spacing_mm
    shown = cohort("features", store.path, out, "--run", run_dir, "--compare", " ".join(said))
    assert shown.code == 0, shown.err
    assert pl.read_csv(out / "entropy.csv")["extractor"].n_unique() == 1
