"""One thread for torch: the bits that tests compare are those that workers compute."""

import signal
import sys
from collections.abc import Iterator

import pytest
import torch
from command_line import Cohort, Shown

torch.set_num_threads(1)


@pytest.fixture
def signals_heard() -> Iterator[None]:
    """As in a terminal, also where the suite runs behind ``&`` or ``nohup``, which ignore some."""
    in_terminal = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, how) for number, how in in_terminal.items()}
    yield
    for number, how in before.items():
        signal.signal(number, how)


@pytest.fixture
def cohort(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, signals_heard: None
) -> Cohort:
    """Run one command in this process."""
    from cohort import cli  # not for all tests: it takes seconds

    def call(*arguments: object) -> Shown:
        monkeypatch.setattr(sys, "argv", ["cohort", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        code = stopped.value.code
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        return Shown(code if isinstance(code, int) else 0, printed.out, printed.err)

    return call
