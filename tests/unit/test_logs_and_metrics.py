from __future__ import annotations

import itertools
import logging
import re
import sys
from collections.abc import Iterator

import numpy as np
import prometheus_client
import pytest
from prometheus_client import generate_latest
from prometheus_client.registry import Collector

from api.problems import Kind, problem_body
from consumer.metrics import ConsumerMetrics
from recsys.cli.output import errors
from recsys.errors import KafkaUnavailable, SettingsError
from recsys.kafka.clients import open_admin
from recsys.kafka.silence import Silence
from recsys.logger import logger
from recsys.runtime.logs import GrowingIntervals, RepeatsLeftOut, configure_logging
from recsys.runtime.metrics import Histogram, quantile
from recsys.settings import KafkaSettings, LogSettings, load_settings, secrets

INFINITY = float("inf")


@pytest.fixture
def root_logging() -> Iterator[None]:
    """Put logging back as it was."""
    root, implicit = logging.getLogger(), logging.getLogger("implicit")
    handlers, level, implicit_level = root.handlers[:], root.level, implicit.level
    root.handlers.clear()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    implicit.setLevel(implicit_level)


@pytest.mark.parametrize(
    ("counts", "q", "expected"),
    [
        ([10, 0, 0, 0], 0.5, 0.5),
        ([10, 0, 0, 0], 1.0, 1.0),
        ([0, 10, 0, 0], 0.5, 1.5),
        ([0, 10, 0, 0], 0.0, 1.0),
        ([5, 5, 0, 0], 0.5, 1.0),
        ([5, 5, 0, 0], 0.75, 1.5),
        ([1, 1, 2, 0], 0.75, 3.0),
        ([0, 0, 0, 3], 0.5, 4.0),
        ([1, 0, 0, 3], 0.9, 4.0),
        ([0, 0, 0, 0], 0.5, 0.0),
    ],
)
def test_a_quantile_is_interpolated_inside_its_bucket(counts: list[float], q: float, expected: float) -> None:
    assert quantile(at_most([1.0, 2.0, 4.0, INFINITY], counts), q) == pytest.approx(expected)


def at_most(bounds: list[float], counts: list[float]) -> dict[float, float]:
    """Return the counts of buckets as Prometheus has them: of each, those of all below it as well."""
    return dict(zip(bounds, itertools.accumulate(counts), strict=True))


def test_nothing_observed_gives_zero() -> None:
    assert quantile({}, 0.5) == 0.0


@pytest.mark.parametrize("q", [0.01, 0.25, 0.5, 0.9, 0.99, 1.0])
def test_a_quantile_lies_in_the_bucket_of_the_true_one(q: float) -> None:
    observed = np.sort(np.random.default_rng(1).lognormal(0, 1, 1000))
    bounds = np.append(0.1 * 1.25 ** np.arange(30), np.inf)
    places = np.searchsorted(bounds, observed)
    counts = np.bincount(places, minlength=len(bounds)).tolist()
    true_bucket = int(places[int(np.ceil(q * len(observed))) - 1])
    found = quantile(at_most(bounds.tolist(), counts), q)
    lower = 0.0 if true_bucket == 0 else bounds[true_bucket - 1]
    assert lower <= found <= bounds[true_bucket]


def test_quantiles_grow_with_q() -> None:
    counts = np.random.default_rng(2).integers(0, 5, 20).tolist()
    bounds = [float(bound) for bound in range(1, 20)] + [INFINITY]
    found = [quantile(at_most(bounds, counts), q / 100) for q in range(101)]
    assert found == sorted(found)


def test_two_consumers_in_one_process_count_for_themselves() -> None:
    one, other = ConsumerMetrics(), ConsumerMetrics()
    one.records.inc(3)
    one.latency.observe(np.array([0.004]))
    assert "recsys_consumer_records_total 3.0" in generate_latest(one.registry).decode()
    assert "recsys_consumer_records_total 0.0" in generate_latest(other.registry).decode()
    assert "recsys_consumer_event_to_list_seconds_count 1.0" in generate_latest(one.registry).decode()


