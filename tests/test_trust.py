"""Code in a file runs only where the command at hand says that it may."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import tiny_cohort
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from cohort import cli
from cohort.config.method import method_config
from cohort.data.store import CohortStore
from cohort.engine.choices import PlanSettings
from cohort.engine.plan import open_run
from cohort.engine.results import read_rows
from cohort.engine.run import DriverOptions, run
from cohort.engine.summary import summarise
from cohort.engine.team import Team
from cohort.engine.workbench import Workbench
from cohort.errors import UsageError
from triton_reg import NetworkFeatures, VoxelOpt

# of making such files; that of reading one is for the reader to keep quiet about
pytestmark = pytest.mark.filterwarnings(r"ignore:.torch\.jit\.(script|save). is:DeprecationWarning")
QUICK = ("features=torchscript", "levels=2", "solves=1", "couplings=0.1,1", "squarings=3")
Command = Callable[..., Result]


class Powers(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, volume: Tensor) -> Tensor:
        return self.scale * torch.cat([volume, volume**2], dim=1)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    torch.jit.script(Powers(1.0)).save(tmp_path / "network.pt")
    return tmp_path / "network.pt"


@pytest.fixture
def store(tmp_path: Path) -> CohortStore:
    return tiny_cohort(tmp_path / "cohort.zarr", 3)


@pytest.fixture
def settings(network: Path) -> PlanSettings:
    method = method_config("voxelopt", None, [*QUICK, f"weights={network}"])
    return PlanSettings(method, tile_size=2, trust_code=True)


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call of this on, whatever would run a TorchScript file fails the test."""

    def refuse(*arguments: object, **options: object) -> None:
        pytest.fail("code was loaded without trust")

    return lambda: monkeypatch.setattr(torch.jit, "load", refuse)


def command(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in arguments])


def refused(result: Result) -> bool:
    error = result.exception
    return isinstance(error, UsageError) and error.code == "E_TRUST"


def test_a_trusted_file_is_the_extractor(network: Path) -> None:
    config = method_config("voxelopt", None, ["features=torchscript", f"weights={network}"])
    method = config.build(trust_code=True)
    assert isinstance(method, VoxelOpt)
    assert isinstance(method.features, NetworkFeatures)
    assert method.fingerprint == VoxelOpt(features=method.features).fingerprint
    torch.jit.script(Powers(2.0)).save(network)
    assert config.build(trust_code=True).fingerprint != method.fingerprint


def test_a_file_is_not_even_loaded_without_trust(network: Path, untouched) -> None:
    untouched()
    config = method_config("voxelopt", None, ["features=torchscript", f"weights={network}"])
    with pytest.raises(UsageError, match=r"network\.pt with your rights; .*--trust-code") as caught:
        config.build()
    assert (caught.value.code, caught.value.exit_code) == ("E_TRUST", 2)


def test_trust_is_no_setting(network: Path) -> None:
    with pytest.raises(UsageError, match="unknown setting 'trust_code'"):
        method_config("voxelopt", None, [*QUICK, f"weights={network}", "trust_code=true"])


def test_a_file_that_is_no_network_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.pt").write_text("notes")
    config = method_config("voxelopt", None, [*QUICK, f"weights={tmp_path}/notes.pt"])
    with pytest.raises(UsageError, match=r"notes\.pt is no network to run: ") as caught:
        config.build(trust_code=True)
    assert caught.value.code == "E_WEIGHTS"


def test_each_command_asks_again(
    store: CohortStore, network: Path, tmp_path: Path, untouched
) -> None:
    run_dir, trusting = tmp_path / "run", "--trust-code"
    chosen = [word for one in (*QUICK, f"weights={network}") for word in ("--set", one)]
    assert refused(command("plan", store.path, run_dir, *chosen))
    assert refused(command("register", store.path, run_dir, *chosen, "--workers", 0))
    assert not run_dir.exists()
    assert command("plan", store.path, run_dir, *chosen, trusting, "--no-trial").exit_code == 0
    assert "trust" not in (run_dir / "run.json").read_text()
    # the run is there, as one from someone else would be
    assert refused(command("register", store.path, run_dir, "--workers", 0))
    done = command("register", store.path, run_dir, "--workers", 0, trusting, "--json")
    assert json.loads(done.stdout)["summary"]["ok"] == 6
    untouched()
    assert refused(command("plan", store.path, run_dir))
    assert command("status", run_dir).exit_code == 0


@pytest.mark.slow
def test_a_report_without_trust_has_numbers_and_says_why_there_are_no_pictures(
    store: CohortStore, settings: PlanSettings, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    open_run(run_dir, store, settings)
    run(run_dir, store, options=DriverOptions(trust_code=True))
    page = run_dir / "report" / "index.html"
    assert command("report", run_dir).exit_code == 0
    plain = page.read_text()
    assert "give --trust-code on this command" in plain
    assert "data:image/png" not in plain
    assert command("report", run_dir, "--trust-code").exit_code == 0
    pictured = page.read_text()
    assert "data:image/png" in pictured
    assert "--trust-code" not in pictured
    assert command("report", run_dir).exit_code == 0
    assert page.read_text() == pictured  # nothing has changed since, so nothing is made again


def test_a_file_that_changed_since_the_plan_stops_the_run(
    store: CohortStore, settings: PlanSettings, network: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    open_run(run_dir, store, settings)
    torch.jit.script(Powers(2.0)).save(network)
    with pytest.raises(UsageError, match="the method computes otherwise") as caught:
        open_run(run_dir, store, settings)
    assert caught.value.code == "E_PLAN_MISMATCH"
    with pytest.raises(UsageError, match="a file that they name has changed") as caught:
        run(run_dir, store, options=DriverOptions(trust_code=True))
    assert caught.value.code == "E_PLAN_MISMATCH"
    assert not list((run_dir / "parts").iterdir())


def test_python_asks_too(
    store: CohortStore, settings: PlanSettings, tmp_path: Path, untouched
) -> None:
    open_run(tmp_path / "run", store, settings)
    untouched()
    for call in (Workbench.open, lambda run_dir: run(run_dir, store)):
        with pytest.raises(UsageError, match="--trust-code"):
            call(tmp_path / "run")


@pytest.mark.slow
def test_workers_are_as_trusting_as_their_driver(
    store: CohortStore, settings: PlanSettings, tmp_path: Path
) -> None:
    open_run(tmp_path / "run", store, settings)
    with pytest.raises(UsageError, match="--trust-code"):
        run(tmp_path / "run", store, team=Team(1))
    run(tmp_path / "run", store, team=Team(1), options=DriverOptions(trust_code=True))
    assert summarise(read_rows(tmp_path / "run")).ok == 6
