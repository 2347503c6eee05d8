"""One torch thread for as long as sums must not depend on the number of cores."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums depend on the number of threads; workers have one, so a plain loop has one too."""
    import torch  # here, so that ingest without registration needs none

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
