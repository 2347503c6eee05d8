"""A published protocol on a user's data: scans onto their grid, training, one run a setting.

    OUT/CASE/cohort.zarr           the scans that are registered
    OUT/CASE/FOLD/pairs.csv        the protocol's pairs
    OUT/CASE/FOLD/train/           the training scans, on the same grid, and the model
    OUT/CASE/FOLD/SETTING/         a run

Each step goes on where it was: the same call does what is left.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from cohort.config.protocol import TRAINED, Case, Fold, Protocol, Setting, Training
from cohort.config.training import training_config
from cohort.data.storage import storage_error
from cohort.data.store import CohortStore
from cohort.engine.choices import PlanSettings
from cohort.engine.families import families_of
from cohort.engine.plan import open_run
from cohort.engine.run import DriverOptions, run
from cohort.engine.spec import Device
from cohort.engine.team import PLAIN, Team
from cohort.errors import UsageError
from cohort.studies.protocol_scans import Scan, chosen, find_scans, ingest_scans, write_pairs
from cohort.studies.train import train
from cohort.studies.training_plan import TrainingTask

_FAMILIES = families_of("surface,deformation")


@dataclass(frozen=True)
class Resources:
    """What a protocol is run with.

    Attributes:
        weights: a file that takes the place of training.
        team: registers.
        device: kind of device that trains and registers; the CPU.
        trust_code: whether code that settings name may be run.
    """

    weights: Path | None = None
    team: Team = PLAIN
    device: Device | None = None
    trust_code: bool = False


class Registered(NamedTuple):
    """The runs of one setting on one case, one a fold."""

    case: Case
    setting: Setting
    run_dirs: tuple[Path, ...]


def settings_with(protocol: Protocol, weights: Path | None) -> list[Setting]:
    """The settings that can be run: those with a model only where one is trained or given.

    Raises:
        UsageError: ``E_WEIGHTS`` if the weights are no file, or none is left.
    """
    if weights is not None and not weights.is_file():
        raise UsageError("E_WEIGHTS", f"{weights} is no file; need the weights of a model")
    able = protocol.training is not None or weights is not None
    kept = [one for one in protocol.settings if able or not one.trained]
    if not kept:
        raise UsageError("E_WEIGHTS", "every setting takes weights, and there are none; give some")
    return kept


def run_protocol(
    protocol: Protocol,
    data: Path,
    out: Path,
    resources: Resources | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> list[Registered]:
    """Do what a protocol says, case by case; found to be done already, it is not done again.

    Args:
        protocol: see :class:`cohort.config.protocol.Protocol`.
        data: folder below which its patterns find the scans.
        out: folder of everything that is made.
        resources: see :class:`Resources`; the CPU and this process by default.
        say: told what is done now.

    Raises:
        UsageError: ``E_SOURCE`` if scans are missing or of no use, ``E_CONFIG`` if a fold names
            none, ``E_WEIGHTS`` as :func:`settings_with` does, ``E_PLAN_MISMATCH`` if the folder
            holds other settings.
        StorageError: if a file cannot be read or written.
    """
    given = resources or Resources()
    settings = settings_with(protocol, given.weights)
    found = {case.name: find_scans(data, case) for case in protocol.cases}  # before any work
    splits = {
        case.name: [_split(fold, found[case.name]) for fold in protocol.folds]
        for case in protocol.cases
    }
    done = []
    for case in protocol.cases:
        job = _Job(protocol, case, found[case.name], out / case.name, given, say)
        done += job.registered(settings, splits[case.name])
    return done


class _Split(NamedTuple):
    fold: Fold
    train: list[Scan]
    test: list[Scan]


def _split(fold: Fold, scans: Sequence[Scan]) -> _Split:
    train_on = [] if fold.train is None else chosen(fold.train, scans, f"{fold.name}: train")
    test_on = chosen(fold.test, scans, f"{fold.name}: test")
    if len(test_on) < 2:
        raise UsageError("E_CONFIG", f"{fold.name}: test: pairs need two scans, got {len(test_on)}")
    both = {scan.subject for scan in train_on} & {scan.subject for scan in test_on}
    if both:
        said = f"{fold.name}: {', '.join(sorted(both))} would be trained on and registered"
        raise UsageError("E_CONFIG", said)
    return _Split(fold, train_on, test_on)


@dataclass(frozen=True)
class _Job:
    """One case of a protocol in its folder."""

    protocol: Protocol
    case: Case
    scans: list[Scan]
    out: Path
    given: Resources
    say: Callable[[str], None]

    def registered(self, settings: Sequence[Setting], splits: Sequence[_Split]) -> list[Registered]:
        """The runs of every setting, all folds of it."""
        tested = {scan.subject for split in splits for scan in split.test}
        self.say(f"{self.case.name}: {len(tested)} scans onto {self.case.grid}")
        store = self._store(self.out, [scan for scan in self.scans if scan.subject in tested])
        runs: dict[str, list[Path]] = {one.name: [] for one in settings}
        for split in splits:
            folder = self.out / split.fold.name
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise storage_error(folder, error) from error
            count = write_pairs(folder / "pairs.csv", split.test, self.protocol.pairs)
            weights = self._weights(folder, split) if any(o.trained for o in settings) else None
            for one in settings:
                self.say(f"{self.case.name}, {split.fold.name}: {one.title}, {count} pairs")
                runs[one.name].append(self._run(store, folder, one, weights))
        return [Registered(self.case, one, tuple(runs[one.name])) for one in settings]

    def _store(self, folder: Path, scans: list[Scan]) -> CohortStore:
        structures, workers = self.protocol.structures, self.given.team.size
        return ingest_scans(folder, self.case, scans, self.scans, structures, workers)

    def _weights(self, folder: Path, split: _Split) -> Path | None:
        if self.given.weights is not None or self.protocol.training is None:
            return self.given.weights
        self.say(f"{self.case.name}, {split.fold.name}: training on {len(split.train)} scans")
        store = self._store(folder / TRAINED, split.train)
        return _trained(store, folder / TRAINED / "model", self.protocol.training, self.given)

    def _run(
        self, store: CohortStore, folder: Path, setting: Setting, weights: Path | None
    ) -> Path:
        run_dir, team = folder / setting.name, self.given.team
        plan = PlanSettings(
            setting.config(weights),
            str(folder / "pairs.csv"),
            metrics=_FAMILIES,
            device=self.given.device,
            workers=max(team.size, 1),
            trust_code=self.given.trust_code,
        )
        spec = open_run(run_dir, store, plan)
        options = DriverOptions(trust_code=self.given.trust_code)
        run(run_dir, store, team=team.no_more_than(spec.n_tiles), options=options)
        return run_dir


def _trained(store: CohortStore, out: Path, training: Training, given: Resources) -> Path:
    """The model of a training that holds nobody back: its store has its fold's scans alone."""
    chosen_recipe = training_config(
        training.method,
        None,
        list(training.set),
        store.grid.spacing_mm,
        steps=training.steps,
        supervision=training.supervision,
    )
    device = torch.device(given.device or "cpu")
    (fold,) = train(store, out, TrainingTask(*chosen_recipe), device=device)
    return fold.model
