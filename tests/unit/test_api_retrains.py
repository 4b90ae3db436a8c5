"""Which round served a request."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from api.routes.operating import served_by
from recsys.storage.files import Storage
from recsys.storage.rounds import RoundLog, RoundRecord

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def rounds(folder: Path, *records: tuple[int, str] | tuple[int, str, str]) -> RoundLog:
    """Keep records of (number, version, kind), the oldest first."""
    log = RoundLog(Storage(str(folder)))
    for number, version, *kind in records:
        log.add(
            RoundRecord(
                kind=kind[0] if kind else "retrain", asked_by="request", request=number, started_at="", finished_at="",
                state="succeeded", version=version,
            ),
            at=NOON,
        )  # fmt: skip
    return log


def served(log: RoundLog, number: int) -> str:
    found = served_by(log, number)
    return "" if found is None else found.version


def test_it_is_the_first_one_with_this_number_or_a_higher_one(tmp_path: Path) -> None:
    log = rounds(tmp_path, (1, "a"), (1, "scheduled"), (4, "b"), (4, "rolled back", "rollback"), (5, "c"))
    assert [served(log, number) for number in (1, 2, 3, 4, 5, 6)] == ["a", "b", "b", "b", "c", ""]


def test_numbers_of_a_redis_that_was_emptied_do_not_count(tmp_path: Path) -> None:
    log = rounds(tmp_path, (7, "old"), (8, "old"), (1, "a"), (2, "b"))
    assert [served(log, number) for number in (1, 2, 3)] == ["a", "b", ""]
