"""The script that measures methods and variants of them, on tiny heads."""

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml
from helpers import PROJECT

from workflows.bench import settings_of

QUICK = ["features=intensity", "levels=2", "solves=1", "squarings=3", "couplings=0.1,1"]


def test_the_configuration_beside_it_is_that_of_the_command_and_two_variants() -> None:
    config = yaml.safe_load((PROJECT / "workflows" / "bench.yaml").read_text())
    settings = settings_of(config)
    assert [one.name for one in settings.variants] == [
        "voxelopt", "voxelopt features=mind", "pdd_net", "dio", "dio transform=freeform",
    ]  # fmt: skip
    assert settings.shapes == ((96, 80, 128), (96, 112, 96))
    assert (settings.workers, settings.batches, settings.store) == ((1, 2), (1,), None)


@pytest.mark.slow
def test_tiny_heads_give_all_tables_and_are_not_measured_twice(tmp_path: Path) -> None:
    config = {
        "methods": [{"method": "voxelopt", "settings": QUICK}],
        "shapes": ["20x22x24"],
        "workers": [1],
        "subjects": 2,
        "compiles": False,
    }
    (tmp_path / "bench.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, PROJECT / "workflows" / "bench.py", tmp_path / "out",
               "--config", tmp_path / "bench.yaml"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    for name in ("cells", "kernels", "end_to_end"):
        table = pl.read_csv(tmp_path / "out" / f"{name}.csv")
        assert len(table)
        if "status" in table.columns:
            assert table["status"].to_list() == ["ok"]
    assert (tmp_path / "out" / "bench.md").is_file()
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "done").iterdir()}
    subprocess.run(command, check=True, capture_output=True)
    assert done == {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "done").iterdir()}
