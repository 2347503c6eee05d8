"""Pictures of the pairs that a report shows."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohort.data.places import Where
from cohort.engine.regenerate import regenerate_pair
from cohort.engine.workbench import Workbench
from cohort.errors import CohortError, UsageError
from cohort.report.figures import mosaic
from cohort.report.views import View, pair_views

Progress = Callable[[int, int], None]
"""Called with the number of mosaics that are done, and of all."""


@dataclass(frozen=True)
class Picture:
    """A mosaic of a pair as a data URI and further views, or the reason why there are none.

    It has outlines where the fixed subject has labels.
    """

    uri: str = ""
    missing: str = ""
    views: tuple[View, ...] = ()
    has_outlines: bool = False


def pictures_of(
    run_dir: Path,
    store_path: Where | None,
    pairs: list[tuple[Any, ...]],
    trust_code: bool,
    progress: Progress | None,
) -> dict[tuple[str, str], Picture]:
    """A mosaic of each pair; what keeps one from being made is told in its place."""
    try:
        workbench = Workbench.open(run_dir, store_path, trust_code=trust_code)
    except UsageError as error:
        return {pair: Picture(missing=error.message) for pair in pairs}
    pictures = {}
    for done, (fixed, moving) in enumerate(pairs, start=1):
        try:
            images = regenerate_pair(workbench, fixed, moving)
            has_outlines = images.fixed_labels is not None
            picture = Picture(mosaic(images), "", pair_views(images), has_outlines)
        except CohortError as error:
            picture = Picture(missing=error.message)
        pictures[fixed, moving] = picture
        if progress is not None:
            progress(done, len(pairs))
    return pictures
