"""What becomes of errors: one sentence, and an exit code that scripts can tell apart.

0 all good, 1 some pairs or subjects failed, 2 wrong usage, 3 the run is active elsewhere,
4 storage, 5 workers or scheduler lost; 129, 130, 143 stopped by a signal (SIGHUP, Ctrl-C, SIGTERM)
or, 130, by ``cohort stop``.
"""

import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from cohort import terminal
from cohort.data.interrupts import endings_unwound
from cohort.engine.stop import Stopped
from cohort.errors import CohortError, StorageError

_USAGE, _INTERRUPTED = 2, 130  # what typer makes of wrong usage, and of Ctrl-C
_SIGNALLED = (_INTERRUPTED, 128 + signal.SIGTERM, 128 + signal.SIGHUP)
_STOPPED = "stopped; the same command goes on from here"


def ended(call: Callable[[], object]) -> None:
    """Call; errors become one sentence, with ``--json`` an object too, and an exit code."""
    try:
        with endings_unwound():
            call()
    except CohortError as error:
        _fail(error)
    except OSError as error:
        _fail(StorageError("E_STORAGE", f"{error}. Nothing committed is lost; run again"))
    except SystemExit as stop:
        if stop.code in _SIGNALLED:
            terminal.complain(_STOPPED)
        if stop.code == _USAGE and "--json" in sys.argv:
            # said on stderr; who reads JSON is told at least that
            _say("E_USAGE", "the command line is wrong; stderr says where")
        raise
    except KeyboardInterrupt:
        terminal.complain(_STOPPED)
        sys.exit(_INTERRUPTED)
    except Stopped as stop:
        terminal.complain(_STOPPED)
        sys.exit(stop.exit_code)


def _fail(error: CohortError) -> NoReturn:
    if "--json" in sys.argv:
        _say(error.code, error.message)
    terminal.complain(str(error))
    sys.exit(error.exit_code)


def _say(code: str, message: str) -> None:
    terminal.say_json({"error": {"code": code, "message": message}})
