"""Work memory that stays for the next call: what is kept, and what has to go."""

from collections.abc import Iterator

import pytest
import torch

from triton_reg.ops import work_memory
from triton_reg.ops.work_memory import forget_work, kept_keys, kept_work

HOST = torch.device("cpu")


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    forget_work()
    yield
    forget_work()


def work(key: str, size_bytes: int = 1) -> list[str]:
    return kept_work(key, size_bytes, HOST, lambda: [key])


def test_what_is_kept_is_given_again() -> None:
    first = work("a")
    assert work("a") is first
    forget_work()
    assert work("a") is not first


def test_the_oldest_makes_room() -> None:
    quarter = work_memory._ON_HOST // work_memory._SHARE
    for key in "abc":
        work(key, quarter // 3)
    work("a", quarter // 3)
    assert kept_keys() == ["b", "c", "a"]
    work("d", quarter // 2)
    assert kept_keys() == ["a", "d"]


def test_what_is_asked_for_is_kept_however_large() -> None:
    work("a")
    large = work("b", 2**40)
    assert kept_keys() == ["b"]
    assert work("b", 2**40) is large


def test_there_are_never_more_than_a_few() -> None:
    for index in range(40):
        work(str(index))
    assert kept_keys() == [str(index) for index in range(24, 40)]


def test_what_cannot_be_made_is_not_kept() -> None:
    def fails() -> None:
        raise torch.OutOfMemoryError("too large")

    with pytest.raises(torch.OutOfMemoryError, match="too large"):
        kept_work("a", 1, HOST, fails)
    assert kept_keys() == []
