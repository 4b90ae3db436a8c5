"""The trainer's round, in this process, with a real Redis and the embedded broker."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from recsys.data.event import EventReading
from recsys.data.event_log import EventLog
from recsys.errors import DataDirError, InvalidModel, LockLost, NotEnoughData, NotEnoughNewEvents
from recsys.evaluation.gate_record import Decision
from recsys.files.columns import Columns
from recsys.files.purchases import PurchaseFile
from recsys.kafka.embedded import create_by_asking
from recsys.kafka.producer import Publisher
from recsys.operations.import_history import import_file
from recsys.operations.rollback import roll_back
from recsys.operations.verify import verify
from recsys.redis import Store, open_store
from recsys.runtime.clock import now
from recsys.runtime.progress import ProgressReporter
from recsys.settings import Settings
from recsys.storage.data_dir import DataDir, open_data_dir
from recsys.storage.segments import Segment
from recsys.training import als
from tests.builders import make_event
from tests.shops import habitual_shop, write_parquet
from trainer.metrics import TrainerMetrics
from trainer.report import RoundOutcome, RoundReport
from trainer.round import Round

USERS = 80


@dataclass
class Shop:
    """A trainer's surroundings."""

    settings: Settings
    store: Store
    data_dir: DataDir
    folder: Path

    def import_history(self) -> None:
        self.import_events(habitual_shop(seed=0, n_users=USERS))

    def import_events(self, events: EventLog) -> None:
        write_parquet(events, self.folder / "history.parquet")
        file = PurchaseFile(self.folder / "history.parquet", Columns(), events=EventReading(), now=now())
        rejects = self.folder / "rejects.csv"
        import_file(file, self.data_dir, self.store.users, rejects=rejects, progress=ProgressReporter(), clock=now)

    def round(self, *, force: bool = False, scheduled: bool = False, lost: bool = False) -> RoundOutcome:
        with self.store.trainer_lock.held(ttl_s=60) as lock:
            done = Round(self.settings, self.store, self.data_dir, lock, ProgressReporter(), clock=now)
            done.run(force=force, scheduled=scheduled, lost=lost)
            return done.outcome

    def live(self) -> str:
        pointer = self.store.pointer.read()
        return "" if pointer is None else pointer.version


@contextmanager
def opened(broker: str, redis_url: str, folder: Path, **trainer: object) -> Iterator[Shop]:
    name = f"shop-{uuid.uuid4().hex[:8]}"
    settings = Settings.model_validate(
        {
            "data_dir": str(folder / "data"),
            "kafka": {"bootstrap_servers": broker, "topic": name, "group_id": name},
            "redis": {"url": redis_url, "prefix": name},
            "model": {"factors": 8, "iterations": 3},
            "ranking": {"n": 10},
            "trainer": {"refresh_processes": 1, **trainer},
        }
    )
    create_by_asking(broker, name)
    with open_store(settings) as store:
        yield Shop(settings, store, open_data_dir(settings), folder)


@pytest.fixture
def shop(broker: str, redis_url: str, tmp_path: Path) -> Iterator[Shop]:
    with opened(broker, redis_url, tmp_path) as shop:
        shop.import_history()
        yield shop


def test_a_round_archives_judges_publishes_and_refreshes(shop: Shop) -> None:
    with Publisher(shop.settings.kafka) as publisher:
        publisher.publish(make_event("newcomer", "item-003", timestamp=int(now().timestamp() * 1000)))
    outcome = shop.round()
    assert outcome.published
    assert outcome.live_before == ""
    assert outcome.version == shop.live()
    assert outcome.counts["users"] == USERS + 1
    assert outcome.lists == USERS, "the newcomer's history, and so the list, is the consumer's to write"
    checked = verify(shop.settings, shop.store, shop.data_dir, ProgressReporter(), sample=None, with_stream=False)
    assert {found.user_id for found in checked.differences} == {"newcomer"}, "no consumer has applied that purchase"


def test_the_next_round_compares_its_candidate_with_the_live_model(shop: Shop) -> None:
    first = shop.round()
    second = shop.round()
    assert second.live_before == first.version
    assert second.gate is not None
    assert second.gate.live == first.version
    assert second.gate.difference is not None
    assert shop.data_dir.models.manifest(second.version).twin_sha256


