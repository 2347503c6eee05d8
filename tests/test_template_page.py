"""The page of a template, and the script that makes one."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from helpers import PROJECT, tiny_cohort
from small_run import QUICK, damage

from cohort.config.atlas import AtlasSettings
from cohort.errors import StorageError
from cohort.report.fusion import dice_plot
from cohort.report.template import write_template_page
from cohort.report.template_figures import fit_plot
from cohort.studies.atlas.build import build_template
from cohort.studies.atlas.one_pass import Build


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three subjects, one of them damaged."""
    folder = tmp_path_factory.mktemp("page")
    store = tiny_cohort(folder / "cohort.zarr", subjects=4)
    damage(store, "sub-02")
    settings = AtlasSettings(subjects=store.subject_ids, method=QUICK, name="mean-b")
    build_template(Build(store, folder / "out", settings), 2)
    return folder / "out"


def test_the_page_shows_the_passes_and_everyone(made: Path) -> None:
    page = write_template_page(made).read_text()
    assert page.count("data:image/png") == 2
    assert page.count("data:image/svg+xml") == 2
    assert "1 subject could not be registered" in page
    assert "sub-02" in page
    assert "<h1>mean-b</h1>" in page
    assert not re.search(r'(src|href)="https?:', page)
    assert "3 of 4" in page


@pytest.mark.slow
def test_equal_templates_have_equal_pages(made: Path) -> None:
    first = write_template_page(made).read_bytes()
    assert write_template_page(made).read_bytes() == first


def test_what_is_not_there_is_told(made: Path, tmp_path: Path) -> None:
    del made
    with pytest.raises(StorageError, match="cannot be read"):
        write_template_page(tmp_path)


@pytest.mark.slow
def test_the_script_makes_a_template(tmp_path: Path) -> None:
    tiny_cohort(tmp_path / "store", subjects=3)
    config = yaml.safe_load((PROJECT / "workflows" / "atlas.yaml").read_text())
    config |= {
        "iterations": 2,
        "set": ["features=intensity", "levels=2", "solves=1", "squarings=3", "couplings=1,2"],
    }
    (tmp_path / "atlas.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, PROJECT / "workflows" / "atlas.py", tmp_path / "store",
               tmp_path / "out", "--config", tmp_path / "atlas.yaml"]  # fmt: skip
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "pass 2: drift" in shown
    assert (tmp_path / "out" / "index.html").exists()
    assert (tmp_path / "out" / "tpl-template" / "tpl-template_dseg.nii.gz").exists()


def test_tens_of_thousands_of_subjects_are_a_picture_that_opens() -> None:
    likeness = np.linspace(0.5, 0.9, 20_000).tolist()
    assert len(fit_plot([0.0] * 20_000, likeness, 3.0)) < 300_000
    fused = pl.DataFrame(dict.fromkeys(("likest_dice", "best_dice", "fused"), likeness))
    assert len(dice_plot(fused)) < 300_000
