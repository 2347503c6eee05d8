"""The dashboard of a run's workers: where it is served, and what refuses it."""

import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from command_line import Cohort
from small_cohort import write_cohort
from small_run import QUICK

from cohort.data.ingest import IngestSettings, ingest
from cohort.data.store import CohortStore
from cohort.engine.choices import PlanSettings
from cohort.engine.plan import open_run
from cohort.engine.run import run
from cohort.engine.team import Team
from cohort.errors import UsageError

needs_bokeh = pytest.mark.skipif(
    find_spec("bokeh") is None, reason="needs bokeh, the extra `dashboard`"
)


@pytest.fixture
def store(tmp_path: Path) -> CohortStore:
    settings = IngestSettings(grid="16x16x16@2mm", align="center")
    ingest(write_cohort(tmp_path / "source"), tmp_path / "cohort.zarr", settings)
    return CohortStore.open(tmp_path / "cohort.zarr")


@needs_bokeh
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of bokeh
def test_the_dashboard_answers_on_the_loopback_address_alone(
    store: CohortStore, tmp_path: Path
) -> None:
    pages: dict[str, str] = {}

    def look(address: str) -> None:
        with urlopen(address, timeout=30) as answer:
            pages[address] = answer.read().decode()

    open_run(tmp_path / "run", store, PlanSettings(QUICK, "random:2"))
    report = run(tmp_path / "run", store, team=Team(1), on_dashboard=look)
    assert (report.pairs, report.failed) == (2, 0)
    (address,) = pages
    assert urlsplit(address).hostname == "127.0.0.1"
    assert "<title>Dask Diagnostic UI</title>" in pages[address]
    with pytest.raises(OSError, match="refused"):
        look(address)


def test_without_bokeh_the_extra_is_named(
    store: CohortStore, tmp_path: Path, cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("bokeh", "distributed.dashboard.scheduler"):
        monkeypatch.setitem(sys.modules, module, None)  # type: ignore[arg-type]
    done = cohort("register", store.path, tmp_path / "run", "--workers", "1", "--dashboard")
    assert done.code == 2
    assert "E_DASHBOARD" in done.err
    assert "pip install 'triton-reg[dashboard]'" in done.err
    assert not (tmp_path / "run").exists()


def test_without_workers_there_is_nothing_to_serve(store: CohortStore, tmp_path: Path) -> None:
    open_run(tmp_path / "run", store, PlanSettings(QUICK, "random:2"))
    with pytest.raises(UsageError, match=r"E_DASHBOARD: .*--workers 0 starts none; need 1 or more"):
        run(tmp_path / "run", store, on_dashboard=print)
