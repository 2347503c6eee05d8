"""What a worker is told before its first tile."""

from dataclasses import dataclass
from pathlib import Path

from cohort.data.places import Where
from cohort.engine.workbench import Workbench


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How to open a run's workbench, in this process or in another.

    Attributes:
        run_dir: the run.
        store: where its cohort is now.
        workers: that share a machine's memory; of a given scheduler they are counted once there.
        on_one_card: of these, how many share a card's.
        batch: pairs that are registered at once; None for what the device takes.
        keep_features: whether features are kept in the store, and taken from there.
        trust_code: whether code that the method's settings name may be run.
        epoch: of the driver, see :mod:`cohort.engine.lock`.
        pair_timeout_s: how long a pair may take before its process is ended; None for far longer
            than those before it.
    """

    run_dir: Path
    store: Where
    workers: int = 1
    on_one_card: int = 1
    batch: int | None = None
    keep_features: bool = False
    trust_code: bool = False
    epoch: int = 0
    pair_timeout_s: float | None = None

    def open(self) -> Workbench:
        """Open the workbench; raises as :meth:`cohort.engine.workbench.Workbench.open` does."""
        workbench = Workbench.open(
            self.run_dir,
            self.store,
            self.workers,
            self.on_one_card,
            trust_code=self.trust_code,
            batch=self.batch,
        )
        workbench.keeps_features = self.keep_features
        return workbench
