"""What larger shops need, on paper: costs that were measured, times assumptions. Writes the tables of docs/scaling.md.

Everything is arithmetic on results.json; to ask about a shop of your own, change `SHOPS` and `Assumptions`.

Run: .venv/bin/python -m benchmarks.scaling [--core-hour-usd 0.04] [--gib-hour-usd 0.005] [--disk-gib-month-usd 0.1]
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from benchmarks import scale_out
from benchmarks.document import DOCS, replace
from benchmarks.measuring import FACTORS
from benchmarks.results import FILE, Measured, load

DOCUMENT = DOCS / "scaling.md"
_BEGIN, _END = "<!-- tables: written by make bench -->\n", "<!-- end of tables -->"
_LEAST_SHOWN = 0.01
_GIB, _MIB, _HOUR_S, _DAY_S, _MONTH_H = 2**30, 2**20, 3_600, 86_400, 730
_SMALL_INDEX_PAIRS = 2**31
"""Up to so many pairs scipy addresses them with 4 bytes, beyond with 8."""

Points = Mapping[int, float]
"""What was measured, by size."""


class NotMeasured(Exception):
    """A number that the model needs is not in results.json."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What was measured. Times are those of a core that works.

    Attributes
    ----------
    consumer_us, redis_us, broker_us : float
        For an event: apply, list, publish; with ``items`` items.
    record_bytes : float
        In Kafka, one copy, not compressed.
    user_bytes, similar_bytes : float
        In Redis: a user of 30 owned items with a list of 50; an item's list of 20 similar ones.
    consumer_mib : Points
        Resident memory by number of items.
    full_refresh_us, full_refresh_redis_us : float
        For a user, with ``items`` items.
    top_n_us, similar_us : Points
        For a user's list and an item's similar ones, by number of items.
    fit_us : float
        For a pair, an iteration; at the most pairs that were measured.
    matrix_us, matrix_bytes : float
        For an event in the archive, on one core.
    items : int
    """

    consumer_us: float
    redis_us: float
    broker_us: float
    record_bytes: float
    user_bytes: float
    similar_bytes: float
    consumer_mib: Points
    full_refresh_us: float
    full_refresh_redis_us: float
    top_n_us: Points
    similar_us: Points
    fit_us: float
    matrix_us: float
    matrix_bytes: float
    items: int


@dataclass(frozen=True, slots=True)
class Shop:
    """Whom to serve."""

    name: str
    active_users_per_day: float
    users: float
    items: int


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What was not measured: change it. Field names say the units; ``busy`` is the share of a core planned for."""

    events_per_active_user: float = 3
    peak_over_mean: float = 4
    pairs_per_user: float = 30
    busy: float = 0.5
    least_consumers: int = 2
    least_partitions: int = 12
    partitions_per_consumer: int = 4
    redis_copies: int = 2
    redis_node_gib: float = 24
    brokers: int = 3
    broker_cores: int = 2
    broker_gib: float = 8
    kafka_copies: int = 3
    retention_days: float = 7
    archive_days: float = 365
    trainer_cores: int = 16
    iterations: int = 15
    core_hour_usd: float = 0.04
    gib_hour_usd: float = 0.005
    disk_gib_month_usd: float = 0.1


SHOPS = (
    Shop("(a) 1 M users a day", 1e6, 20e6, 100_000),
    Shop("(b) 100 M users", 5e6, 100e6, 100_000),
    Shop("(c) as (a), 10 M items", 1e6, 20e6, 10_000_000),
)


# the model --------------------------------------------------------------------------------------------------------


def extrapolated(points: Points, size: float) -> float:
    """Return the value at a size: straight lines between points in log-log, and the last line beyond the last point."""
    sizes = sorted(points)
    place = next((at for at in range(1, len(sizes) - 1) if size <= sizes[at]), len(sizes) - 1)
    small, large = sizes[place - 1], sizes[place]
    slope = math.log(points[large] / points[small]) / math.log(large / small)
    return points[large] * math.exp(slope * math.log(size / large))


