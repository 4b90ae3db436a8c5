from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recsys.errors import DataDirError, NoModel
from recsys.evaluation.compare import Score
from recsys.evaluation.gate_record import CANDIDATE, Decision, GateRecord
from recsys.evaluation.metrics import Interval
from recsys.operations.rollback import previous_version
from recsys.storage.data_dir import DataDir
from recsys.storage.files import Storage
from recsys.storage.rounds import RoundLog, RoundRecord
from recsys.storage.verified import VerifiedFile, VerifyRecord
from tests.builders import make_model
from tests.unit.test_models import save
from trainer.metrics import TrainerMetrics

AT = datetime(2026, 11, 22, 10, 15, tzinfo=UTC)


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}")


def record(version: str = "v1", state: str = "succeeded", **more: object) -> RoundRecord:
    fields = {"kind": "retrain", "asked_by": "schedule", "started_at": AT.isoformat(), "finished_at": AT.isoformat()}
    published = {"published": state == "succeeded"}
    return RoundRecord.model_validate({**fields, **published, "state": state, "version": version, **more})


def gate(decision: Decision = Decision.PUBLISHED) -> GateRecord:
    interval = Interval(0.25, 0.2, 0.3, 90)
    score = Score(CANDIDATE, "all users", "new", 20, interval, interval, interval, 0.5, 4.0)
    return GateRecord(decision=decision, scores=[score], cut=AT.isoformat())


def test_records_come_back_the_newest_first_whatever_the_clock_says(storage: Storage) -> None:
    rounds = RoundLog(storage)
    assert list(rounds.newest_first()) == []
    made = [record("v1", gate=gate()), record("v2", "failed", error="no"), record("v3", "rejected")]
    for at, one in zip((AT, AT - timedelta(days=3), AT - timedelta(days=9)), made, strict=True):
        rounds.add(one, at=at)
    assert list(rounds.newest_first()) == made[::-1]
    assert [one.version for one in rounds.publications()] == ["v1"]


def test_only_the_newest_records_are_kept_and_failures_push_no_publication_out(storage: Storage) -> None:
    rounds = RoundLog(storage)
    rounds.add(record("live", kind="rollback"), at=AT)
    for number in range(205):
        rounds.add(record(f"v{number}", "failed"), at=AT - timedelta(minutes=number))  # by a clock that was set back
    kept = [one.version for one in rounds.newest_first()]
    assert kept == [*(f"v{number}" for number in range(204, 4, -1)), "live"]
    assert rounds.last_of("live") == (record("live", kind="rollback"), True)
    assert rounds.last_of("v204") == (None, False)


def test_lists_that_were_written_later_change_nothing_about_who_chose_the_model(storage: Storage) -> None:
    rounds = RoundLog(storage)
    rounds.add(record("v1", "failed", published=True, gate=gate(Decision.FORCED)), at=AT)
    interrupted, chosen = rounds.last_of("v1")
    assert interrupted is not None
    assert (interrupted.state, chosen) == ("failed", True)
    rounds.add(record("v1", kind="refresh"), at=AT)
    completed, chosen = rounds.last_of("v1")
    assert completed is not None
    assert (completed.state, chosen) == ("succeeded", True)


def test_a_record_can_be_completed(storage: Storage) -> None:
    rounds = RoundLog(storage)
    path = rounds.add(record(), at=AT)
    rounds.write(path, record(durations_s={"fit": 2.0}))
    assert [one.durations_s for one in rounds.newest_first()] == [{"fit": 2.0}]


def test_a_damaged_record_is_passed_over(storage: Storage, caplog: pytest.LogCaptureFixture) -> None:
    rounds = RoundLog(storage)
    rounds.add(record("v1"), at=AT)
    path = rounds.add(record("v2"), at=AT + timedelta(hours=1))
    storage.write_file(path, b"{")
    assert [one.version for one in rounds.publications()] == ["v1"]
    assert "is damaged and was skipped; remove it" in caplog.text


