"""Gathers what is known of a running shop: read-only, each fact by itself, none for longer than the time-outs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from typing import Any

from recsys.data.reason_kinds import count_kind
from recsys.data.version import made_at
from recsys.errors import DataDirError, InvalidModel
from recsys.kafka.clients import Consumer, Message, open_reader
from recsys.kafka.letters import REASON
from recsys.kafka.records import offsets_at, read_range, record_timestamp_ms
from recsys.kafka.topics import Topic, describe_topic, end_offsets
from recsys.operations.asking import Asking
from recsys.operations.histories import histories_missing
from recsys.operations.status_facts import (
    ArchiveFacts,
    DeadLetterFacts,
    DiskFacts,
    Facts,
    ListFacts,
    ModelFacts,
    PartitionFacts,
    RedisServerFacts,
    RoundFacts,
    Unknown,
    redis_server_facts,
)
from recsys.redis import Store
from recsys.runtime.clock import now
from recsys.settings import KafkaSettings, Settings
from recsys.storage.data_dir import DataDir
from recsys.storage.rounds import RoundRecord
from recsys.storage.segments import FOLDER

_MOST_USERS = 2_000
_MOST_LETTERS = 500
_MOST_ROUNDS = 3
_MOST_PASSED_OVER = 1_000
"""Offsets without a record, such as the ends of transactions, behind which the oldest record is still looked for."""
_HOUR_MS = 3_600_000
_ASKS_A_FACT = 3
"""A fact needs a few answers, one after the other."""


def look(settings: Settings, store: Store, data_dir: DataDir) -> Facts:
    """Gather all facts, side by side; whatever is away, this returns within a few time-outs."""
    kafka = settings.kafka
    ask = Asking(_ASKS_A_FACT * max(kafka.timeout_s, settings.redis.timeout_s))
    folder = ask.begin(lambda: _archive(data_dir)), ask.begin(lambda: _disk(data_dir))
    asked_rounds, verified = ask.begin(lambda: _rounds(data_dir)), ask.begin(data_dir.verified.read)
    asked = ask.begin(lambda: _servers(store)), ask.begin(lambda: describe_topic(kafka, kafka.topic))
    redis, topic = ask.end(asked[0]), ask.end(asked[1])
    services = ask.begin(store.services.read, redis)
    missing = ask.begin(lambda: histories_missing(settings, store, data_dir), redis)
    lists = ask.begin(lambda: _lists(settings, store), redis)
    model = ask.begin(lambda: _model(store, data_dir), redis)
    partitions = ask.begin(lambda: _partitions(kafka, _there(topic), store), topic, redis)
    letters = ask.begin(lambda: _dead_letters(kafka, _there(topic)), topic)
    return Facts(
        kafka=topic if isinstance(topic, Unknown) else len(topic.partitions),
        redis=redis,
        services=ask.end(services),
        histories_missing=ask.end(missing),
        partitions=ask.end(partitions),
        dead_letters=ask.end(letters),
        model=ask.end(model),
        rounds=ask.end(asked_rounds),
        lists=ask.end(lists),
        archive=ask.end(folder[0]),
        disk=ask.end(folder[1]),
        verified=ask.end(verified),
    )


def _there(topic: Topic | Unknown) -> Topic:
    if isinstance(topic, Unknown):
        raise TypeError(topic.cause)
    return topic


def _servers(store: Store) -> list[RedisServerFacts]:
    return [redis_server_facts(address, info) for address, info in sorted(store.connection.info().items())]


def _lists(settings: Settings, store: Store) -> ListFacts:
    users, is_all = store.users.sample(_MOST_USERS)
    states = store.users.list_states(users)
    ttl_s, now_s = settings.ranking.list_ttl_days * 24 * 3600, now().timestamp()
    return ListFacts(
        users=len(users),
        is_all=is_all,
        personal=sum(state.is_there for state in states),
        expired=sum(state.has_expired(now_s=now_s, ttl_s=ttl_s) for state in states),
    )


def _model(store: Store, data_dir: DataDir) -> ModelFacts | None:
    pointer = store.pointer.read()
    if pointer is None:
        return None
    published_at = datetime.fromisoformat(pointer.published_at)
    made = made_at(pointer.version) or published_at
    try:
        manifest = data_dir.models.manifest(pointer.version)
    except (DataDirError, InvalidModel):  # other lines tell of data_dir
        return ModelFacts(pointer.version, published_at, made, None, "")
    decision = "" if manifest.gate is None else manifest.gate.decision.value
    return ModelFacts(pointer.version, published_at, made, manifest.counts.get("events"), decision)


def _rounds(data_dir: DataDir) -> Sequence[RoundFacts]:
    return [_round(record) for record in islice(data_dir.rounds.newest_first(), _MOST_ROUNDS)]


def _round(record: RoundRecord) -> RoundFacts:
    reasons = [record.error] if record.error else [] if record.gate is None else record.gate.reasons
    if record.kind == "rollback" and record.state == "succeeded":
        outcome = "rolled back"
    elif record.state == "succeeded" and record.gate is not None:
        outcome = record.gate.decision.value
    else:
        outcome = record.state
    return RoundFacts(record.finished_at, outcome, "; ".join(reasons))


def _archive(data_dir: DataDir) -> ArchiveFacts:
    archive = data_dir.archive
    return ArchiveFacts(len(archive.segments()), data_dir.storage.size_bytes(FOLDER), archive.newest_event())


def _disk(data_dir: DataDir) -> DiskFacts:
    free, total = data_dir.storage.disk() or (0, 0)
    return DiskFacts(free, total)


@contextmanager
def _reader(settings: KafkaSettings) -> Iterator[Consumer]:
    reader = open_reader(settings, "status")
    try:
        yield reader
    finally:
        reader.close()


def _partitions(settings: KafkaSettings, topic: Topic, store: Store) -> Sequence[PartitionFacts]:
    marks = store.applied_offsets.read(topic.sources(topic.partitions))
    with _reader(settings) as reader:
        ends = end_offsets(reader, settings, topic)
        applied = {partition: marks[topic.source(partition)] for partition in topic.partitions}
        unapplied = {partition: (max(first, applied[partition] or 0), end) for partition, (first, end) in ends.items()}
        oldest = _oldest_ms(reader, settings, topic, unapplied)
    now_ms = 1000 * now().timestamp()
    ages = {partition: max(0.0, (now_ms - at_ms) / 1000) for partition, at_ms in oldest.items()}
    return [PartitionFacts(p, applied[p], *ends[p], oldest_s=ages.get(p)) for p in topic.partitions]


def _oldest_ms(
    reader: Consumer, settings: KafkaSettings, topic: Topic, ranges: Mapping[int, tuple[int, int]]
) -> dict[int, int]:
    """Return the timestamp of the first record of each range, where there is one."""
    found: dict[int, int] = {}
    heads = {partition: (first, min(end, first + _MOST_PASSED_OVER)) for partition, (first, end) in ranges.items()}
    heads = {partition: (first, end) for partition, (first, end) in heads.items() if first < end}
    for message in _soon(read_range(reader, settings, topic, heads), settings.timeout_s):
        at_ms, partition = record_timestamp_ms(message), message.partition() or 0
        if at_ms is not None:
            found.setdefault(partition, at_ms)
        if len(found) == len(heads):
            break
    return found


def _dead_letters(settings: KafkaSettings, source: Topic) -> DeadLetterFacts:
    since_ms = int(1000 * now().timestamp()) - _HOUR_MS
    reasons: Counter[str] = Counter()
    with _reader(settings) as reader:
        source_ends = end_offsets(reader, settings, source)
        records = _counted(source_ends, offsets_at(reader, settings, source, since_ms, source_ends))
        topic = describe_topic(settings, settings.dead_letters)
        ends = end_offsets(reader, settings, topic)
        starts = offsets_at(reader, settings, topic, since_ms, ends)
        each = max(1, _MOST_LETTERS // len(topic.partitions))
        newest = {partition: (max(starts[partition], end - each), end) for partition, (_, end) in ends.items()}
        for message in _soon(read_range(reader, settings, topic, newest), settings.timeout_s):
            count_kind(reasons, _reason(message))
    return DeadLetterFacts(_counted(ends, starts), records, reasons.total(), dict(reasons.most_common()))


def _counted(ends: Mapping[int, tuple[int, int]], starts: Mapping[int, int]) -> int:
    return sum(max(0, end - starts[partition]) for partition, (_, end) in ends.items())


def _soon(messages: Iterator[Message], seconds: float) -> Iterator[Message]:
    """Yield what comes within some seconds."""
    until = time.monotonic() + seconds
    for message in messages:
        yield message
        if time.monotonic() > until:
            return


def _reason(message: Message) -> str:
    headers: Any = message.headers() or ()
    found = dict(headers).get(REASON)
    return found.decode(errors="replace") if isinstance(found, bytes) else "no reason is noted"