def linear(points: Points, size: float) -> float:
    """Return the value at a size on the straight line through the smallest and the largest point."""
    small, large = min(points), max(points)
    return points[small] + (points[large] - points[small]) / (large - small) * (size - small)


def events_per_s(shop: Shop, assumed: Assumptions) -> float:
    """Return the mean over a day."""
    return shop.active_users_per_day * assumed.events_per_active_user / _DAY_S


def more_items_us(shop: Shop, costs: Costs) -> float:
    """Return how much longer a list takes than with as many items as were measured."""
    return extrapolated(costs.top_n_us, shop.items) - extrapolated(costs.top_n_us, costs.items)


@dataclass(frozen=True, slots=True)
class Serving:
    """What it takes to follow the stream."""

    peak_events_per_s: float
    event_us: float
    consumers: int
    partitions: int
    consumer_gib: float
    redis_gib: float
    redis_peak_cores: float
    redis_masters: int
    broker_peak_cores: float
    kafka_disk_gib: float


def serving(shop: Shop, costs: Costs, assumed: Assumptions) -> Serving:
    """Return what the peak, and what is stored, asks for."""
    peak = assumed.peak_over_mean * events_per_s(shop, assumed)
    event_us = costs.consumer_us + more_items_us(shop, costs)
    consumers = max(assumed.least_consumers, math.ceil(peak * event_us / 1e6 / assumed.busy))
    redis_gib = (shop.users * costs.user_bytes + shop.items * costs.similar_bytes) / _GIB
    redis_cores = peak * costs.redis_us / 1e6
    kept = events_per_s(shop, assumed) * _DAY_S * assumed.retention_days * assumed.kafka_copies
    return Serving(
        peak_events_per_s=peak,
        event_us=event_us,
        consumers=consumers,
        partitions=max(assumed.least_partitions, assumed.partitions_per_consumer * consumers),
        consumer_gib=linear(costs.consumer_mib, shop.items) * _MIB / _GIB,
        redis_gib=redis_gib,
        redis_peak_cores=redis_cores,
        redis_masters=math.ceil(max(redis_gib / assumed.redis_node_gib, redis_cores / assumed.busy)),
        broker_peak_cores=peak * costs.broker_us * assumed.kafka_copies / 1e6,
        kafka_disk_gib=kept * costs.record_bytes / _GIB,
    )


@dataclass(frozen=True, slots=True)
class Round:
    """What a new model takes, when the archive holds all of its days."""

    archived_events: float
    matrix_h: float
    matrix_gib: float
    fit_core_h: float
    fit_h: float
    fit_gib: float
    full_refresh_core_h: float
    full_refresh_h: float
    similar_core_h: float
    similar_h: float

    @property
    def hours(self) -> float:
        """From start to end."""
        return self.matrix_h + self.fit_h + self.full_refresh_h + self.similar_h


def new_model(shop: Shop, costs: Costs, assumed: Assumptions, *, redis_masters: int) -> Round:
    """Return what archive, matrix, fit, full refresh and similar items take."""
    events = events_per_s(shop, assumed) * _DAY_S * assumed.archive_days
    pairs = shop.users * assumed.pairs_per_user
    index_bytes = 4 if pairs < _SMALL_INDEX_PAIRS else 8
    # Quantities in float64, confidences in float32 with the same indices, and the fit's copy of them by item.
    fit_bytes = pairs * (8 + 4 + index_bytes + 4 + index_bytes) + (shop.users + shop.items) * 4 * FACTORS
    fit_core_h = pairs * assumed.iterations * costs.fit_us / 1e6 / _HOUR_S
    full_refresh_core_h = shop.users * (costs.full_refresh_us + more_items_us(shop, costs)) / 1e6 / _HOUR_S
    full_refresh_redis_h = shop.users * costs.full_refresh_redis_us / 1e6 / _HOUR_S / redis_masters
    similar_core_h = shop.items * extrapolated(costs.similar_us, shop.items) / 1e6 / _HOUR_S
    return Round(
        archived_events=events,
        matrix_h=events * costs.matrix_us / 1e6 / _HOUR_S,
        matrix_gib=events * costs.matrix_bytes / _GIB,
        fit_core_h=fit_core_h,
        fit_h=fit_core_h / assumed.trainer_cores,
        fit_gib=fit_bytes / _GIB,
        full_refresh_core_h=full_refresh_core_h,
        full_refresh_h=max(full_refresh_core_h / assumed.trainer_cores, full_refresh_redis_h),
        similar_core_h=similar_core_h,
        similar_h=similar_core_h / assumed.trainer_cores,
    )


