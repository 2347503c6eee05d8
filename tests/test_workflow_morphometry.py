"""The script that makes a template and measures volume changes, on a tiny cohort."""

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import pytest
import yaml
from helpers import PROJECT, tiny_cohort

pytestmark = pytest.mark.slow


def test_a_store_becomes_maps_with_a_design(tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "store", subjects=4)
    rows = [f"{one},{number % 2}" for number, one in enumerate(store.subject_ids)]
    (tmp_path / "groups.csv").write_text("\n".join(["subject,group", *rows, ""]))
    config = yaml.safe_load((PROJECT / "workflows" / "morphometry.yaml").read_text())
    config |= {
        "iterations": 2,
        "fwhm_mm": 4,
        "design": str(tmp_path / "groups.csv"),
        "settings": ["features=intensity", "levels=2", "solves=1", "squarings=3", "couplings=1,2"],
    }
    (tmp_path / "morphometry.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, PROJECT / "workflows" / "morphometry.py", tmp_path / "store",
               tmp_path / "out", "--config", tmp_path / "morphometry.yaml"]  # fmt: skip
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "randomise -i logjacobian.nii.gz" in said
    assert "t of group" in said
    maps = tmp_path / "out" / "morphometry" / "logjacobian.nii.gz"
    image = nib.load(maps)
    assert image.shape == (*store.grid.shape, 4)
    assert image.get_data_dtype() == "float32"
    stamp = maps.stat().st_mtime_ns
    subprocess.run(command, check=True, capture_output=True)
    assert maps.stat().st_mtime_ns == stamp
