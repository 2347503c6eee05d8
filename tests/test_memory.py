"""Work that does not fit: with room, in halves, one by one, and then it is given up."""

from collections.abc import Sequence

import pytest
import torch

from cohort.engine.memory import in_less_memory, is_out_of_memory


def fitting(most: int, calls: list[int], poison: int | None = None):
    def work(items: Sequence[int]) -> list[str]:
        calls.append(len(items))
        if len(items) > most or poison in items:
            raise MemoryError
        return [f"row {item}" for item in items]

    return work


def give_up(item: int) -> str:
    return f"no row {item}"


def test_what_fits_is_done_at_once() -> None:
    calls, rooms = [], []
    rows = in_less_memory(fitting(8, calls), range(8), rooms.append, give_up)
    assert rows == [f"row {item}" for item in range(8)]
    assert (calls, rooms) == ([8], [])


def test_a_batch_is_halved_until_it_fits() -> None:
    calls, rooms = [], []
    rows = in_less_memory(fitting(2, calls), list(range(7)), rooms.append, give_up)
    assert rows == [f"row {item}" for item in range(7)]
    assert calls == [7, 3, 1, 2, 4, 2, 2]
    assert rooms == [list(range(7)), [0, 1, 2], [3, 4, 5, 6]]


def test_one_that_never_fits_is_given_up_and_the_others_are_not() -> None:
    calls: list[int] = []
    rows = in_less_memory(fitting(4, calls, poison=2), [1, 2, 3], lambda _: None, give_up)
    assert rows == ["row 1", "no row 2", "row 3"]


def test_one_alone_is_tried_once_more_with_room() -> None:
    room: list[Sequence[int]] = []

    def work(items: Sequence[int]) -> list[str]:
        if not room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return ["row"]

    assert in_less_memory(work, [5], room.append, give_up) == ["row"]


def test_other_errors_pass() -> None:
    def work(items: Sequence[int]) -> list[str]:
        raise RuntimeError("a shape is wrong")

    with pytest.raises(RuntimeError, match="shape"):
        in_less_memory(work, [1, 2], lambda _: None, give_up)


def test_torch_says_in_words_that_main_memory_is_short() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**58, dtype=torch.uint8)
    assert is_out_of_memory(refused.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("Triton Error [CUDA]: out of memory"))
    assert not is_out_of_memory(RuntimeError("no such voxel"))
    assert not is_out_of_memory(ValueError("not enough memory of the past"))
