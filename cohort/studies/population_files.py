"""What a population analysis leaves on disk: tables, facts, and lists of subjects."""

import io
import shlex
from pathlib import Path
from typing import Any

from cohort.data.storage import storage_error, to_json, write_atomic
from cohort.studies.population import Population
from cohort.studies.population_folder import FACTS, LISTS, PAIRS, SUBJECTS, TRIANGLES


def write_population(found: Population, out: Path) -> None:
    """Write ``subjects.csv``, ``pairs.parquet``, ``triangles.csv``, ``population.json`` and the ids
    of each group as ``clusters/cluster-K.txt``, one a line.

    Raises:
        StorageError: ``E_STORAGE`` if the file system refuses.
    """
    lists = {
        list_path(out, one["cluster"]): "".join(f"{name}\n" for name in one["subjects"])
        for one in found.facts["clusters"]
    }
    parquet = io.BytesIO()
    found.pairs.write_parquet(parquet)
    try:
        (out / LISTS).mkdir(parents=True, exist_ok=True)
        for path in set((out / LISTS).glob("cluster-*.txt")) - lists.keys():
            path.unlink()  # of an earlier analysis with more groups
    except OSError as error:
        raise storage_error(out, error) from error
    for path, names in lists.items():
        write_atomic(path, names.encode())
    write_atomic(out / SUBJECTS, found.subjects.write_csv().encode())
    write_atomic(out / PAIRS, parquet.getvalue())
    write_atomic(out / TRIANGLES, found.triangles.write_csv().encode())
    write_atomic(out / FACTS, to_json(found.facts))  # last: it says that the others are there


def list_path(out: Path, cluster: int) -> Path:
    """Where the ids of a group are."""
    return out / LISTS / f"cluster-{cluster}.txt"


def template_commands(facts: dict[str, Any], out: Path) -> list[str]:
    """The command line that builds a template of each group of two or more."""
    numbers = [one["cluster"] for one in facts["clusters"] if len(one["subjects"]) > 1]
    return [
        shlex.join([
            *("cohort", "atlas", facts["store"], str(out / f"atlas-{number}")),
            *("--subjects", f"@{list_path(out, number)}"),
        ])
        for number in numbers
    ]  # fmt: skip
