"""What a run keeps of its pairs beside their rows, and of which of them."""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cohort.data.geometry import Grid
from cohort.data.storage import remove
from cohort.engine import displacements, sums, uncertainty
from cohort.engine.adding import Adder
from cohort.engine.displacements import Packed, packed
from cohort.engine.registered_pair import spacing_on
from cohort.engine.results import pair_key, part_path
from cohort.engine.scan import Scan
from cohort.engine.spec import RunSpec
from cohort.engine.tiles import Tiles
from cohort.errors import UsageError
from triton_reg import Result

_KEYS = 1 << 128  # pair keys are hashes of so many values
_EXACT = 100_000  # pairs, whose keys are all computed


@dataclass(eq=False)
class Beside:
    """What is to be kept of a tile's pairs until they are all done."""

    uncertainty: dict[tuple[str, str], dict[str, np.ndarray]] = field(default_factory=dict)
    displacements: dict[tuple[str, str], Packed] = field(default_factory=dict)
    added: Adder | None = None

    def note(
        self,
        spec: RunSpec,
        grid: Grid,
        pair: tuple[str, str],
        key: str,
        moving: Scan,
        result: Result,
    ) -> None:
        """Note what the run keeps of one pair's result."""
        if spec.keep_uncertainty:
            self.uncertainty[pair] = uncertainty.said(result.extras)
        if keeps_displacement(spec, key):
            moved = result.displacement
            found = packed(moved, spacing_on(grid, moved.moving_shape))
            if found is not None:
                self.displacements[pair] = found
        if spec.sums:
            self.added = self.added or Adder(spec.sums, grid.shape)
            self.added.add(pair[1], moving, result.displacement)

    def write(self, run_dir: Path, tile_id: str) -> None:
        """Write it all, unless another attempt has committed the tile; raises StorageError."""
        if part_path(run_dir, tile_id).exists():
            return
        uncertainty.keep(run_dir, tile_id, self.uncertainty)
        displacements.keep(run_dir, tile_id, self.displacements)
        folder = run_dir / sums.FOLDER / tile_id
        remove(folder)  # of an attempt that was not committed
        if self.added is not None and self.added.sums is not None:
            sums.write_sums(folder, self.added.sums)
            sums.write_labels(folder, self.added.labels)


def parse_keep(text: str) -> int | None:
    """How many pairs ``none``, ``sample:K`` or ``all`` keeps; None for all of them.

    Raises:
        UsageError: ``E_KEEP`` for anything else.
    """
    kind, _, count = text.partition(":")
    if text in ("none", "all"):
        return 0 if text == "none" else None
    if kind == "sample" and count.isdecimal() and int(count) > 0:
        return int(count)
    raise UsageError("E_KEEP", f"keep-displacements is {text!r}; need none, all or sample:K")


def kept_facts(
    text: str, tiles: Tiles, digests: Mapping[str, str], facts: Mapping[str, Any]
) -> dict[str, str]:
    """What a plan says of the displacements to keep; nothing if there are none.

    A pair is in a sample or not by its own key, in whatever order pairs come: those with the
    smallest keys. Of more than 100,000 pairs the limit is where K are expected to lie.
    """
    count = parse_keep(text)
    if count == 0:
        return {}
    said = {"keep_displacements": text}
    if count is None or count >= tiles.n_pairs:
        return said | {"keep_below": f"{_KEYS - 1:032x}"}
    if tiles.n_pairs > _EXACT:
        return said | {"keep_below": f"{_KEYS * count // tiles.n_pairs:032x}"}
    keys = (
        pair_key(facts["fingerprint"], facts["device"], digests[fixed], digests[moving])
        for tile in tiles
        for fixed, moving in tile.pairs
    )
    return said | {"keep_below": heapq.nsmallest(count, keys)[-1]}


def keeps_displacement(spec: RunSpec, key: str) -> bool:
    """Whether a run keeps the displacement of the pair of this key."""
    return spec.keep_below is not None and key <= spec.keep_below
