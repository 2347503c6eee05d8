"""What a worker keeps: within its budget, the oldest goes first, and sizes are asked seldom."""

from cohort.engine.at_hand import AtHand


class Growing:
    """A value that counts how often it was asked for its size."""

    def __init__(self, size: int) -> None:
        self.size, self.asked = size, 0

    def measured(self) -> int:
        self.asked += 1
        return self.size


def at_hand(budget: int) -> AtHand[int, Growing]:
    return AtHand(budget, Growing.measured, fewest=1)


def test_the_oldest_goes_first_and_what_is_named_last() -> None:
    kept = at_hand(30)
    for key in range(3):
        kept.keep(key, Growing(10))
    kept.name([0])
    kept.keep(3, Growing(10))
    assert [key in kept for key in range(4)] == [True, False, True, True]
    assert kept.size == 30


def test_a_value_that_is_kept_again_or_taken_counts_once() -> None:
    kept = at_hand(30)
    for _ in range(5):
        kept.keep(0, Growing(10))
    kept.keep(1, Growing(20))
    assert len(kept) == 2
    taken = kept.take(0)
    assert taken is not None
    assert kept.take(0) is None
    kept.keep(2, Growing(10))
    assert len(kept) == 2
    kept.name([])
    kept.drop_unnamed()
    kept.keep(3, Growing(30))
    kept.keep(4, Growing(0))
    assert len(kept) == 2


def test_what_grew_counts_from_the_next_tile_on() -> None:
    kept, first = at_hand(30), Growing(10)
    kept.keep(0, first)
    kept.keep(1, Growing(10))
    first.size = 20
    kept.name([1])
    kept.keep(2, Growing(5))
    assert [key in kept for key in range(3)] == [False, True, True]


def test_a_new_value_asks_no_other_for_its_size() -> None:
    """Thousands at hand took milliseconds a subject, where a pair takes as long on a GPU."""
    kept, values = at_hand(100), [Growing(1) for _ in range(200)]
    for key, value in enumerate(values):
        kept.keep(key, value)
    assert len(kept) == 100
    assert {value.asked for value in values} == {1}
