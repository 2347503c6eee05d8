"""The workflow scripts on tiny cohorts."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from helpers import PROJECT, tiny_cohort

pytestmark = pytest.mark.slow


def test_the_ablation_has_the_rows_of_the_paper_and_goes_on_where_it_was(tmp_path: Path) -> None:
    tiny_cohort(tmp_path / "store", subjects=2)
    command = [sys.executable, PROJECT / "workflows" / "voxelopt_ablation.py", tmp_path / "store",
               tmp_path / "out", "--features", "intensity", "--radius", "1", "--set",
               "preset=parity", "downsample=1", "window=1,99"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    table = pl.read_csv(tmp_path / "out" / "ablation.csv")
    switches = table.filter(iterations=6).select("adaptive", "cost_filter")
    assert sorted(switches.rows()) == [(False, False), (False, True), (True, False), (True, True)]
    assert sorted(table["iterations"].unique()) == list(range(1, 10))
    assert table["dice"].is_between(0, 1).all()
    # more coupling can only draw the labels closer to the smooth displacement
    by_iterations = table.filter(pl.col("adaptive") & pl.col("cost_filter")).sort("iterations")
    assert by_iterations["sdlogj"][0] > by_iterations["sdlogj"][-1]
    parts = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")}
    subprocess.run(command, check=True, capture_output=True)
    assert parts == {
        path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")
    }


def test_the_regulariser_is_taken_apart(tmp_path: Path) -> None:
    tiny_cohort(tmp_path / "store", subjects=4)
    command = [sys.executable, PROJECT / "workflows" / "pdd_ablation.py", tmp_path / "store",
               tmp_path / "out", "--folds", "2", "--pairs", "2", "--set", "spacing=5", "width=5",
               "extent=4", "features=intensity"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    table = pl.read_csv(tmp_path / "out" / "ablation.csv")
    rounds = {name for name in table["variant"] if name.startswith("min_convolution")}
    assert {f"min_convolution-{n}" for n in (1, 2, 3, 4)} < rounds
    assert {"none", "gaussian-1", "instance_optimisation"} < set(table["variant"])
    assert table["dice_mean"].is_between(0, 1).all()
    assert table["dice_mean_sd"].is_not_null().all()
    by_name = dict(table.select("variant", "sdlogj").rows())
    assert by_name["min_convolution-2"] < by_name["none"]


def test_a_population_is_registered_and_analysed(tmp_path: Path) -> None:
    tiny_cohort(tmp_path / "store", subjects=4)
    config = tmp_path / "quick.yaml"
    config.write_text("set: [features=intensity, levels=2, solves=1, 'couplings=0.1,1']\n"
                      "metrics: deformation,consistency\ntriangles: 1\nclusters: 2\n")  # fmt: skip
    command = [sys.executable, PROJECT / "workflows" / "population.py", tmp_path / "store",
               tmp_path / "out", "--config", config]  # fmt: skip
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    out = tmp_path / "out" / "population"
    facts = json.loads((out / "population.json").read_text())
    assert facts["distance"] == "root-mean-square displacement in mm"
    assert (facts["ice_from"], facts["ice_pairs"], facts["triangles"]) == ("rows", 6, 4)
    assert len(facts["clusters"]) == 2
    assert "cohort atlas" in told
    page = (out / "index.html").read_text()
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == told
    assert (out / "index.html").read_text() == page
