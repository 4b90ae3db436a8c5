"""Scenario 14: the disk is full while archiving and while a model is written; the clock jumps backwards."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from recsys.redis import ModelPointer, Store
from recsys.storage.archive import Archive
from recsys.storage.files import Storage
from recsys.storage.models import ModelStore
from tests.faults.clock import Clock
from tests.faults.conftest import Report, full_only, rounds, trained_ledger
from tests.faults.disk import DiskOfFailPoints, SmallDisk, small_disk
from tests.faults.ledger import Ledger
from tests.services import Service, Shop, wait_until

pytestmark = pytest.mark.real_kafka

Disk = SmallDisk | DiskOfFailPoints


@pytest.fixture(params=["small disk", pytest.param("fail points", marks=full_only)])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """A disk that can be filled; says which kind."""
    with small_disk(tmp_path) as mounted:
        found: Disk = DiskOfFailPoints(tmp_path / "disk")
        if mounted is not None and request.param == "small disk":
            found = mounted
        reporter = request.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(f"\nthe full disk is {found.description}")
        yield found


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    """A clock that can be set."""
    return Clock(tmp_path)


def live_pointer(store: Store) -> ModelPointer:
    pointer = store.pointer.read()
    assert pointer is not None
    return pointer


def errors_of(service: Service) -> list[str]:
    return [line for line in service.lines() if " ERROR " in line or "Traceback" in line]


def test_full_disk_is_said_in_one_line_and_made_good_when_there_is_room(shop: Shop, disk: Disk, report: Report) -> None:
    shop.environment["RECSYS_DATA_DIR"] = str(disk.folder)
    storage = Storage(str(disk.folder))
    archive, models = Archive(storage), ModelStore(storage)
    with trained_ledger(shop) as ledger:
        store = ledger.store
        consumer = shop.start_consumer()
        trainer = shop.start_trainer(**disk.trainer_environment)
        trainer.await_saying("trainer ready")

        def half_written() -> list[Path]:
            return list(disk.folder.rglob("*.tmp"))

        def await_error(number: int, path: str) -> None:
            wait_until(lambda: len(errors_of(trainer)) >= number, "the trainer says that the disk is full")
            assert len(errors_of(trainer)) == number
            where = re.escape(str(disk.folder / path))
            full = r"the disk of \S+ is full \(No space left on device\); make room on it"
            said = rf"ERROR   trainer: {where}\S*: {full}; trying again in 10 s"
            assert re.search(said, errors_of(trainer)[-1]), errors_of(trainer)[-1]
            assert half_written() == []

        def rounds_done() -> int:
            return trainer.said().count("round done")

        before, versions = live_pointer(store), models.versions()
        ledger.publish(60)
        disk.fill()
        store.trainer.request()
        await_error(1, "archive/purchases/")
        assert (live_pointer(store), models.versions()) == (before, versions)
        ledger.publish(60)
        ledger.await_counted()  # consumers need no disk
        shop.recsys("verify", "--all")
        disk.free()
        wait_until(lambda: rounds_done() == 1, "the trainer tries again by itself")
        assert archive.gaps() == []

        before, versions = live_pointer(store), models.versions()
        disk.fill(but_pages=2)  # enough for the first files of a model; there is nothing to archive
        store.trainer.request()
        await_error(2, "models/")
        assert (live_pointer(store), models.versions()) == (before, versions)
        disk.free()
        store.trainer.request()
        wait_until(lambda: rounds_done() == 2, "a round on request")
        assert live_pointer(store).version == models.versions()[-1] != before.version
        assert len(errors_of(trainer)) == 2
        wait_until(lambda: consumer.metrics()["model_sequence"] == live_pointer(store).sequence, "it is taken")
        assert trainer.stop() == 0
        tally = ledger.check()
        assert errors_of(consumer) == []
        assert consumer.stop() == 0
        report(14, f"disk full ({disk.description})", tally, faults=2)


@pytest.mark.slow
def test_clock_that_jumps_back_holds_nothing_up(ledger: Ledger, clock: Clock, report: Report) -> None:
    shop, store = ledger.shop, ledger.store
    client: Any = store.connection.client
    archive = Archive(Storage(shop.environment["RECSYS_DATA_DIR"]))
    models = ModelStore(Storage(shop.environment["RECSYS_DATA_DIR"]))
    shop.environment |= {"RECSYS_TRAINER__LOCK_TTL_S": "3", "RECSYS_TRAINER__KEEP_VERSIONS": "2"}
    consumers = [shop.start_consumer(**clock.environment), shop.start_consumer()]  # of the other the clock is right
    trainer = shop.start_trainer(RECSYS_TRAINER__INTERVAL_S="1", **clock.environment)

    def await_rounds(count: int, *, ago: timedelta) -> None:
        """Wait for so many models that were published at the time that the clock shows now."""
        seen = {live_pointer(store).version}
        while count:
            before = live_pointer(store)
            ledger.publish(20)  # something to archive

            def moved(before: ModelPointer = before) -> bool:
                return live_pointer(store) != before

            wait_until(moved, "another model")
            pointer = live_pointer(store)
            assert pointer.sequence > before.sequence
            assert pointer.version > before.version
            seen.add(pointer.version)
            age = datetime.now(UTC) - datetime.fromisoformat(pointer.published_at)
            count -= abs(age - ago) < timedelta(hours=1)

    def all_taken() -> bool:
        return all(member.metrics().get("model_sequence") == live_pointer(store).sequence for member in consumers)

    def start_again_what_ends() -> None:
        """Do what a supervisor does."""
        nonlocal trainer
        for service in (consumers[0], trainer):
            assert service.process.wait(timeout=240) == 1
            (line,) = errors_of(service)
            assert "the clock was set back by 86400 s" in line
            assert "started again by its supervisor" in line
        consumers[0] = shop.start_consumer(**clock.environment)
        trainer = shop.start_trainer(RECSYS_TRAINER__INTERVAL_S="1", **clock.environment)

    jumps = 0
    for _ in range(rounds(1, 5)):
        await_rounds(1, ago=timedelta(0))
        for days in range(1, 1 + rounds(1, 2)):
            clock.set(-timedelta(days=days))
            jumps += 1
            start_again_what_ends()
            await_rounds(2, ago=timedelta(days=days))
        clock.set(timedelta(0))
    await_rounds(1, ago=timedelta(0))
    assert trainer.stop() == 0
    shop.run("trainer", "--once", expect=0, **clock.environment)
    wait_until(all_taken, "the newest model is taken by everyone")
    assert models.versions()[-1] == live_pointer(store).version
    assert len(models.versions()) == 2
    ordered = sorted(archive.segments(), key=lambda segment: (segment.source, segment.partition, segment.first))
    for one, other in itertools.pairwise(ordered):
        if (one.source, one.partition) == (other.source, other.partition):
            assert one.round < other.round, "rounds sort by time of arrival, whatever the clock said"
    ttls = [client.ttl(store.users._keys.recs(user)) for users in store.users.user_ids() for user in users]
    assert max(ttls) <= 30 * 24 * 3600
    assert min(ttl for ttl in ttls if ttl != -2) > 29 * 24 * 3600
    recovery_s = ledger.await_counted()
    tally = ledger.check()
    for consumer in consumers:
        assert errors_of(consumer) == []
        assert consumer.stop() == 0
    report(14, "clock set back by a day, again and again", tally, faults=jumps, recovery_s=recovery_s)