def test_a_histogram_is_the_one_that_prometheus_would_count() -> None:
    bounds = (0.125, 0.5, 2.5)
    values = np.array([0.0, 0.125, 0.25, 0.5, 0.75, 2.5, 2.75, 1e9])  # whose sum is exact in any order
    ours = Histogram("latency_seconds", "meaning", bounds=bounds)
    theirs = prometheus_client.Histogram("latency_seconds", "meaning", buckets=bounds, registry=None)
    ours.observe(values[:3])
    ours.observe(values[:0])
    ours.observe(values[3:])
    for value in values.tolist():
        theirs.observe(value)

    def samples(histogram: Collector) -> list[tuple[str, dict[str, str], float]]:
        (family,) = histogram.collect()
        found = [(sample.name, dict(sample.labels), sample.value) for sample in family.samples]
        return sorted((sample for sample in found if not sample[0].endswith("_created")), key=str)

    assert samples(ours) == samples(theirs)


@pytest.mark.usefixtures("root_logging")
def test_log_lines_go_to_standard_error_with_their_time_in_utc(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(format="text"))
    logging.getLogger("recsys.somewhere").info("model %s loaded", "v1")
    logging.getLogger("recsys.somewhere").debug("not this")
    logging.getLogger("implicit").info("nor this")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    recsys\.somewhere: model v1 loaded\n", captured.err
    )


@pytest.mark.usefixtures("root_logging")
def test_logging_may_be_configured_again(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(format="text", level="DEBUG"))
    configure_logging(LogSettings(format="text", level="WARNING"))
    logging.getLogger("recsys").info("not this")
    logging.getLogger("recsys").warning("this once")
    assert capsys.readouterr().err.count("this once") == 1


