"""What a calibration found on one machine, as a plan keeps it."""

from pydantic import BaseModel, ConfigDict

from cohort.engine.simulate import Costs


class Measured(BaseModel):
    """Seconds and bytes of a run's parts, each the median of what was seen.

    Attributes:
        pair_s: to register a pair and measure it.
        prepare_s: a subject's features.
        read_s: to read and check a subject.
        tile_s: the commit of a tile.
        start_s: from the start of a worker process to its first tile.
        subject_bytes: memory that a subject at hand takes, features and all.
        stored_bytes: of a subject in the store, all arrays, before compression.
        row_bytes: of a pair in its part.
        worker_bytes: memory of a worker process beside the subjects it keeps.
        device_bytes: the same on its card; 0 on a CPU.
        processes: that were at work at once.
        pairs: that were registered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pair_s: float
    prepare_s: float
    read_s: float
    tile_s: float
    start_s: float
    subject_bytes: int
    stored_bytes: int
    row_bytes: float
    worker_bytes: int
    device_bytes: int = 0
    processes: int
    pairs: int

    @property
    def costs(self) -> Costs:
        """The same for a simulation, on machines whose store is as quick as this one's."""
        return Costs(
            pair_s=self.pair_s,
            prepare_s=self.prepare_s,
            read_s=self.read_s,
            subject_bytes=self.stored_bytes,
            tile_s=self.tile_s,
            start_s=self.start_s,
        )
