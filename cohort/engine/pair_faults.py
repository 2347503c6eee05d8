"""Whose fault it is when something is raised while a pair is at work."""

from collections.abc import Sequence

from cohort.data.storage import is_storage_fault, storage_error
from cohort.engine.device_health import check_device
from cohort.engine.workbench import Workbench
from cohort.errors import StorageError, SubjectError


def pair_fault(
    workbench: Workbench, pairs: Sequence[tuple[str, str]], error: Exception
) -> SubjectError:
    """What is said of pairs after an error, so that the others can go on.

    Args:
        workbench: that registered them.
        pairs: fixed and moving subjects.
        error: what was raised; of a subject's own fault, or ``E_METHOD`` whatever else it is.

    Raises:
        StorageError: if the store or a disk failed, which no other pair would fare better with.
        DeviceLostError: ``E_DEVICE_LOST`` if this process can use its card no more.
    """
    if isinstance(error, StorageError):
        raise error
    if isinstance(error, OSError) and is_storage_fault(error):
        raise storage_error(error.filename or workbench.store.address, error) from error
    check_device(workbench.device, pairs, error)
    if isinstance(error, SubjectError):
        return error
    return SubjectError("E_METHOD", f"{type(error).__name__}: {error}")
