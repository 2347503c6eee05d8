"""The same work on many subjects, in processes that each do one at a time."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import TypeVar

from cohort.data.interrupts import ctrl_c_held
from cohort.errors import SchedulerError

Job = TypeVar("Job")
Done = TypeVar("Done")


def in_processes(work: Callable[[Job], Done], jobs: Sequence[Job], workers: int) -> Iterator[Done]:
    """``work(job)`` for each job, as they are done; with one worker a plain loop.

    The processes end with the one that started them, however that ends.

    Raises:
        SchedulerError: if a process dies.
    """
    if workers <= 1 or len(jobs) <= 1:
        yield from map(work, jobs)
        return
    # spawn: a forked child would inherit the locks of zarr's thread
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)), mp_context=get_context("spawn"), initializer=_end_with_parent
    )
    try:
        with ctrl_c_held():
            futures = [pool.submit(work, job) for job in jobs]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise SchedulerError(
            "E_WORKER_LOST",
            "a worker process died, often for want of memory; what it committed is kept. "
            "Run again, with fewer workers",
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """Watch the process that started this one: killed, it would leave this one waiting for ever."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # what is committed is whole, and nobody waits for the rest
