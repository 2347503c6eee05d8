"""Crumbs: who died over which pair, and who only died with its driver."""

from pathlib import Path

import pytest

from cohort.engine.breadcrumbs import Breadcrumbs, Pair, blame_of, crumbs_path, history_of
from cohort.errors import StorageError

A, B, C = ("a", "b"), ("a", "c"), ("b", "c")


def said(epoch: int, by: str, what: str, *pairs: Pair) -> dict[str, object]:
    return {"epoch": epoch, "by": by, "what": what, "pairs": pairs}


def died(epoch: int, by: str, *pairs: Pair) -> list[dict[str, object]]:
    return [said(epoch, by, "begin"), said(epoch, by, "start", *pairs)]


def test_a_process_that_died_with_its_driver_blames_nobody() -> None:
    records = [*died(1, "p", A), *died(2, "q", A), *died(3, "r", A), *died(4, "s", A)]
    assert blame_of(records, epoch=5).deaths == {}


def test_a_process_that_died_while_its_driver_lived_blames_its_pair() -> None:
    records = [*died(1, "p", A), *died(1, "q", A), *died(1, "r", B)]
    assert blame_of(records, epoch=2).deaths == {A: 2}  # who was last may have died with its driver
    assert blame_of(records, epoch=1).deaths == {A: 2, B: 1}
    assert blame_of(records, epoch=1).verdict(A) is None
    records += died(1, "s", A)
    code, message = blame_of(records, epoch=1).verdict(A) or ("", "")
    assert code == "E_CRASH"
    assert "three times" in message
    assert blame_of(records, epoch=1).verdict(B) is None


def test_what_came_to_its_end_is_not_blamed() -> None:
    records = [*died(1, "p", A), said(1, "p", "end", A), *died(1, "p", B)[1:], *died(1, "q", C)]
    assert blame_of(records, epoch=2).deaths == {B: 1}


def test_records_of_two_processes_at_once_are_kept_apart() -> None:
    first, second = died(1, "p", A), died(2, "q", B)
    mixed = [first[0], second[0], first[1], second[1], said(1, "p", "end", A)]
    assert blame_of(mixed, epoch=2).deaths == {B: 1}


def test_a_pair_that_did_not_end_is_not_tried_again() -> None:
    records = [*died(1, "p", A), said(1, "p", "timeout", A)]
    blame = blame_of(records, epoch=9)
    assert blame.deaths == {}
    assert (blame.verdict(A) or ("",))[0] == "E_TIMEOUT"


def test_the_pairs_of_a_batch_are_suspects_and_not_guilty() -> None:
    records = [*died(1, "p", A, B), *died(1, "q", C, B), said(1, "q", "timeout", C, B)]
    blame = blame_of(records, epoch=1)
    assert (blame.deaths, blame.timed_out) == ({}, frozenset())
    assert blame.suspects == {A, B, C}
    assert blame.verdict(B) is None


def test_crumbs_come_back_from_the_file(tmp_path: Path) -> None:
    unfinished = []
    for _ in range(3):
        crumbs = Breadcrumbs(tmp_path, "t", epoch=7)
        with crumbs.around([C]):
            pass
        unfinished.append(crumbs.around([A]))
        unfinished[-1].__enter__()  # and the process dies
    with crumbs_path(tmp_path, "t").open("a") as file:
        file.write('{"epoch": 7, "by": "x", "wh')  # a torn line
    crumbs = Breadcrumbs(tmp_path, "t", epoch=7)
    assert crumbs.blame.deaths == {A: 3}
    assert history_of(tmp_path, 7, "t").begun == 4
    assert history_of(tmp_path, 8, "t").begun == history_of(tmp_path, 7, "other").begun == 0


@pytest.mark.parametrize(
    "line",
    [
        "null",
        "[]",
        '{"epoch": 1}',
        '{"epoch": 1, "by": "p", "what": "start"}',
        '{"epoch": 1, "by": "p", "what": "start", "pairs": 3}',
    ],
)
def test_lines_that_are_no_crumbs_are_passed_over(tmp_path: Path, line: str) -> None:
    path = crumbs_path(tmp_path, "t")
    path.parent.mkdir()
    path.write_text(f"{line}\n\xff\n")
    crumbs = Breadcrumbs(tmp_path, "t", epoch=1)
    assert crumbs.blame.deaths == {}
    crumbs.close()


def test_crumbs_that_cannot_be_written_stop_the_run(tmp_path: Path) -> None:
    (tmp_path / "crumbs").write_text("a file")
    with pytest.raises(StorageError, match="crumbs"):
        Breadcrumbs(tmp_path, "t", epoch=1)


def test_an_error_within_a_pair_is_no_death(tmp_path: Path) -> None:
    crumbs = Breadcrumbs(tmp_path, "t", epoch=1)
    with pytest.raises(ValueError, match="odd"), crumbs.around([A]):
        raise ValueError("odd")
    crumbs.close()
    again = Breadcrumbs(tmp_path, "t", epoch=1)
    assert again.blame.deaths == {}
    again.close()
