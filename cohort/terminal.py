"""What people see while they wait and when it is done: progress bars and short tables."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

_WATCH_S = 2.0
_MOST_REFUSED = 100  # subjects in quarantine that are listed
# paths and digests stay whole: nothing is wrapped, and no :x: in a name becomes a picture
_console = Console(soft_wrap=True, emoji=False, highlight=False)
# progress too, so that stdout holds the result alone
_errors = Console(stderr=True, soft_wrap=True, emoji=False, highlight=False)


class _RateColumn(ProgressColumn):
    """Pairs or subjects an hour, from the start of the bar."""

    def render(self, task: Task) -> Text:
        if not task.speed:
            return Text("")
        return Text(f"{3600 * task.speed:,.0f}/h", style="progress.data.speed")


_CONTROLS = {ord(one): repr(one)[1:-1] for one in map(chr, (*range(32), *range(127, 160)))}
_CONTROLS.pop(ord("\n"))  # of sentences of several lines


def _plain(message: str) -> str:
    """A message as it is: markup or control codes of a terminal in a name command nothing."""
    return escape(message.translate(_CONTROLS))


@contextmanager
def progress_bar(what: str, *, quiet: bool) -> Iterator[Callable[..., None]]:
    """A bar with rate, failures and time left; call what is yielded with (done, total, failed), and
    with words in place of ``what`` if these change."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("[red]{task.fields[failures]}"),
    )
    bar = Progress(*columns, console=_errors, disable=quiet, speed_estimate_period=600)
    task = bar.add_task(what, total=None, failures="")

    def update(done: int, total: int, failed: int, said: str = what) -> None:
        bar.start()
        failures = f"{failed} failed" if failed else ""
        bar.update(task, description=said, completed=done, total=total, failures=failures)

    try:
        yield update
    finally:
        if bar.live.is_started:  # a command that is refused shows no bar
            bar.stop()


@contextmanager
def waiting(what: str, *, quiet: bool) -> Iterator[None]:
    """Say what takes a while, until it is done."""
    if quiet:
        yield
        return
    with _errors.status(_plain(what)):
        yield


def say(message: str) -> None:
    """One line for people."""
    _console.print(_plain(message))


def say_beside(message: str) -> None:
    """One line for people beside the result, above the progress bar; log files have it too."""
    _errors.print(_plain(message))


def say_dashboard(address: str) -> None:
    """Where the dashboard is."""
    say_beside(f"dashboard {address}")


def say_json(document: dict[str, Any]) -> None:
    """One JSON object on stdout, for machines."""
    _console.print(json.dumps(document, default=str), markup=False)


def caution(message: str) -> None:
    """What people should know and no command refuses, on stderr."""
    _errors.print(f"[bold yellow]caution[/] {_plain(message)}")


def complain(message: str) -> None:
    """One error for people, on stderr."""
    _errors.print(f"[bold red]error[/] {_plain(message)}")


def say_table(title: str, rows: Mapping[str, object]) -> None:
    """Two columns: a name and a value."""
    _console.print(f"[bold]{_plain(title)}[/]")
    width = max(map(len, rows))
    for name, value in rows.items():
        say(f"  {name:{width}}  {value}")


def say_columns(title: str, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table of several columns."""
    _console.print(f"[bold]{_plain(title)}[/]")
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in (titles, *rows):
        say("  " + "  ".join(f"{value:>{width}}" for value, width in zip(row, widths, strict=True)))


def say_list(title: str, lines: Sequence[str]) -> None:
    """A heading and what belongs under it."""
    _console.print(f"[bold]{_plain(title)}[/]")
    for line in lines:
        say(f"  {line}")


def say_quarantine(quarantined: Mapping[str, Mapping[str, str]]) -> None:
    """The first refused subjects with a code and a sentence each; nothing if there are none."""
    if quarantined:
        shown = islice(quarantined.items(), _MOST_REFUSED)
        say_table(
            "in quarantine", {name: f"{one['code']}: {one['message']}" for name, one in shown}
        )
        if len(quarantined) > _MOST_REFUSED:
            say(f"  and {len(quarantined) - _MOST_REFUSED:,} more, see --json")


def watch(title: str, look: Callable[[], tuple[Mapping[str, object], bool]]) -> None:
    """A table that is drawn anew in one place; ``look`` gives its rows, and whether to go on.

    Ctrl-C is a way to end it like any other.
    """
    with suppress(KeyboardInterrupt), Live(console=_console, auto_refresh=False) as live:
        goes_on = True
        while goes_on:
            start = time.monotonic()
            rows, goes_on = look()
            width = max(map(len, rows))
            lines = [title, *(f"  {name:{width}}  {value}" for name, value in rows.items())]
            live.update(Text("\n".join(lines)), refresh=True)
            if goes_on:  # a large run takes long to read: look at it a small part of the time
                time.sleep(max(_WATCH_S, 5 * (time.monotonic() - start)))


def say_comparison(
    page: Path, titles: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]
) -> None:
    """Runs side by side, what was done to compare them, and where the page is."""
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in (titles, *rows):
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        say("  ".join(cells).rstrip())
    for sentence in notes:
        say(sentence)
    say(str(page))


def as_json(report: Any) -> dict[str, Any]:
    """A dataclass as JSON-ready fields."""
    return asdict(report)
