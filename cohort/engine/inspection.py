"""Whether rows are those that the plan asked for, tile by tile."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from cohort.engine.plan import tiles_of
from cohort.engine.results import SCHEMA, pair_key
from cohort.engine.spec import RunSpec

_NAMES = ["tile", "fixed", "moving", "pair_key", "status", "fingerprint"]
ROW_FACTS = pa.schema([SCHEMA.field(name) for name in _NAMES])


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a run.

    Attributes:
        code: its kind.
        path: of the file; of a subject, where its store is.
        sentence: what was found.
        tile: whose file it is, if it is that of one tile.
    """

    code: str
    path: str
    sentence: str
    tile: str | None = None


class PlannedRows:
    """What the plan says of the rows of each tile, when it is asked for: of millions few may be
    there.

    Args:
        run_dir: the run.
        spec: its facts.
    """

    def __init__(self, run_dir: Path, spec: RunSpec) -> None:
        self.spec = spec
        self._digest = dict(zip(spec.subject_ids, spec.subject_digests, strict=True))
        self._tiles = tiles_of(run_dir, spec)
        self.tiles = {self._tiles.id_of(position) for position in range(len(self._tiles))}

    def fault(self, tile: str, rows: pa.Table) -> str | None:
        """What is wrong with the rows of a tile; None if each of its pairs is there once."""
        if tile not in self.tiles:
            return f"the plan has no tile {tile}"
        missing = sorted(set(_NAMES) - set(rows.schema.names))
        if missing:
            return f"its rows have no {', '.join(missing)}"
        said = rows.select(_NAMES).to_pydict()
        planned = self._keys(tile)
        if set(said["tile"]) != {tile}:
            return f"its rows are of other tiles than {tile}"
        if set(said["fingerprint"]) != {self.spec.fingerprint} or None in said["status"]:
            return "its rows are of another method, or have no status"
        found = list(zip(said["fixed"], said["moving"], said["pair_key"], strict=True))
        if len(found) != len(planned):
            return f"it has {len(found)} rows, the plan gives tile {tile} {len(planned)}"
        if set(found) != planned:
            return f"its pairs, or their keys, are not those that the plan gives tile {tile}"
        return None

    def _keys(self, tile: str) -> set[tuple[str, str, str]]:
        """Fixed and moving subject of each of its pairs, with the key that its row must have."""
        method, device, digest = self.spec.fingerprint, self.spec.device, self._digest
        return {
            (fixed, moving, pair_key(method, device, digest[fixed], digest[moving]))
            for fixed, moving in self._tiles.named(tile).pairs
        }


def by_tile(rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Rows of several tiles, tile by tile."""
    names = rows["tile"].to_pylist()
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    for name, own in places.items():
        yield name, rows.take(own)
