"""The folder of a population analysis: what lies in it, and whether it may be written to."""

from pathlib import Path

from cohort.data.own_folder import own_folder

SUBJECTS, PAIRS, TRIANGLES, FACTS = (
    "subjects.csv",
    "pairs.parquet",
    "triangles.csv",
    "population.json",
)
LISTS, BLOCKS = "clusters", "triangles"  # folders: ids of each group, finished triangles
_BEGUN = {SUBJECTS, PAIRS, TRIANGLES, LISTS, BLOCKS}  # of an analysis that was stopped


def check_folder(out: Path) -> None:
    """Make the folder of an analysis, or go on in it; its tables would replace those of others.

    Raises:
        UsageError: ``E_POPULATION`` if it is a file, or a folder that holds something else.
        StorageError: if it cannot be made.
    """
    own_folder(out, "E_POPULATION", "analysis of a population", mark=FACTS, begun=_BEGUN)
