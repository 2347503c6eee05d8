"""One thread for torch: the bits that tests compare are those that workers compute."""

import sys

import pytest
import torch
from command_line import Cohort, Shown

torch.set_num_threads(1)


@pytest.fixture
def cohort(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cohort:
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
