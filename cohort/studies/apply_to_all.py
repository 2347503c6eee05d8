"""One file of a subject brought to everyone that it was registered to; a stopped call goes on.

``OUT/applied.jsonl`` says in its first line what is brought, then which files are done.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from cohort.data.storage import storage_error, write_atomic
from cohort.engine.pair_faults import pair_fault
from cohort.engine.workbench import Workbench
from cohort.errors import SubjectError, UsageError
from cohort.studies.apply import (
    VOLUMES,
    Applied,
    Task,
    check_owner,
    load,
    refuse_existing,
    write_applied,
)
from cohort.studies.native_space import NativeSubject, Route, native_pair

RECORD = "applied.jsonl"


@dataclass(frozen=True, eq=False)
class AppliedToAll:
    """The results by the subject that they belong to; failed: a code and a sentence each."""

    done: dict[str, Applied]
    failed: dict[str, SubjectError]

    @property
    def volumes(self) -> pl.DataFrame:
        """Of all structures of all subjects."""
        empty = pl.DataFrame(schema=VOLUMES)
        return pl.concat([empty, *(one.volumes for one in self.done.values())])


def apply_to_all(
    workbench: Workbench,
    pairs: Sequence[tuple[str, str]],
    task: Task,
    out: Path,
    progress: Callable[[int, int, int], None] = lambda done, total, failed: None,
) -> AppliedToAll:
    """Bring one file of the moving subject to the fixed subject of every pair, into a folder.

    Args:
        pairs: ``(fixed, moving)`` of the run, all with one moving subject.
        task: images and labels of the moving subject, or points, which then go from it.
        out: a new folder, or one in which the same was begun; for labels it also gets
            ``volumes.csv``.
        progress: called with how many are done, how many there are, and how many failed.

    Raises:
        UsageError: ``E_EXISTS`` if ``out`` holds something else, or the folder around it is not
            there; ``E_APPLY`` if the file is another subject's.
        SubjectError: if the file or the moving subject cannot be used.
        StorageError: if the store or the folder cannot be read or written.
    """
    moving = pairs[0][1]
    loaded = load(task, NativeSubject.of(workbench, moving).choices)
    _check_owner_among(workbench, pairs, task, loaded.sha256)
    names = workbench.store.settings.get("structures") or {}
    found = AppliedToAll(_begun(out, _asked(workbench, moving, task, loaded.sha256)), {})
    for number, (fixed, _) in enumerate(pairs, start=1):
        route = Route(fixed, moving, inverse=task.kind == "points")
        try:
            if fixed not in found.done:
                path = out / task.default_name(onto=fixed, of=fixed)
                pair = native_pair(workbench, route)
                found.done[fixed] = write_applied(pair, task, loaded, path, names)
                _record(out, fixed, found.done[fixed])
        except UsageError:
            raise
        except Exception as error:  # as in a run, whatever the method does to one pair
            found.failed[fixed] = pair_fault(workbench, [(fixed, moving)], error)
        progress(number, len(pairs), len(found.failed))
    if task.kind == "labels":
        write_atomic(out / "volumes.csv", found.volumes.write_csv().encode())
    return found


def _asked(workbench: Workbench, moving: str, task: Task, sha256: str) -> dict[str, Any]:
    """All that the files depend on."""
    return {
        "run": workbench.spec.plan_digest,
        "moving": moving,
        "kind": task.kind,
        "file": sha256,
        "name": task.stem,
        "interpolation": task.interpolation,
    }


def _begun(out: Path, asked: dict[str, Any]) -> dict[str, Applied]:
    """What is done in a folder already, which is made if it is not there."""
    record = out / RECORD
    if not record.exists():
        refuse_existing(out)
        try:
            out.mkdir()
        except OSError as error:
            raise storage_error(out, error) from error
        write_atomic(record, f"{json.dumps(asked)}\n".encode())
        return {}
    lines = [_parsed(line) for line in record.read_text().splitlines()]
    if not lines or lines[0] != asked:
        raise UsageError(
            "E_EXISTS", f"{out} holds what came of another file or run; need the name of a new one"
        )
    kept = [one for one in lines[1:] if one and (out / one["out"]).is_file()]
    # without the line at which the writing stopped: the next one would be part of it
    content = "".join(f"{json.dumps(one)}\n" for one in [asked, *kept])
    write_atomic(record, content.encode())
    return {one["fixed"]: _restored(out, one) for one in kept}


def _parsed(line: str) -> dict[str, Any]:
    """Nothing of a line at which the writing stopped."""
    try:
        return json.loads(line)
    except ValueError:
        return {}


def _record(out: Path, fixed: str, applied: Applied) -> None:
    said = {
        "fixed": fixed,
        "onto": applied.onto,
        "of": applied.of,
        "out": applied.out.name,
        "direction": applied.direction,
        "residual_voxels": applied.residual_voxels,
        "volumes": applied.volumes.rows(),
    }
    with (out / RECORD).open("a") as file:
        file.write(f"{json.dumps(said)}\n")


def _restored(out: Path, said: dict[str, Any]) -> Applied:
    residual = said["residual_voxels"]
    return Applied(
        said["onto"],
        said["of"],
        out / said["out"],
        said["direction"],
        None if residual is None else tuple(residual),
        pl.DataFrame(said["volumes"], schema=VOLUMES, orient="row"),
    )


def _check_owner_among(
    workbench: Workbench, pairs: Sequence[tuple[str, str]], task: Task, digest: str
) -> None:
    owner = NativeSubject.of(workbench, pairs[0][1])
    for fixed, _ in pairs:
        with suppress(SubjectError):  # a broken subject fails when its turn comes
            check_owner(task, digest, owner, NativeSubject.of(workbench, fixed))
