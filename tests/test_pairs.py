"""Which pairs each design gives, on four subjects."""

from pathlib import Path

import numpy as np
import pytest

from cohort.engine.pairs import _parsed_pairs, select_pairs
from cohort.errors import UsageError

SUBJECTS = ("a", "b", "c", "d")


def named(design: str, seed: int = 0) -> list[str]:
    """The pairs as ``fixed`` + ``moving``."""
    pairs = select_pairs(design, SUBJECTS, seed)
    found = pairs.within(0, 0, len(SUBJECTS))
    assert found.dtype == np.int32
    assert len(found) == pairs.n_pairs
    return [SUBJECTS[fixed] + SUBJECTS[moving] for fixed, moving in found]


def csv_file(folder: Path, content: str) -> str:
    path = folder / "pairs.csv"
    path.write_text(content)
    return str(path)


@pytest.mark.parametrize(
    ("design", "expected"),
    [
        ("all", "ab ac ad ba bc bd ca cb cd da db dc"),
        ("unordered", "ab ac ad bc bd cd"),
        ("atlas:b", "ab cb db"),
        ("to:b", "ba bc bd"),
        ("random:12", "ab ac ad ba bc bd ca cb cd da db dc"),
    ],
)
def test_each_design_gives_its_pairs(design: str, expected: str) -> None:
    assert sorted(named(design)) == expected.split()


@pytest.mark.parametrize("count", [1, 5, 11])
def test_random_pairs_are_seeded_and_never_repeat(count: int) -> None:
    design = f"random:{count}"
    pairs = named(design, seed=3)
    assert len(set(pairs)) == count
    assert all(fixed != moving for fixed, moving in pairs)
    assert named(design, seed=3) == pairs


def test_another_seed_gives_other_pairs() -> None:
    assert len({tuple(named("random:3", seed)) for seed in range(5)}) > 1


def test_a_csv_gives_its_pairs(tmp_path: Path) -> None:
    # a mark of the byte order, another column and an empty line, as spreadsheets leave them
    path = csv_file(tmp_path, "\ufefffixed,note,moving\nd,x,a\n\na,y,d\n")
    assert named(path) == ["ad", "da"]


def test_a_csv_is_read_row_by_row() -> None:
    class Rows:
        def __init__(self) -> None:
            self.line_num = 0
            self.rows = [["fixed", "moving"], ["a", "b"], ["a", "a"]]

        def __iter__(self) -> "Rows":
            return self

        def __next__(self) -> list[str]:
            self.line_num += 1
            return self.rows.pop(0)  # IndexError if the whole table is read before its pairs are

    with pytest.raises(UsageError, match=r"pairs\.csv line 3 has a subject with itself: a, a"):
        _parsed_pairs(Path("pairs.csv"), Rows(), {"a": 0, "b": 1})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("fixed,moving\na,b\n\nx,b\n", r"line 4: no subject 'x' in the store, which holds a, b"),
        ("fixed,moving\na,b\na\n", r"line 3: no subject ''"),
        ("fixed,moving\na,b\nb,b\n", r"line 3 has a subject with itself: b, b"),
        ("fixed,moving\na,b\nb,a\na,b\n", r"line 4 has a pair for the second time: a, b"),
        ("a,b\nb,c\n", r"needs the columns fixed,moving and a pair a row; found a, b and 1 rows"),
        ("fixed,moving\n", r"found fixed, moving and 0 rows"),
        ("", r"found no columns and 0 rows"),
        ('fixed,moving\n"a,b\n', r"cannot be read as CSV: unexpected end of data"),
    ],
    ids=[
        "unknown subject", "missing cell", "itself", "twice", "no header", "no rows", "empty",
        "open quote",
    ],
)  # fmt: skip
def test_a_wrong_csv_names_its_line(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        named(csv_file(tmp_path, content))
    assert caught.value.code == "E_PAIRS"
    assert "pairs.csv" in caught.value.message


@pytest.mark.parametrize(
    ("design", "message"),
    [
        ("every", "unknown pairs 'every'; possible: all, unordered, atlas:SUBJECT"),
        ("atlas:x", "atlas:x: no subject 'x' in the store, which holds a, b, c, d"),
        ("to:", "no subject ''"),
        ("random:0", "needs K from 1 to 12 for 4 subjects, got '0'"),
        ("random:13", "needs K from 1 to 12 for 4 subjects, got '13'"),
        ("random:many", "got 'many'"),
        ("nowhere.csv", "nowhere.csv cannot be read as CSV"),
    ],
)
def test_an_impossible_design_says_what_is_possible(design: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        named(design)
    assert caught.value.code == "E_PAIRS"


def test_one_subject_makes_no_pair() -> None:
    with pytest.raises(UsageError, match="at least 2 subjects, the store has 1"):
        select_pairs("all", ("a",), 0)
