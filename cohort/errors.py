"""What can go wrong with a cohort, and whose fault it is.

    CohortError
    ├── UsageError      the command or a setting is wrong; nothing was done        exit code 2
    ├── SubjectError    one subject is broken; it is quarantined, the rest goes on exit code 1
    ├── RunActiveError  another driver holds the run                               exit code 3
    ├── StorageError    the file system is broken; the run stops, resumable        exit code 4
    └── SchedulerError  the workers or their scheduler are gone; resumable         exit code 5
        └── DeviceLostError  their card is

Every error carries a code (``E_TRUNCATED``), which tables and tests compare, and a sentence for
people that says what was found, what is needed and in which file.
"""


class CohortError(Exception):
    """An error with a stable code and a sentence for people."""

    exit_code = 1

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)  # both, so that a worker can send it through pickle
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class UsageError(CohortError):
    """The command, a path or a setting is wrong."""

    exit_code = 2


class SubjectError(CohortError):
    """One subject cannot be used; the others can."""

    exit_code = 1


class RunActiveError(CohortError):
    """Another driver is writing to this run."""

    exit_code = 3


class StorageError(CohortError):
    """The file system failed, or what it returned is damaged beyond one subject."""

    exit_code = 4


class SchedulerError(CohortError):
    """Workers died faster than they could be replaced, or the scheduler is gone."""

    exit_code = 5


class DeviceLostError(SchedulerError):
    """A card failed in a way after which its process can use it no more."""
