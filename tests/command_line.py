"""The command line as tests call it: in this process, with what it prints."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple


class Shown(NamedTuple):
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.out)


Cohort = Callable[..., Shown]