def test_a_scheduled_round_waits_for_new_events(broker: str, redis_url: str, tmp_path: Path) -> None:
    with opened(broker, redis_url, tmp_path, min_new_events=1) as shop:
        shop.import_history()
        first = shop.round(scheduled=True)
        with pytest.raises(NotEnoughNewEvents, match="0 new events since model"):
            shop.round(scheduled=True)
        assert shop.live() == first.version
        assert shop.round().published, "a round that somebody asks for does not wait"


def test_a_fit_without_finite_numbers_is_a_failed_round_with_a_reason(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = shop.round()
    monkeypatch.setattr(
        als, "fit", lambda confidences, *_, **__: np.full((confidences.shape[1], 4), np.nan, np.float32)
    )
    with pytest.raises(InvalidModel, match=r"not finite, with alpha 1 and regularization 20; choose others"):
        shop.round()
    assert shop.live() == first.version


def test_without_purchases_there_is_nothing_to_train_on(broker: str, redis_url: str, tmp_path: Path) -> None:
    with opened(broker, redis_url, tmp_path) as shop:
        with pytest.raises(NotEnoughData):
            shop.round()
        assert shop.live() == ""


def test_a_model_that_the_gate_rejects_is_kept_and_does_not_go_live(
    broker: str, redis_url: str, tmp_path: Path
) -> None:
    with opened(broker, redis_url, tmp_path, holdout_days=0) as shop:
        shop.import_history()
        first = shop.round()
        assert first.gate is not None
        assert first.gate.decision is Decision.UNJUDGED
        with shop.store.trainer_lock.held(ttl_s=60) as lock:  # an operator's choice does not give way unjudged
            roll_back(
                shop.settings, shop.store, shop.data_dir, lock, ProgressReporter(), first.version,
                live_before=first.version, clock=now,
            )  # fmt: skip
        rejected = shop.round()
        assert not rejected.published
        assert rejected.gate is not None
        assert rejected.gate.decision is Decision.REJECTED
        assert shop.live() == first.version
        forced = shop.round(force=True)
        assert forced.published
        assert forced.gate is not None
        assert forced.gate.decision is Decision.FORCED


def test_a_rollback_to_the_live_model_takes_nothing_but_what_was_published(shop: Shop) -> None:
    live = shop.round().version
    pointer = shop.store.pointer.read()
    planted = Path(shop.settings.data_dir) / "models" / live / "manifest.json"
    planted.write_bytes(planted.read_bytes() + b"\n")
    with shop.store.trainer_lock.held(ttl_s=60) as lock, pytest.raises(InvalidModel, match="manifest"):
        roll_back(
            shop.settings, shop.store, shop.data_dir, lock, ProgressReporter(), live, live_before=live, clock=now,
        )  # fmt: skip
    assert shop.store.pointer.read() == pointer


def test_lists_that_are_left_are_written_from_nothing_but_what_was_published(shop: Shop) -> None:
    live = shop.round().version
    planted = Path(shop.settings.data_dir) / "models" / live / "manifest.json"
    planted.write_bytes(planted.read_bytes() + b"\n")
    with shop.store.trainer_lock.held(ttl_s=60) as lock:
        after = Round(shop.settings, shop.store, shop.data_dir, lock, ProgressReporter(), clock=now)
        with pytest.raises(InvalidModel, match="manifest"):
            after._keep_live(live, lost=True)


def test_a_round_that_lost_its_lock_publishes_nothing_and_says_how_far_it_was(shop: Shop) -> None:
    first = shop.round()
    with shop.store.trainer_lock.held(ttl_s=60) as lock:
        second = Round(shop.settings, shop.store, shop.data_dir, lock, ProgressReporter(), clock=now)
        shop.store.connection.client.delete(shop.store.trainer._keys.trainer_lock)
        with pytest.raises(LockLost):
            second.run()
    assert second.outcome.live_before in ("", first.version)
    assert not second.outcome.published
    assert shop.live() == first.version


def test_an_empty_data_dir_is_not_taken_for_that_of_the_live_model(shop: Shop, tmp_path: Path) -> None:
    shop.round()
    elsewhere = shop.settings.model_copy(update={"data_dir": str(tmp_path / "unmounted")})
    other = Shop(elsewhere, shop.store, open_data_dir(elsewhere), tmp_path)
    with pytest.raises(DataDirError, match="check RECSYS_DATA_DIR and its mount"):
        other.round()


def test_a_report_tells_those_who_wait_and_leaves_a_record(shop: Shop) -> None:
    request = shop.store.trainer.request()
    requests = shop.store.trainer.requests()
    report = RoundReport(shop.store, shop.data_dir.rounds, TrainerMetrics(), requests, asked_by="request", clock=now)
    report.tell("fit", 1, 3)
    assert shop.store.trainer.status() | {"state": "running", "stage": "fit", "done": 1} == shop.store.trainer.status()
    report.failed(RoundOutcome(live_before="v1", counts={"events": 7}), {"fit": 0.5}, "the disk is full")
    (record,) = shop.data_dir.rounds.newest_first()
    assert (record.state, record.error, record.request) == ("failed", "the disk is full", request)
    assert (record.live_before, record.counts, record.durations_s) == ("v1", {"events": 7}, {"fit": 0.5})
    outcome = shop.store.trainer.outcome()
    assert (outcome["state"], outcome["events"], outcome["error"]) == ("failed", 7, "the disk is full")
    assert shop.store.trainer.requests().finished == request


def import_bots(shop: Shop, pushed: str, *, others: int = 3) -> None:
    """Let four hundred accounts buy an item on each of the last six days, and some others."""
    accounts = 400
    habits = habitual_shop(seed=0, n_users=USERS)
    newest_s = int(habits.seconds.max())
    rng = np.random.default_rng(0)
    days = np.tile(np.repeat(np.arange(6), 1 + others), accounts)
    bought = rng.integers(0, len(habits.item_ids), len(days))
    bought[:: 1 + others] = len(habits.item_ids)  # each day once
    bots = EventLog(
        [f"bot-{account}" for account in range(accounts)],
        np.repeat(np.arange(accounts), 6 * (1 + others)),
        [*habits.item_ids, pushed],
        bought,
        np.full(len(days), 10**6),
        newest_s - days * 86_400 - rng.integers(0, 3_600, len(days)),
    )
    shop.import_events(bots)


def test_a_model_that_one_item_would_fill_is_looked_at_and_refused(shop: Shop) -> None:
    """The hold-out model has not seen the purchases of the last days, so the gate passes it."""
    first = shop.round()
    import_bots(shop, "pushed")
    refused = shop.round()
    assert refused.gate is not None
    assert refused.gate.decision is Decision.REJECTED
    (reason,) = refused.gate.reasons
    assert "would newly be among the first 10 of" in reason
    assert not refused.published
    assert shop.live() == first.version
    rejected = shop.data_dir.models.manifest(refused.version)
    assert rejected.is_rejected
    assert refused.counts == rejected.counts
    forced = shop.round(force=True)
    assert forced.published
    assert forced.gate is not None
    assert forced.gate.decision is Decision.FORCED
    assert shop.live() == forced.version


def test_an_item_that_is_hidden_fills_no_list_so_the_model_goes_live(shop: Shop) -> None:
    shop.round()
    import_bots(shop, "pushed", others=0)
    assert not shop.round().published
    shop.store.catalogue.hide("pushed")
    assert shop.round().published


def test_purchases_of_the_year_9999_in_an_old_archive_hold_nothing_up(shop: Shop) -> None:
    shop.round()
    in_9999_ms = 253_370_764_800_000
    long_ago = "20260801T000000.000000Z"
    rows = [(place, make_event(f"user-{place}", "item-000", timestamp=in_9999_ms)) for place in range(60)]
    shop.data_dir.archive.write(Segment(long_ago, "an-earlier-topic", 0, 0, 59), rows)
    outcome = shop.round()
    assert outcome.published
    assert outcome.gate is not None
    assert outcome.gate.difference is not None
    popular = shop.store.item_lists.popular()
    assert popular is not None
    assert "item-000" != popular["items"][0]["item_id"]
    newest_s = int(habitual_shop(seed=0, n_users=USERS).seconds.max())
    assert shop.data_dir.models.manifest(outcome.version).reference_s == newest_s
