"""Moving purchases from a real Kafka into the archive, each exactly once."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from confluent_kafka import Producer

from recsys.data.reserved import PROBE_PREFIX
from recsys.errors import DataDirError
from recsys.kafka.shared_reading import SharedReading
from recsys.redis import open_store
from recsys.runtime.progress import ProgressReporter
from recsys.settings import Settings
from recsys.storage.archive import Archive
from recsys.storage.files import Storage
from tests.planted import event_json
from tests.services import Shop
from tests.stream import publish
from trainer import archiver

pytestmark = pytest.mark.kafka


def archive_of(settings: Settings) -> Archive:
    return Archive(Storage(settings.data_dir))


def archive_now(settings: Settings) -> int:
    with open_store(settings) as store:
        return archiver.archive_new_purchases(
            settings.kafka,
            archive_of(settings),
            ProgressReporter(),
            at=datetime.now(UTC),
            reading=SharedReading(settings, store.readings, store.applied_offsets.read),
        )


def archived_items(settings: Settings) -> list[str]:
    return sorted(item for table in archive_of(settings).tables(["item_id"]) for item in table["item_id"].to_pylist())


def records(first: int, last: int) -> list[tuple[str, bytes]]:
    return [(f"user-{n % 9}", event_json(f"user-{n % 9}", f"item-{n:04d}")) for n in range(first, last)]


def names(first: int, last: int) -> list[str]:
    return [f"item-{n:04d}" for n in range(first, last)]


def test_each_round_takes_up_where_the_last_one_ended(shop: Shop, settings: Settings) -> None:
    publish(shop, records(0, 40))
    assert archive_now(settings) == 40
    assert archive_now(settings) == 0
    publish(shop, [*records(40, 70), ("x", b"not json"), *records(70, 90)])
    assert archive_now(settings) == 50
    assert archived_items(settings) == names(0, 90)


def test_crash_between_two_segments_neither_loses_nor_repeats(
    shop: Shop, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(shop, records(0, 60))
    write, written = Storage.write_file, 0

    def failing(self: Storage, relative: str, content: bytes, *, fail_point: str | None = None) -> None:
        nonlocal written
        written += 1
        if written > 2:
            raise DataDirError("the disk is full")
        write(self, relative, content, fail_point=fail_point)

    with monkeypatch.context() as patched:
        patched.setattr(Storage, "write_file", failing)
        with pytest.raises(DataDirError):
            archive_now(settings)
    assert 0 < len(archived_items(settings)) < 60
    archive_now(settings)
    assert archived_items(settings) == names(0, 60)


def test_large_backlog_is_written_in_pieces_that_leave_nothing_out(
    shop: Shop, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiver, "_MOST_HELD", 7)
    publish(shop, records(0, 100))
    assert archive_now(settings) == 100
    assert archived_items(settings) == names(0, 100)
    segments = archive_of(settings).segments()
    assert len(segments) > 10
    for partition in {segment.partition for segment in segments}:
        own = sorted((segment.first, segment.last) for segment in segments if segment.partition == partition)
        assert own[0][0] == 0
        assert all(later[0] == earlier[1] + 1 for earlier, later in pairwise(own))


@pytest.mark.real_kafka
def test_transactions_count_when_they_are_committed_and_their_markers_end_no_round(
    shop: Shop, settings: Settings
) -> None:
    producer = Producer({"bootstrap.servers": shop.kafka.address, "transactional.id": shop.name})
    producer.init_transactions(30)
    for first, commit in ((0, True), (10, False), (20, True)):
        producer.begin_transaction()
        for key, value in records(first, first + 10):
            producer.produce(shop.topic, value, key)
        producer.flush(30)
        if commit:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)
    assert archive_now(settings) == 20
    assert archived_items(settings) == names(0, 10) + names(20, 30)
    assert archive_now(settings) == 0
    publish(shop, records(30, 35))
    assert archive_now(settings) == 5


def test_forgotten_user_leaves_the_archive(shop: Shop, settings: Settings) -> None:
    publish(shop, records(0, 18))
    archive_now(settings)
    publish(shop, [("user-3", b'{"type": "forget", "user_id": "user-3"}'), ("user-3", event_json("user-3", "again"))])
    archive_now(settings)
    assert archived_items(settings) == sorted([*(f"item-{n:04d}" for n in range(18) if n % 9 != 3), "again"])
    assert archive_now(settings) == 0


def test_reserved_users_are_left_out_and_their_offsets_are_covered(shop: Shop, settings: Settings) -> None:
    probe = f"{PROBE_PREFIX}0123456789ab"
    forget = b'{"user_id": "%b", "type": "forget"}' % probe.encode()
    publish(shop, [*records(0, 10), (probe, event_json(probe, "item-of-probe")), (probe, forget), *records(10, 20)])
    assert archive_now(settings) == 20
    assert archived_items(settings) == names(0, 20)
    assert archive_now(settings) == 0
    ends = archive_of(settings).positions()
    assert sum(end for of_topic in ends.values() for end in of_topic.values()) == 22