@pytest.fixture
def known_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings with secrets, loaded as a service does."""
    monkeypatch.setattr(secrets, "_known", frozenset())
    monkeypatch.setenv("RECSYS_REDIS__URL", "redis://shop:hun%23ter-two@127.0.0.1:6379/0?ssl_password=seven-keys")
    monkeypatch.setenv("RECSYS_DATA_DIR", "s3://key:bucket-key@bucket/recsys")
    monkeypatch.setenv("RECSYS_KAFKA__LIBRDKAFKA", '{"sasl.password": "broker-key", "sasl.username": "shop"}')
    load_settings()


_SECRETS = ("hun%23ter-two", "hun#ter-two", "seven-keys", "bucket-key", "broker-key")


@pytest.mark.usefixtures("root_logging", "known_secrets")
def test_log_lines_and_tracebacks_hold_no_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(format="text"))
    try:
        raise ValueError(f"a library says {_SECRETS}")
    except ValueError:
        logging.getLogger("somewhere").exception("%s at shop", " ".join(_SECRETS))
    said = capsys.readouterr().err
    assert "*** at shop" in said
    assert not [secret for secret in _SECRETS if secret in said]


@pytest.mark.usefixtures("root_logging", "known_secrets")
def test_lines_of_librdkafka_hold_no_parts_of_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(format="text"))
    logging.getLogger("librdkafka").error("Unrecognized beginning at: oker-key (%s)", "broker")
    said = capsys.readouterr().err
    assert "Unrecognized beginning at: ***" in said
    assert "oker" not in said


@pytest.mark.usefixtures("known_secrets")
def test_errors_of_commands_and_problems_of_the_api_hold_no_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    errors.print(f"error: {_SECRETS}")
    said = capsys.readouterr().err + problem_body(Kind.REDIS_UNAVAILABLE, f"{_SECRETS}").decode()
    assert said.count("***") > 1
    assert not [secret for secret in _SECRETS if secret in said]


@pytest.mark.usefixtures("known_secrets")
def test_a_property_that_librdkafka_refuses_is_named_without_its_secret() -> None:
    properties: dict[str, str | int | float | bool] = {"sasl.password": "broker-key", "security.protocol": "broker-key"}
    with pytest.raises(SettingsError, match=r"security\.protocol") as raised:
        open_admin(KafkaSettings(librdkafka=properties))
    assert "broker-key" not in str(raised.value)


def test_messages_that_differ_in_digits_alone_pass_at_growing_intervals() -> None:
    clock = Clock()
    repeats = RepeatsLeftOut(every_s=30.0, clock=clock)

    def passed(message: str) -> dict[str, int] | None:
        """Return what a line says of its repetitions; None for one that is left out."""
        record = logging.makeLogRecord({"msg": message, "created": -1e9})  # the wall clock plays no part
        return getattr(record, "again", {}) if repeats.filter(record) else None

    assert passed("purchases[0] 7: not JSON") == {}
    assert passed("purchases[3] 12: not JSON") is None
    assert passed("purchases[0] 7: user_id: is required") == {}
    clock.now += 29
    assert passed("purchases[0] 8: not JSON") is None
    clock.now += 1
    assert passed("purchases[0] 9: not JSON") == {"repeated": 3, "lasting_s": 30}
    clock.now += 59
    assert passed("purchases[0] 9: not JSON") is None
    clock.now += 1
    assert passed("purchases[0] 9: not JSON") == {"repeated": 2, "lasting_s": 90}
    clock.now += 1_200
    assert passed("purchases[0] 9: not JSON") == {}  # it was quiet for long: this is news


@pytest.mark.parametrize("every_s", [30.0, 3_600.0])
def test_the_intervals_of_what_repeats_grow_to_ten_minutes_and_never_shrink(every_s: float) -> None:
    clock = Clock()
    repeats = RepeatsLeftOut(every_s=every_s, clock=clock)
    passed = []
    for second in range(8_000):
        clock.now = 1000.0 + second
        if repeats.filter(logging.makeLogRecord({"msg": "no answer"})):
            passed.append(second)
    gaps = np.diff(passed).tolist()
    assert gaps == sorted(gaps)
    assert gaps[-1] == max(600, every_s)


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def told_at(intervals: GrowingIntervals, clock: Clock, seconds: int) -> list[int]:
    times = []
    for second in range(seconds):
        if intervals.are_due():
            times.append(second)
        clock.now += 1
    return times


def test_what_still_holds_is_told_again_at_growing_intervals() -> None:
    clock = Clock()
    intervals = GrowingIntervals(clock=clock)
    assert told_at(intervals, clock, 2400) == [0, 10, 30, 70, 150, 310, 630, 1230, 1830]
    intervals.begin_anew()
    assert told_at(intervals, clock, 15) == [0, 10]


def test_what_holds_for_a_moment_is_not_told_where_there_is_a_delay() -> None:
    clock = Clock()
    intervals = GrowingIntervals(delay_s=5.0, clock=clock)
    assert told_at(intervals, clock, 20) == [5, 15]


def test_an_interval_can_begin_when_what_was_due_has_ended() -> None:
    clock = Clock()
    intervals = GrowingIntervals(clock=clock)
    assert intervals.are_due()
    clock.now += 300  # so long it took
    intervals.count_from_now()
    assert told_at(intervals, clock, 31) == [10, 30]


def test_silence_is_told_at_once_again_and_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    clock, seconds = Clock(), [-1.0]
    log = logger("tests.a_service")
    silence = Silence(KafkaSettings(bootstrap_servers="kafka-1:9092"), log, seconds.append, clock=clock)
    assert seconds[-1] == 0
    silence.answered()
    for _ in range(7):
        clock.now += 5
        silence.unanswered(KafkaUnavailable("Kafka at kafka-1:9092: timed out"))
    assert seconds[-1] == 35
    assert [record.getMessage() for record in caplog.records] == [
        f"no answer for {silent} s, so nothing comes or goes: Kafka at kafka-1:9092: timed out"
        for silent in (5, 15, 35)
    ]
    caplog.clear()
    silence.answered()
    silence.answered()
    assert seconds[-1] == 0
    assert [record.getMessage() for record in caplog.records] == ["Kafka at kafka-1:9092 answers again after 35 s"]


@pytest.mark.usefixtures("root_logging")
def test_a_log_line_stays_one_line_whatever_it_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(format="text"))
    try:
        raise ValueError("a\x1b[31mb\u202ec")
    except ValueError as error:
        logging.getLogger("test").warning("user %s: é", "x\n2026-01-01 forged\u2028\x9b\x7f", exc_info=error)
    first, *trace = capsys.readouterr().err.splitlines()
    assert r"user x\n2026-01-01 forged\u2028\u009b\u007f: é" in first
    assert trace[-1] == r"ValueError: a\u001b[31mb\u202ec"
    assert all(line.isprintable() for line in (first, *trace))


def test_tracebacks_that_repeat_are_left_out_and_others_are_not() -> None:
    now = 0.0
    repeats = RepeatsLeftOut(every_s=60.0, clock=lambda: now)

    def passes(error: Exception) -> bool:
        try:
            raise error
        except Exception:
            info = sys.exc_info()
        return repeats.filter(logging.LogRecord("api.guard", logging.ERROR, "", 0, "unexpected error", (), info))

    assert [passes(ValueError("a")) for _ in range(3)] == [True, False, False]
    assert passes(KeyError("a"))
    now = 60.0
    assert passes(ValueError("b"))
