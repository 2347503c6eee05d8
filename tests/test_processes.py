import os
import signal
import subprocess
import sys
import time
from pathlib import Path

_PARENT = """
import os, signal, sys, time
from pathlib import Path
from cohort.data.processes import in_processes

def work(folder):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(0.2)

if __name__ == "__main__":
    for number, _ in enumerate(in_processes(work, [sys.argv[1]] * 40, 2)):
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def _is_alive(number: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    script, seen = tmp_path / "parent.py", tmp_path / "seen"
    script.write_text(_PARENT)
    seen.mkdir()
    # not pipes, which the processes would hold open
    died = subprocess.run([sys.executable, script, seen], stdout=subprocess.DEVNULL, check=False)
    assert died.returncode == -signal.SIGKILL
    children = [int(path.name) for path in seen.iterdir()]
    deadline = time.monotonic() + 20
    try:
        while any(map(_is_alive, children)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(children) == 2
        assert not [one for one in children if _is_alive(one)]
    finally:
        for one in filter(_is_alive, children):
            os.kill(one, signal.SIGKILL)
