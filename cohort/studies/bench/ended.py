"""How a process ended that should have measured something."""

import subprocess

_LAST = 400  # characters of what it said


def end_of(done: subprocess.CompletedProcess[str]) -> str:
    """For a process that failed, with what it said last on its standard output."""
    if done.returncode < 0:
        return f"its process was ended by signal {-done.returncode}, often for want of memory"
    return f"its process ended with {done.returncode}: {done.stdout.strip()[-_LAST:]}"
