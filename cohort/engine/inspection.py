"""Whether rows are those that the plan asked for, tile by tile."""

import hashlib
from collections.abc import Iterable, Iterator
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
    """What the plan says of the rows of each tile, as a digest: millions of pairs fit.

    Args:
        run_dir: the run.
        spec: its facts.
    """

    def __init__(self, run_dir: Path, spec: RunSpec) -> None:
        self._fingerprint = spec.fingerprint
        digest = dict(zip(spec.subject_ids, spec.subject_digests, strict=True))
        self._rows: dict[str, tuple[int, bytes]] = {}
        for tile in tiles_of(run_dir, spec):
            keys = [
                (f, m, pair_key(spec.fingerprint, spec.device, digest[f], digest[m]))
                for f, m in tile.pairs
            ]
            self._rows[tile.tile_id] = len(keys), _digest(keys)

    @property
    def tiles(self) -> set[str]:
        """All tiles of the plan."""
        return set(self._rows)

    def fault(self, tile: str, rows: pa.Table) -> str | None:
        """What is wrong with the rows of a tile; None if each of its pairs is there once."""
        if tile not in self._rows:
            return f"the plan has no tile {tile}"
        missing = sorted(set(_NAMES) - set(rows.schema.names))
        if missing:
            return f"its rows have no {', '.join(missing)}"
        said = rows.select(_NAMES).to_pydict()
        count, digest = self._rows[tile]
        if set(said["tile"]) != {tile}:
            return f"its rows are of other tiles than {tile}"
        if set(said["fingerprint"]) != {self._fingerprint} or None in said["status"]:
            return "its rows are of another method, or have no status"
        found = list(zip(said["fixed"], said["moving"], said["pair_key"], strict=True))
        if len(found) != count:
            return f"it has {len(found)} rows, the plan gives tile {tile} {count}"
        if _digest(found) != digest:
            return f"its pairs, or their keys, are not those that the plan gives tile {tile}"
        return None


def by_tile(rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Rows of several tiles, tile by tile."""
    names = rows["tile"].to_pylist()
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    for name, own in places.items():
        yield name, rows.take(own)


def _digest(keys: Iterable[tuple[str | None, ...]]) -> bytes:
    lines = sorted("\t".join(map(str, key)) for key in keys)
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).digest()
