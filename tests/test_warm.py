"""Kernels are loaded ahead, and what goes wrong then stops nothing."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from small_cohort import write_cohort
from small_run import planned

from cohort.data.ingest import IngestSettings, ingest
from cohort.data.store import CohortStore
from cohort.engine.measure import measure_pair
from cohort.engine.registered_pair import RegisteredPair
from cohort.engine.warm import warm
from cohort.engine.workbench import Workbench


@pytest.fixture
def workbench(tmp_path: Path) -> Workbench:
    settings = IngestSettings(grid="16x16x16@2mm", align="center")
    ingest(write_cohort(tmp_path / "source"), tmp_path / "cohort.zarr", settings)
    return Workbench.open(planned(tmp_path / "run", CohortStore.open(tmp_path / "cohort.zarr")))


def test_warming_registers_once_and_leaves_nothing_behind(
    workbench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, calls = type(workbench.method), []
    register = kind.register

    def counted(method: object, *arguments: object) -> object:
        calls.append(arguments)
        return register(method, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(kind, "register", counted)
    warm(workbench)
    assert len(calls) == 1
    assert workbench.seconds == {}
    assert list((workbench.run_dir / "parts").iterdir()) == []


def test_warming_takes_every_measure_whose_kernels_a_pair_may_need(
    workbench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[dict[str, object]] = []

    def kept(pair: RegisteredPair, families: Iterable[str]) -> dict[str, object]:
        measured.append(measure_pair(pair, families))
        return measured[-1]

    monkeypatch.setattr("cohort.engine.warm.measure_pair", kept)
    warm(workbench)
    [found] = measured
    assert {"ncc", "dice", "epe_mm", "folding", "displacement_mean_mm"} <= found.keys()


def test_a_method_that_cannot_take_noise_stops_nothing(
    workbench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no noise")

    monkeypatch.setattr(type(workbench.method), "prepare", broken)
    warm(workbench)
