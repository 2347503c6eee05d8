"""The script that fuses by several rules, on a tiny cohort."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml
from helpers import PROJECT, tiny_cohort

pytestmark = pytest.mark.slow


def test_every_rule_has_its_labels_from_one_set_of_registrations(tmp_path: Path) -> None:
    tiny_cohort(tmp_path / "store", subjects=3)
    config = yaml.safe_load((PROJECT / "workflows" / "fuse.yaml").read_text())
    config |= {
        "targets": "sub-00",
        "select": 2,
        "settings": ["features=intensity", "levels=2", "solves=1", "squarings=3", "couplings=1,2"],
    }
    (tmp_path / "fuse.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, PROJECT / "workflows" / "fuse.py", tmp_path / "store",
               tmp_path / "out", "--config", tmp_path / "fuse.yaml"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    table = pl.read_csv(tmp_path / "out" / "rules.csv")
    assert table["rule"].to_list() == ["majority", "local", "joint"]
    assert table["fused"].is_between(0.5, 1).all()
    done = sorted((tmp_path / "out").glob("*/working/sub-00_dseg.nii.gz"))
    assert len(done) == 3
    stamps = [path.stat().st_mtime_ns for path in done]
    subprocess.run(command, check=True, capture_output=True)
    assert stamps == [path.stat().st_mtime_ns for path in done]
