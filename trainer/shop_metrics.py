"""How the shop is served, as `recsys status` says it, for Prometheus: alerts and status are decided by one module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from recsys.operations.status_facts import Facts, ListFacts, PartitionFacts, Unknown
from recsys.operations.status_line import State
from recsys.redis.service_registry import FoundServices, TrainerEntry

_KINDS = ("consumer", "trainer", "api")


class ShopMetrics(Collector):
    """The newest look at the shop; what was not known then has no samples."""

    def __init__(self) -> None:
        self._look: tuple[Facts, State, datetime] | None = None

    def note(self, facts: Facts, state: State, at: datetime) -> None:
        """Show what a look has found."""
        self._look = facts, state, at

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield what is known, as Prometheus wants it."""
        facts, state, at = (None, State([]), None) if self._look is None else self._look
        yield _family(
            "check_level", "Each line of recsys status: 0 well, 1 a warning, 2 broken", ("check",),
            [((line.code,), line.level) for line in state.lines],
        )  # fmt: skip
        looked_at = [] if at is None else [((), at.timestamp())]
        yield _family("looked_timestamp_seconds", "When the trainer has last looked at the shop", (), looked_at)
        yield from _services(None if facts is None or isinstance(facts.services, Unknown) else facts.services)
        yield from _lag([] if facts is None or isinstance(facts.partitions, Unknown) else facts.partitions)
        yield from _model(facts)
        yield from _lists(None if facts is None or isinstance(facts.lists, Unknown) else facts.lists)
        yield from _servers(facts)
        yield from _storage(facts)


Samples = Iterable[tuple[tuple[str, ...], float]]


def _family(name: str, meaning: str, labels: Sequence[str], samples: Samples) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"recsys_shop_{name}", meaning, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _services(found: FoundServices | None) -> Iterator[GaugeMetricFamily]:
    kinds = Counter(str(entry.kind) for entry in found.entries) if found else Counter()
    running = [((kind,), float(kinds[kind])) for kind in _KINDS] if found else []
    yield _family("services", "Processes that have shown a sign of life in the last 15 s", ("kind",), running)
    due = [entry.facts.next_round_at for entry in found.entries if isinstance(entry, TrainerEntry)] if found else []
    times = [at.timestamp() for at in due if at is not None]
    next_ = [((), min(times))] if times else []
    yield _family("next_round_timestamp_seconds", "When the next round of the trainer is due", (), next_)


def _lag(partitions: Sequence[PartitionFacts]) -> Iterator[GaugeMetricFamily]:
    lags = [((str(one.partition),), float(one.lag)) for one in partitions]
    yield _family("lag_records", "Records in Kafka that are not applied yet", ("partition",), lags)
    oldest = [((), max((one.oldest_s or 0.0 for one in partitions), default=0.0))] if partitions else []
    yield _family("lag_seconds", "Age of the oldest record that is not applied; 0 if there is none", (), oldest)
    lost = [((), float(sum(one.lost for one in partitions)))] if partitions else []
    yield _family("lost_records", "Records that have expired in Kafka before they were applied", (), lost)


def _model(facts: Facts | None) -> Iterator[GaugeMetricFamily]:
    model = None if facts is None or isinstance(facts.model, Unknown) else facts.model
    made = [] if model is None else [((), model.made_at.timestamp())]
    yield _family("model_made_timestamp_seconds", "When the live model was made", (), made)
    events = [] if model is None or model.events is None else [((), float(model.events))]
    yield _family("model_events", "Events that the live model was fitted on", (), events)


def _lists(lists: ListFacts | None) -> Iterator[GaugeMetricFamily]:
    shares: Samples = []
    if lists is not None and lists.users:
        counts = {"personal": lists.personal, "popular": lists.popular, "expired": lists.expired}
        shares = [((kind,), count / lists.users) for kind, count in counts.items()]
    meaning = "Users, of up to 2,000 at random, with a list of their own, the popular one, or an expired one"
    yield _family("lists_ratio", meaning, ("kind",), shares)


def _servers(facts: Facts | None) -> Iterator[GaugeMetricFamily]:
    servers = [] if facts is None or isinstance(facts.redis, Unknown) else facts.redis
    used = [((one.address,), float(one.used)) for one in servers]
    limits = [((one.address,), float(one.limit)) for one in servers]
    yield _family("redis_memory_bytes", "Memory that a Redis server uses", ("server",), used)
    yield _family("redis_memory_limit_bytes", "Its maxmemory, else the memory of its machine", ("server",), limits)


def _storage(facts: Facts | None) -> Iterator[GaugeMetricFamily]:
    archive = None if facts is None or isinstance(facts.archive, Unknown) else facts.archive
    sizes = [] if archive is None else [((), float(archive.size_bytes))]
    yield _family("archive_bytes", "Size of the archive of purchases", (), sizes)
    newest = None if archive is None else archive.newest_event
    times = [] if newest is None else [((), newest.timestamp())]
    yield _family("archive_newest_event_timestamp_seconds", "The newest event in the archive", (), times)
    disk = None if facts is None or isinstance(facts.disk, Unknown) or not facts.disk.total else facts.disk
    yield _family("disk_free_bytes", "Free on the disk of data_dir", (), [((), disk.free)] if disk else [])
    yield _family("disk_bytes", "Size of the disk of data_dir", (), [((), disk.total)] if disk else [])
    verified = None if facts is None or isinstance(facts.verified, Unknown) else facts.verified
    differences = [] if verified is None else [((), float(verified.differences))]
    yield _family("verify_differences", "Differences that the newest recsys verify has found", (), differences)
    at = [] if verified is None else [((), verified.at.timestamp())]
    yield _family("verify_timestamp_seconds", "When recsys verify was run last", (), at)