@dataclass(frozen=True, slots=True)
class Month:
    """What is kept running, and its price."""

    cores: float
    gib: float
    disk_gib: float
    usd: float


def month(serves: Serving, trains: Round, assumed: Assumptions) -> Month:
    """Return the cost of machines that never stop: the trainer's, too; a core for each consumer and Redis node."""
    nodes = serves.redis_masters * assumed.redis_copies
    cores = serves.consumers + nodes + assumed.brokers * assumed.broker_cores + assumed.trainer_cores
    gib = (
        serves.consumers * serves.consumer_gib
        + nodes * assumed.redis_node_gib
        + assumed.brokers * assumed.broker_gib
        + max(trains.matrix_gib, trains.fit_gib)
    )
    hourly_usd = cores * assumed.core_hour_usd + gib * assumed.gib_hour_usd
    usd = hourly_usd * _MONTH_H + serves.kafka_disk_gib * assumed.disk_gib_month_usd
    return Month(cores, gib, serves.kafka_disk_gib, usd)


# what was measured ------------------------------------------------------------------------------------------------


def measured_costs(found: Sequence[Measured], cores: Mapping[str, int]) -> Costs:
    """Take the model's inputs from results.

    Parameters
    ----------
    cores : mapping
        Of the machine of each benchmark: what took all of them for a while, took so much more of one.

    Raises
    ------
    NotMeasured
        Which number is missing.
    """

    def all_of(benchmark: str, case: str, what: str) -> list[tuple[re.Match[str], float]]:
        some = [(re.fullmatch(case, one.case), one) for one in found if one.benchmark == benchmark]
        values = [(match, one.value) for match, one in some if match and re.fullmatch(what, one.what)]
        if not values:
            pattern = f"{case}: {what}".replace("\\", "")
            raise NotMeasured(f"{pattern} (make bench ARGS={benchmark})")
        return values

    def one_of(benchmark: str, case: str, what: str) -> tuple[float, list[float]]:
        match, value = all_of(benchmark, case, what)[-1]
        return value, [_number(text) for text in match.groups()]

    def by_size(benchmark: str, case: str, what: str) -> Points:
        return {int(_number(match[1])): value for match, value in all_of(benchmark, case, what)}

    def scaled(case: str, what: str) -> float:
        return one_of("scale-out", re.escape(case), re.escape(what))[0]

    matrix_s, (archived,) = one_of("bulk", r"archive of ([\d,]+) events", "archive → matrix")
    matrix_gib, _ = one_of("bulk", r"archive of ([\d,]+) events", "largest resident memory")
    _, (items,) = one_of("top-n", r"([\d,]+) items of Complete Journey.*batch \d{2,}", r"recsys\.ranking")
    top_n = by_size("top-n", r"([\d,]+) items drawn from those, batch \d{2,}", r"recsys\.ranking")
    return Costs(
        consumer_us=scaled(scale_out.ONE, scale_out.CONSUMER),
        redis_us=scaled(scale_out.ONE, scale_out.REDIS),
        broker_us=scaled(scale_out.ONE, scale_out.HANDING_OUT) + scaled(scale_out.COST_CASE, scale_out.TAKING_IN),
        record_bytes=scaled(scale_out.COST_CASE, scale_out.KAFKA_BYTES),
        user_bytes=one_of("memory", "Redis", "a user: .*")[0],
        similar_bytes=one_of("growth", "Redis", ".*similar.*")[0],
        consumer_mib=by_size("memory", r"a consumer, ([\d,]+) items .*", "largest resident memory.*"),
        full_refresh_us=scaled(scale_out.COST_CASE, scale_out.FULL_REFRESH),
        full_refresh_redis_us=scaled(scale_out.COST_CASE, scale_out.FULL_REFRESH_REDIS),
        top_n_us={size: value * cores["top-n"] for size, value in top_n.items()},
        similar_us=by_size("growth", r"([\d,]+) items", "similar items"),
        fit_us=max(by_size("growth", r"([\d,]+) pairs, .*", "an iteration of the fit").items())[1],
        matrix_us=matrix_s / archived * 1e6,
        matrix_bytes=matrix_gib * _GIB / archived,
        items=int(items),
    )


