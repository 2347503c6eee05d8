"""The facts of a run, as ``run.json`` keeps them, and how those of two runs differ."""

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from cohort.config.method import MethodConfig
from cohort.config.sums import SumSettings
from cohort.data.geometry import Grid
from cohort.data.storage import storage_error
from cohort.engine.measured import Measured
from cohort.errors import StorageError, UsageError

SCHEMA = 2
Device = Literal["cpu", "cuda"]


class RunSpec(BaseModel):
    """``run.json``: the immutable facts of a run.

    ``atlas`` is the last of the subjects if the pairs name a file: it lies in the run's own store.
    ``keep_below`` is the largest pair key of a sample of displacements to keep, ``kept_bytes`` what
    was expected of them when the run was planned. ``shrink`` divides the working grid's sizes for
    this run; ``sums`` says what it adds up. ``measured`` is what was tried before it was planned.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_schema: Literal[2] = SCHEMA
    plan_digest: str
    created_at: str
    store: str
    store_digest: str
    grid: dict[str, Any]
    subject_ids: tuple[str, ...]
    subject_digests: tuple[str, ...]
    has_labels: bool
    has_truth: bool
    pairs: str
    atlas: str | None = None
    pairs_digest: str
    seed: int
    metrics: tuple[str, ...] = ()
    keep_uncertainty: bool = False
    keep_displacements: str = "none"
    keep_below: str | None = None
    kept_bytes: int | None = None
    shrink: int = 1
    sums: SumSettings | None = None
    n_pairs: int
    n_tiles: int
    tile_size: int
    method: MethodConfig
    fingerprint: str
    device: Device = "cpu"
    measured: Measured | None = None
    versions: dict[str, str]

    def coarser(self, grid: Grid) -> Grid:
        """The grid of the run's subjects, for the working grid of its store."""
        return shrunk(grid, self.shrink)

    @classmethod
    def load(cls, run_dir: Path) -> "RunSpec":
        """Read a run's facts.

        Raises:
            UsageError: ``E_RUN`` if there is no run.
            StorageError: ``E_RUN`` if ``run.json`` is damaged or of another version.
        """
        path = run_dir / "run.json"
        try:
            return cls.model_validate_json(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            message = f"{run_dir} is no run: it has no run.json. `cohort register` makes one"
            raise UsageError("E_RUN", message) from None
        except OSError as error:
            raise storage_error(path, error) from error
        except ValidationError as error:
            first = error.errors()[0]
            what = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
            raise StorageError(
                "E_RUN", f"{path} is damaged or of another version: {what}"
            ) from None


def shrunk(grid: Grid, shrink: int) -> Grid:
    """A grid with sizes divided by ``shrink`` over the same extent."""
    if shrink == 1:
        return grid
    depth, height, width = (max(8, round(size / shrink)) for size in grid.shape)
    return grid.resampled((depth, height, width))


def plan_digest(facts: Mapping[str, Any]) -> str:
    """sha256 over all that a run's results depend on, and how they are cut into tiles."""
    canonical = json.dumps({"run_schema": SCHEMA, **facts}, sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def differences(existing: RunSpec, asked: RunSpec) -> Iterator[str]:
    """What a user would have to change to get the plan that is there."""
    before, now = _choices(existing), _choices(asked)
    for name in before:
        if name in now and before[name] != now[name]:  # another method has other settings
            yield f"{name} was {before[name]}, now {now[name]}"
    stored, there = (
        dict(zip(spec.subject_ids, spec.subject_digests, strict=True)) for spec in (existing, asked)
    )
    changed = sorted(
        name for name in stored.keys() | there.keys() if stored.get(name) != there.get(name)
    )
    if changed:
        names = ", ".join(changed[:5]) + (", ..." if len(changed) > 5 else "")
        yield f"the store has other subjects or another content: {names}"
    elif existing.store_digest != asked.store_digest:
        yield "the store has another grid"
    elif before == now and existing.pairs_digest != asked.pairs_digest:
        yield "the file gives other pairs"
    elif before == now:
        yield f"the method computes otherwise, with {existing.versions}"


def _choices(spec: RunSpec) -> dict[str, Any]:
    own: dict[str, Any] = {"method": spec.method.name}
    own |= {name: getattr(spec, name) for name in ("pairs", "seed", "tile_size", "device")}
    settings = {
        name: "not given" if value is None else value for name, value in spec.method.settings
    }
    own["keep_uncertainty"] = spec.keep_uncertainty
    own["keep_displacements"] = spec.keep_displacements
    own["sums"] = spec.sums.model_dump(mode="json") if spec.sums else "none"
    own["metrics"] = ",".join(spec.metrics) or "none"
    return {**own, **settings}


def current_versions() -> dict[str, str]:
    """Of Python and of the libraries that results depend on."""
    names = ("triton-reg", "torch", "numpy", "zarr", "distributed")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