def test_an_operators_choice_is_a_rollback_or_a_forced_model() -> None:
    assert record(kind="rollback").is_choice
    assert record(gate=gate(Decision.FORCED)).is_choice
    assert not record(gate=gate()).is_choice
    assert not record().is_choice


def test_the_model_before_is_the_one_that_was_live_before_and_is_kept(storage: Storage) -> None:
    rounds = RoundLog(storage)
    first, second, third = (save(storage, make_model(seed=n), AT + timedelta(hours=n))[0] for n in range(3))
    with pytest.raises(NoModel):
        previous_version(DataDir.of(storage), live=first)
    for number, version in enumerate((first, "gone", second, third)):
        rounds.add(record(version), at=AT + timedelta(hours=number))
    assert previous_version(DataDir.of(storage), live=third) == second
    assert previous_version(DataDir.of(storage), live=second) == first  # not the one that is gone
    rounds.add(record(second, kind="rollback"), at=AT + timedelta(hours=9))
    assert previous_version(DataDir.of(storage), live=second) == third  # a rollback can be taken back
    assert previous_version(DataDir.of(storage), live="from elsewhere") == second


def test_metrics_tell_of_rounds() -> None:
    metrics = TrainerMetrics()
    metrics.note(record(gate=gate(), durations_s={"fit": 2.5}, counts={"events": 99}))
    metrics.note(record(state="failed", error="no"))

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"recsys_trainer_{name}", labels)

    assert value("rounds_total", state="succeeded", decision="published") == 1
    assert value("rounds_total", state="failed", decision="") == 1
    assert value("stage_seconds", stage="fit") == 2.5
    assert value("model", what="events") == 99
    assert value("quality", metric="ndcg@20_new") == 0.25
    assert value("last_round_timestamp_seconds", state="succeeded") == AT.timestamp()


def test_metrics_tell_of_the_rounds_before_a_restart(storage: Storage) -> None:
    rounds, metrics = RoundLog(storage), TrainerMetrics()
    later = AT + timedelta(hours=1)
    for made in (
        record("v1", gate=gate(), durations_s={"fit": 2.5}),
        record("v1", kind="rollback"),
        record("v2", "rejected", gate=gate(Decision.REJECTED)),
    ):
        rounds.add(made, at=AT)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"recsys_trainer_{name}", labels)

    for _ in range(30):
        rounds.add(record("v3", "failed", error="no", finished_at=later.isoformat()), at=later)
    metrics.restore(rounds)
    assert value("last_round_timestamp_seconds", state="succeeded") == AT.timestamp()
    assert value("last_round_timestamp_seconds", state="failed") == later.timestamp()
    assert value("stage_seconds", stage="fit") == 2.5
    assert value("rounds_total", state="rejected", decision="rejected") is None, "it was not this process"


def test_what_a_verification_found_comes_back_and_a_damaged_file_is_named(storage: Storage) -> None:
    verified = VerifiedFile(storage)
    assert verified.read() is None
    found = VerifyRecord(at=AT, users=1_000, differences=2)
    verified.write(found)
    assert verified.read() == found
    storage.write_file("verified.json", b'{"users": -1}')
    with pytest.raises(DataDirError, match=r"verified.json is damaged; remove it, then run recsys verify again"):
        verified.read()


def test_a_record_that_is_too_large_or_no_file_is_passed_over(tmp_path: Path) -> None:
    rounds = RoundLog(Storage(str(tmp_path)))
    kept = rounds.add(record("v1"), at=AT)
    planted = tmp_path / kept.replace(".json", "~000001.json")
    for plant in (
        lambda: planted.write_text(record("v2", error="x" * 300_000).model_dump_json()),
        lambda: os.mkfifo(planted),
        lambda: planted.symlink_to("/dev/zero"),
    ):
        plant()
        assert [found.version for found in rounds.newest_first()] == ["v1"]
        planted.unlink()
