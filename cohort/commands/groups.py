"""Options that go together: which pairs, by which method, and how a driver goes about it.

Who works on it, on what device, is in :mod:`cohort.commands.crew`.
"""

from dataclasses import dataclass

from cohort.config.method import MethodConfig, method_asked
from cohort.engine.choices import PlanSettings
from cohort.engine.families import families_of
from cohort.engine.run import DriverOptions
from cohort.engine.spec import Device
from cohort.options import (
    Assignments,
    AtlasLabels,
    Batch,
    Config,
    KeepDisplacements,
    KeepFeatures,
    KeepUncertainty,
    MethodName,
    Metrics,
    Pairs,
    PairTimeout,
    Seed,
    Steal,
    TileSize,
    TrustCode,
)


@dataclass(frozen=True)
class Pairing:
    """Which pairs a run registers, what is measured of them, and what of it is kept."""

    pairs: Pairs = None
    atlas_labels: AtlasLabels = None
    metrics: Metrics = None
    keep_uncertainty: KeepUncertainty = None
    keep_displacements: KeepDisplacements = None
    seed: Seed = None
    tile_size: TileSize = None

    def planned(self, choice: "MethodChoice", device: Device | None, workers: int) -> PlanSettings:
        """The settings of a run by so many workers.

        Raises:
            UsageError: as :meth:`MethodChoice.config_asked` and
                :func:`cohort.engine.families.families_of` do.
        """
        return PlanSettings(
            method=choice.config_asked(),
            pairs=self.pairs,
            seed=self.seed,
            tile_size=self.tile_size,
            trust_code=choice.trust_code,
            atlas_labels=self.atlas_labels,
            metrics=None if self.metrics is None else families_of(self.metrics),
            keep_uncertainty=self.keep_uncertainty,
            keep_displacements=self.keep_displacements,
            device=device,
            workers=workers,
        )


@dataclass(frozen=True)
class MethodChoice:
    """By which method."""

    method: MethodName = None
    config: Config = None
    assignments: Assignments = None
    trust_code: TrustCode = False

    def config_asked(self) -> MethodConfig | None:
        """The method with its settings; None if nothing was said.

        Raises:
            UsageError: as :func:`cohort.config.method.method_config` does.
        """
        return method_asked(self.method, self.config, self.assignments)


@dataclass(frozen=True)
class Driving:
    """How one driver goes about it; no result depends on this."""

    batch: Batch = None
    keep_features: KeepFeatures = False
    pair_timeout: PairTimeout = None
    steal: Steal = False

    def options(self, *, trust_code: bool, retry_failed: bool = False) -> DriverOptions:
        """What the engine is asked for."""
        return DriverOptions(
            self.steal, retry_failed, self.pair_timeout, self.batch, trust_code, self.keep_features
        )
