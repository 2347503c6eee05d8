"""What a worker leaves behind before and after each pair, so that its death can be explained.

``RUN/crumbs/TILE.jsonl``, one JSON object a line. A line goes to the system at once, so that it
outlives a process that is killed; nothing is made durable, as a power cut blames nobody.
"""

import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cohort.data.storage import storage_error
from cohort.errors import DeviceLostError

Pair = tuple[str, str]
FOLDER = "crumbs"
_DEATHS = 3  # after so many a pair is not tried again
_CRASH = (
    "its worker process died while it was at work on this pair, three times, see its stderr;"
    " --pair-timeout SECONDS gives longer to one that holds Python's lock,"
    " `cohort register --retry-failed` tries it again"
)
_TIMEOUT = (
    "it took longer than a pair may take and its worker process was ended; --pair-timeout SECONDS"
    " gives it longer, `cohort register --retry-failed` tries it again"
)


@dataclass(frozen=True)
class Blame:
    """What earlier attempts at a tile say of its pairs.

    Attributes:
        deaths: how often a worker died over a pair.
        timed_out: pairs that did not come to an end.
        suspects: pairs of a batch over which a worker died; each is to be tried alone.
    """

    deaths: Mapping[Pair, int] = field(default_factory=dict)
    timed_out: frozenset[Pair] = frozenset()
    suspects: frozenset[Pair] = frozenset()

    def verdict(self, pair: Pair) -> tuple[str, str] | None:
        """Code and sentence of a pair that is not to be tried again; None for all others."""
        if pair in self.timed_out:
            return "E_TIMEOUT", _TIMEOUT
        return ("E_CRASH", _CRASH) if self.deaths.get(pair, 0) >= _DEATHS else None


class Breadcrumbs:
    """The crumbs of one attempt at a tile; close it when the tile is done.

    Args:
        run_dir: the run.
        tile_id: the tile.
        epoch: of the driver that gave it out, see :mod:`cohort.engine.lock`.

    Raises:
        StorageError: if they cannot be read or written.
    """

    def __init__(self, run_dir: Path, tile_id: str, epoch: int) -> None:
        self._path = crumbs_path(run_dir, tile_id)
        self._who = {"epoch": epoch, "by": uuid.uuid4().hex[:12]}
        try:
            self._path.parent.mkdir(exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
            self._file = os.open(self._path, flags, 0o666)
            with open(self._file, "rb", closefd=False) as earlier:
                self.blame = blame_of(_records(earlier.read()), epoch)
        except OSError as error:
            raise storage_error(self._path, error) from error
        self._write("begin", ())

    @contextmanager
    def around(self, pairs: Sequence[Pair]) -> Iterator[None]:
        """Mark that these pairs are at work.

        Only the death of the process leaves it so, or that of its card, after which it ends too.
        """
        self._write("start", pairs)
        try:
            yield
        except DeviceLostError:
            raise
        except BaseException:
            self._write("end", pairs)
            raise
        self._write("end", pairs)

    def timeout(self, pairs: Sequence[Pair]) -> None:
        """Say that these pairs do not come to an end; the process is about to."""
        self._write("timeout", pairs)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def _write(self, what: str, pairs: Sequence[Pair]) -> None:
        line = json.dumps({**self._who, "what": what, "pairs": pairs}) + "\n"
        if what == "begin":
            line = f"\n{line}"  # after what a dying process did not finish
        try:
            os.write(self._file, line.encode())
        except OSError as error:
            raise storage_error(self._path, error) from error


def crumbs_path(run_dir: Path, tile_id: str) -> Path:
    """Where the crumbs of a tile lie."""
    return run_dir / FOLDER / f"{tile_id}.jsonl"


class History(NamedTuple):
    """What crumbs say of a tile that a driver gave out.

    Attributes:
        begun: how many processes have been at work on it for this driver.
        settled: pairs that are not tried again, as they are to blame.
    """

    begun: int = 0
    settled: int = 0


def history_of(run_dir: Path, epoch: int, tile_id: str) -> History:
    """The history of a tile whose last process is dead, for this driver."""
    try:
        content = crumbs_path(run_dir, tile_id).read_bytes()
    except OSError:  # a tile that nobody began; whoever does will meet any other fault
        return History()
    records = list(_records(content))
    blame = blame_of(records, epoch)
    tried = {*blame.deaths, *blame.timed_out}
    return History(
        len({record["by"] for record in records if record["epoch"] == epoch}),
        sum(blame.verdict(pair) is not None for pair in tried),
    )


def sweep_crumbs(run_dir: Path, tile_ids: Iterable[str]) -> None:
    """Remove the crumbs of tiles that are committed; none is no error.

    Raises:
        StorageError: if they cannot be removed.
    """
    for tile_id in tile_ids:
        path = crumbs_path(run_dir, tile_id)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(path, error) from error


def blame_of(records: Iterable[Mapping[str, Any]], epoch: int) -> Blame:
    """Who is to blame for the deaths that the records show.

    A process is dead if its driver gave the tile out once more: in an older epoch all but the last
    one at work, in the present ``epoch`` all of them. The last one of an older epoch may have died
    with its driver, which is nobody's fault.
    """
    at_work: dict[tuple[int, str], list[Pair]] = {}
    timeouts: list[list[Pair]] = []
    for record in records:
        process, pairs = (record["epoch"], record["by"]), record["pairs"]
        at_work[process] = pairs if record["what"] == "start" else []
        if record["what"] == "timeout":
            timeouts.append(pairs)
    last = {process[0]: process for process in at_work}
    dead = [
        pairs
        for process, pairs in at_work.items()
        if pairs and (process[0] == epoch or process != last[process[0]])
    ]
    deaths: dict[Pair, int] = {}
    for pairs in dead:
        if len(pairs) == 1:
            deaths[pairs[0]] = deaths.get(pairs[0], 0) + 1
    timed_out = frozenset(pairs[0] for pairs in timeouts if len(pairs) == 1)
    batches = (pairs for pairs in [*dead, *timeouts] if len(pairs) > 1)
    return Blame(deaths, timed_out, frozenset(pair for pairs in batches for pair in pairs))


def _records(content: bytes) -> Iterator[dict[str, Any]]:
    for line in content.splitlines():
        try:
            record = json.loads(line)
            pairs = [(str(fixed), str(moving)) for fixed, moving in record["pairs"]]
            yield {**{name: record[name] for name in ("epoch", "by", "what")}, "pairs": pairs}
        except (ValueError, KeyError, TypeError):  # cut off by a death
            continue
