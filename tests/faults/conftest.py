"""What fault tests share: the stub method in this process, a store for it, undisturbed rows."""

import polars as pl
import pytest
import stub_method
from fault_runs import decided, planned

from cohort.config.method import MethodConfig
from cohort.data.store import CohortStore
from cohort.engine import pair_faults
from cohort.engine.run import run


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stub in the place of every method."""
    monkeypatch.setattr(MethodConfig, "build", MethodConfig.build)  # put back afterwards
    monkeypatch.setattr(pair_faults, "check_device", pair_faults.check_device)
    stub_method.install()


@pytest.fixture(scope="session")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> CohortStore:
    """Twelve subjects, 132 ordered pairs; no test changes it."""
    return stub_method.stub_cohort(tmp_path_factory.mktemp("twelve") / "cohort.zarr", 12)


@pytest.fixture(scope="session")
def undisturbed(twelve: CohortStore, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """The rows of all their pairs from a plain loop that nothing disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MethodConfig, "build", MethodConfig.build)
        patch.setattr(pair_faults, "check_device", pair_faults.check_device)
        stub_method.install()
        run_dir = planned(tmp_path_factory.mktemp("undisturbed") / "run", twelve)
        run(run_dir, twelve)
        return decided(run_dir)
