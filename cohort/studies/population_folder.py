"""The folder of a population analysis: what lies in it, and whether it may be written to."""

from pathlib import Path

from cohort.data.storage import storage_error
from cohort.errors import UsageError

SUBJECTS, PAIRS, TRIANGLES, FACTS = (
    "subjects.csv",
    "pairs.parquet",
    "triangles.csv",
    "population.json",
)
LISTS, BLOCKS = "clusters", "triangles"  # folders: ids of each group, finished triangles
_BEGUN = {SUBJECTS, PAIRS, TRIANGLES, LISTS, BLOCKS}  # of an analysis that was stopped


def check_folder(out: Path) -> None:
    """Leave a folder of something else alone, whose tables would be written over.

    Raises:
        UsageError: ``E_POPULATION`` if it is a file, or a folder that holds something else.
        StorageError: if it cannot be read.
    """
    try:
        if out.exists() and not out.is_dir():
            raise UsageError("E_POPULATION", f"{out} is a file; need a new or an empty folder")
        names = {one.name for one in out.iterdir()} if out.exists() else set[str]()
    except OSError as error:
        raise storage_error(out, error) from error
    foreign = sorted(name for name in names - _BEGUN if not name.startswith("."))
    if foreign and FACTS not in names:
        raise UsageError(
            "E_POPULATION",
            f"{out} is no analysis of a population and not empty (it holds {foreign[0]}); need a"
            " new or an empty folder",
        )
