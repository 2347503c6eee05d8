"""A long run takes no more memory at its end than after its start."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import tiny_cohort
from small_run import planned

MEASURED = """
import sys
from pathlib import Path
import psutil
from cohort.data.store import CohortStore
from cohort.engine.run import run

sizes = []
def note(report, total):
    sizes.append((report.pairs, psutil.Process().memory_info().rss / 2**20))

run(Path(sys.argv[1]), CohortStore.open(sys.argv[2]), progress=note)
early = max(size for pairs, size in sizes if 150 < pairs < 350)
print(sizes[-1][0], f"{sizes[-1][1] - early:.1f}")
"""


@pytest.mark.slow
def test_a_thousand_pairs_take_no_more_memory_than_some(tmp_path: Path) -> None:
    store = tiny_cohort(tmp_path / "cohort.zarr", 33)
    run_dir = planned(tmp_path / "run", store, tile_size=4)
    command = [sys.executable, "-c", MEASURED, str(run_dir), str(store.path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    pairs, grown = said.stdout.split()
    assert int(pairs) == 1056
    assert float(grown) < 8, f"grew by {grown} MiB"