def _number(text: str) -> float:
    return float(text.replace(",", ""))


# tables -----------------------------------------------------------------------------------------------------------


def _shown(value: float) -> str:
    if value < _LEAST_SHOWN:
        return f"< {_LEAST_SHOWN}"
    return f"{value:,.{2 if value < 10 else 1 if value < 100 else 0}f}"


def _table(head: Sequence[str], align: str, rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---:" if side == "r" else "---" for side in align], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def cost_table(costs: Costs) -> str:
    """Return what was measured, as Markdown."""
    base = f"{costs.items:,} items"
    largest = max(costs.top_n_us)
    consumer_bytes = (linear(costs.consumer_mib, 2) - linear(costs.consumer_mib, 1)) * _MIB
    rows = [
        (f"an event in the consumer, {base}", costs.consumer_us, "CPU µs", "scale-out"),
        ("an event in Redis", costs.redis_us, "CPU µs", "scale-out"),
        ("an event in the broker, in and out, one copy", costs.broker_us, "CPU µs", "scale-out"),
        ("an event in Kafka's log, one copy", costs.record_bytes, "bytes", "scale-out"),
        ("a user in Redis", costs.user_bytes, "bytes", "memory"),
        ("an item's similar ones in Redis", costs.similar_bytes, "bytes", "growth"),
        ("an item in a consumer's memory", consumer_bytes, "bytes", "memory"),
        (f"a user in the processes of a full refresh, {base}", costs.full_refresh_us, "CPU µs", "scale-out"),
        ("a user of a full refresh in Redis", costs.full_refresh_redis_us, "CPU µs", "scale-out"),
        (f"the top-N in them, {largest:,} items", costs.top_n_us[largest], "core-µs", "top-n"),
        (f"an item's similar ones, {largest:,} items", extrapolated(costs.similar_us, largest), "CPU µs", "growth"),
        ("a pair of user and item, an iteration of the fit", costs.fit_us, "CPU µs", "growth"),
        ("an archived event on its way to the matrix", costs.matrix_us, "µs", "bulk"),
        ("its memory there", costs.matrix_bytes, "bytes", "bulk"),
    ]
    shown = [(what, f"{_shown(value)} {unit}", f"`{benchmark}`") for what, value, unit, benchmark in rows]
    return _table(("measured", "cost", "benchmark"), "lrl", shown)


def shop_table(costs: Costs, shops: Sequence[Shop], assumed: Assumptions) -> str:
    """Return what each shop needs, as Markdown."""
    rows: dict[str, list[str]] = {}
    for shop in shops:
        serves = serving(shop, costs, assumed)
        trains = new_model(shop, costs, assumed, redis_masters=serves.redis_masters)
        kept = month(serves, trains, assumed)
        nodes = f"{serves.redis_masters:,} + {serves.redis_masters * (assumed.redis_copies - 1):,}"
        most, beyond = max(costs.top_n_us), shop.items > max(costs.top_n_us)
        straight = costs.top_n_us[most] * shop.items / most
        for what, text in {
            "users stored; items": f"{shop.users / 1e6:,.0f} M; {shop.items:,}",
            "events a day; a second at the peak": f"{events_per_s(shop, assumed) * _DAY_S / 1e6:,.0f} M; "
            f"{serves.peak_events_per_s:,.0f}",
            "top-N, core-µs a user": _shown(extrapolated(costs.top_n_us, shop.items))
            + (f" (were it linear: {straight:,.0f})" if beyond else ""),
            "an event in a consumer, CPU µs; events/s of one core": f"{serves.event_us:,.0f}; "
            f"{1e6 / serves.event_us:,.0f}",
            "**consumers; partitions**": f"{serves.consumers}; {serves.partitions}",
            "memory of a consumer, GiB": _shown(serves.consumer_gib),
            "**Redis, GiB of data**": _shown(serves.redis_gib),
            "Redis, masters + replicas": nodes,
            "Redis at the peak, cores busy": _shown(serves.redis_peak_cores),
            "Kafka at the peak, cores busy": _shown(serves.broker_peak_cores),
            "Kafka, GiB on disk": _shown(serves.kafka_disk_gib),
            "archive after its days, events": f"{trains.archived_events / 1e6:,.0f} M",
            "**matrix: hours; GiB**": f"{_shown(trains.matrix_h)}; {trains.matrix_gib:,.0f}",
            "fit: core-hours; hours; GiB": f"{_shown(trains.fit_core_h)}; {_shown(trains.fit_h)}; "
            f"{trains.fit_gib:,.0f}",
            "full refresh: core-hours; hours": f"{_shown(trains.full_refresh_core_h)}; {_shown(trains.full_refresh_h)}",
            "**similar items: core-hours; hours**": f"{_shown(trains.similar_core_h)}; {_shown(trains.similar_h)}",
            "a round in all, hours": _shown(trains.hours),
            "cores; GiB of memory kept": f"{kept.cores:,.0f}; {kept.gib:,.0f}",
            "core-hours; GiB-hours a month": f"{kept.cores * _MONTH_H:,.0f}; {kept.gib * _MONTH_H:,.0f}",
            "**a month, USD**": f"{kept.usd:,.0f}",
        }.items():
            rows.setdefault(what, []).append(text)
    head = ("", *(shop.name for shop in shops))
    return _table(head, "l" + "r" * len(shops), [(what, *texts) for what, texts in rows.items()])


def assumption_lines(assumed: Assumptions) -> str:
    """Return all assumptions, as Markdown."""
    named = [f"{field.name.replace('_', ' ')} {getattr(assumed, field.name):g}" for field in fields(assumed)]
    return f"Assumed (`Assumptions` in `benchmarks/scaling.py`): {'; '.join(named)}.\n"


def write(found: Sequence[Measured], assumed: Assumptions | None = None) -> str:
    """Write the tables into docs/scaling.md and return them."""
    assumed = assumed or Assumptions()
    runs = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    cores = {name: int(re.search(r"(\d+) cores", run["machine"])[1]) for name, run in runs.items()}  # type: ignore[index]
    costs = measured_costs(found, cores)
    machines = "; ".join(dict.fromkeys(run["machine"] for run in runs.values()))
    text = "\n".join(
        [
            f"\n{cost_table(costs)}",
            f"Measured on: {machines}.\n",
            shop_table(costs, SHOPS, assumed),
            assumption_lines(assumed),
        ]
    )
    replace(DOCUMENT, _BEGIN, _END, text)
    return text


def main() -> int:
    """Write the tables and print them; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description="Write docs/scaling.md's tables.")
    prices = ("core_hour_usd", "gib_hour_usd", "disk_gib_month_usd")
    for price in prices:
        parser.add_argument(f"--{price.replace('_', '-')}", type=float, default=getattr(Assumptions(), price))
    options = parser.parse_args()
    try:
        print(write(load(), Assumptions(**{price: getattr(options, price) for price in prices})))
    except NotMeasured as error:
        print(f"error: not in {FILE.name}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
