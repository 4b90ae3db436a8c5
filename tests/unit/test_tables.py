"""Every table of the command can be read on a terminal of 80 characters, and on wider ones."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console, RenderableType

from recsys.cli import output
from recsys.cli.evaluate import evaluation_tables
from recsys.cli.explain import parts_table, sentences
from recsys.cli.imports import imports_table
from recsys.cli.models import gate_table, models_table, reasons, rounds_table, weights_table
from recsys.cli.operate import config_command, settings_table
from recsys.cli.show import history_table, list_table
from recsys.cli.status import screen
from recsys.data.history import Entry, History
from recsys.evaluation.compare import ALL, NEW, Score
from recsys.evaluation.gate_record import Decision, GateRecord
from recsys.evaluation.metrics import Interval
from recsys.evaluation.split import SEGMENTS
from recsys.evaluation.verdict import gate_verdict, glossary
from recsys.operations.evaluate import Evaluation
from recsys.operations.service_state import decide
from recsys.operations.status_facts import PartitionFacts, Unknown
from recsys.recommend.explain import Explanation
from recsys.settings import Settings
from recsys.settings.report import describe_settings
from recsys.settings.status import StatusSettings
from recsys.storage.imports import ImportRecord
from recsys.storage.manifest import Manifest, Weights
from recsys.storage.rounds import RoundRecord
from tests.unit.test_service_state import AT, WELL, consumer, services

VERSION, OTHER, THIRD = "20261122T101500Z-1a2b3c", "20261115T101500Z-4d5e6f", "20261108T101500Z-7a8b9c"
URL = "s3://a-bucket-of-a-shop/recsys/production"
MEAN = Interval(mean=0.1234, low=0.1201, high=0.1267, users=12_345)
NAMES = ("candidate", "live", "popular")


def score(name: str, segment: str, column: str) -> Score:
    return Score(
        recommender=name, segment=segment, column=column, n=20, ndcg=MEAN, recall=MEAN, hit_rate=MEAN, coverage=0.123,
        novelty=12.34,
    )  # fmt: skip


GATE = GateRecord(
    decision=Decision.REJECTED,
    reasons=["NDCG@20 is lower than the live model's by 3.1 % (2.4 % to 3.8 %), and the tolerance is 2 %"],
    column=NEW,
    live=VERSION,
    cut="2026-11-15T10:15:00+00:00",
    scores=[score(name, "all users", column) for name in NAMES for column in (NEW, ALL)],
    difference=Interval(mean=-0.0038, low=-0.0047, high=-0.0029, users=12_345),
)
ROUND = RoundRecord(
    kind="retrain", asked_by="schedule", started_at="2026-11-22T10:15:00Z", finished_at="2026-11-22T10:16:40.123Z",
    state="rejected", version=VERSION, counts={"events": 12_345_678}, durations_s={"fit": 1234.5}, gate=GATE,
)  # fmt: skip
FAILED = ROUND.model_copy(update={"state": "failed", "gate": None, "error": "Redis at redis://redis:6379 is away"})
IMPORT = ImportRecord(
    id="0123456789abcdef", file="orders-of-2026-full-export.csv", content_sha256="", started_at="2026-11-22T10:15:00Z",
    finished_at="2026-11-22T10:16:00Z", read=12_345_678, new=12_345_000, known=600, rejected=70, no_user=8,
)  # fmt: skip
TITLES = {"sku-000123": "Green tea, 20 bags of a rather long name that goes on", "sku-7": "Pot"}
HISTORY = History.of({"sku-000123": Entry(2_500_000, 1_795_348_800, 1_795_348_800, 1)})
WHY = Explanation(0.6, (("sku-000123", 0.5), ("sku-8", -0.05)), demand=0.15, habit=0.0, owned=False)
LIST = {"items": [{"item_id": item, "score": 0.83121} for item in TITLES]}


def manifest() -> Manifest:
    weights = Weights(demand={"recent demand": 0.1234, "demand of a year ago": -1.5}, habit={"days since": 2.25})
    return Manifest.model_construct(
        version=VERSION, created_at="2026-11-22T10:15:00+00:00", weights=weights, factors=64, alpha=1.0,
        regularization=20.0, half_life_days=90.0, repeat_weight=0.5, iterations=15, seed=0,
        counts={"events": 12_345_678, "users": 1_234_567, "items": 123_456},
        metrics={"ndcg@20_new": 0.1234, "ndcg@20_all": 0.2345},
    )  # fmt: skip


def judged(cut: str = GATE.cut) -> Manifest:
    return manifest().model_copy(update={"gate": GATE.model_copy(update={"cut": cut})})


def few() -> Evaluation:
    """Return an evaluation in which the segments but the first are judged by 49 users."""
    found = evaluation()
    scores = [
        one if one.segment == "all users" else replace(one, ndcg=replace(one.ndcg, users=49)) for one in found.scores
    ]
    return found.model_copy(update={"scores": scores})


def evaluation() -> Evaluation:
    scores = [score(name, segment, column) for name in NAMES for segment in SEGMENTS for column in (NEW, ALL)]
    return Evaluation(
        model=VERSION, stands_in=True, fitted_until="", cut="2026-11-15", end="2026-11-22", users=12_345, items=123_456,
        scores=scores,
    )  # fmt: skip


BROKEN = replace(
    WELL,
    services=services(consumer(partitions={number: 1_234.5 for number in range(50)}, paused=True), damaged=(URL,)),
    partitions=[PartitionFacts(number, 987_654_321 - number, 0, 987_654_321, 12_345.0) for number in range(50)],
    histories_missing=True,
    dead_letters=Unknown(
        "Kafka at a-broker-of-a-shop.example.com:9092: no READ right for User:operator on topic purchases.dlq"
    ),
)
TABLES: dict[str, tuple[Callable[[], list[RenderableType]], list[str]]] = {
    "models": (
        lambda: [models_table(URL, [(VERSION, "live", manifest()), (VERSION, "before", None)])],
        [VERSION, "live", "before (damaged)", "12,345,678", "0.1234", "0.2345"],
    ),
    "models of two hold-outs": (
        lambda: [models_table(URL, [(VERSION, "live", judged()), (OTHER, "previous", judged("2026-11-08T10:15:00"))])],
        [VERSION, OTHER, "12,345,678", "0.1234 a", "0.2345 a", "0.1234 b", "0.2345 b", "do not compare"],
    ),
    "models of one hold-out": (
        lambda: [models_table(URL, [(VERSION, "live", judged()), (OTHER, "", judged()), (THIRD, "", manifest())])],
        [VERSION, OTHER, "0.1234 a", "0.1234 b", "b: purchases that are not known"],
    ),
    "rounds": (
        lambda: [rounds_table([ROUND, FAILED]), *reasons([ROUND, FAILED])],
        [VERSION, "rejected", "failed", "2026-11-22 10:16:40", "12,345,678", "1,234.5"],
    ),
    "gate": (
        lambda: [gate_table(GATE)],
        ["candidate − live", "0.1234 (0.1201 to 0.1267)", "-0.0038 (-0.0047 to -0.0029)", "popular"],
    ),
    "weights": (lambda: [weights_table(manifest())], ["demand of a year ago", "+0.1234", "-1.5000", "+2.2500"]),
    "evaluate": (lambda: [*evaluation_tables(evaluation(), 20)], ["candidate", "0.1234 ±0.0033", "0.123", "12.34"]),
    "evaluate few": (
        lambda: [*evaluation_tables(few(), 20)],
        ["12,345", "49", "too few", "0.1234 ±0.0033"],
    ),
    "verdict": (
        lambda: [*evaluation().verdict(20), *gate_verdict(GATE), *glossary()],
        ["For items new to a customer", "worse than the live model by 3 %", "coverage: which share of all items"],
    ),
    "imports": (lambda: [imports_table([IMPORT], set())], [IMPORT.id, "2026-11-22 10:15", "12,345,678", "12,345,000"]),
    "list": (lambda: [list_table("Recommended to 42", LIST, TITLES, 20)], ["sku-000123", "0.8312", "Pot"]),
    "history": (
        lambda: [history_table("42", HISTORY, TITLES, 9)],
        ["sku-000123", "2.5", "2026-11-22 12:00:00"],
    ),
    "explanation": (
        lambda: [*sentences("42", "sku-7", WHY, TITLES), parts_table("The score of sku-7", WHY.largest(1), TITLES)],
        ["sku-000123", "+0.5000", "+0.1500", "1 other item", "-0.0500", "0.6000", "Pot (sku-7) scores"],
    ),
    "status, well": (
        lambda: [screen(WELL, decide(WELL, StatusSettings(), at=AT))],
        ["The shop is served.", "4 partitions", "shop-1 (7)", "2026-11-22 10:15", "records/s"],
    ),
    "status, broken": (
        lambda: [screen(BROKEN, decide(BROKEN, StatusSettings(), at=AT))],
        ["BROKEN", "→ recsys rebuild, see Disaster recovery", "and 42 more, with less lag", "987,654,321", "1,234.5"],
    ),
    "settings": (
        lambda: [settings_table(describe_settings(Settings()))],
        ["RECSYS_KAFKA__BOOTSTRAP_SERVERS", "default"],
    ),
}


@pytest.mark.parametrize("width", [80, 120, 160])
@pytest.mark.parametrize("name", TABLES)
def test_every_table_can_be_read(name: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if (name, width) == ("settings", 80):
        return  # no table then: see the next test
    make, cells = TABLES[name]
    monkeypatch.setattr(output.results, "width", width)
    out = io.StringIO()
    console = Console(file=out, width=width)
    for part in make():
        console.print(part, highlight=False)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in out.getvalue()
    for cell in cells:
        assert any(cell in line for line in lines), cell
    words = set(re.findall(r"\w{3,}", out.getvalue()))
    for heading in {
        "models": ["version", "role"],
        "imports": ["import", "file", "rows", "new", "known", "rejected", "skipped"],
    }.get(name, []):
        assert heading in words


@pytest.mark.parametrize("width", [80, 160])
def test_settings_can_be_read(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(output.results, "width", width)
    config_command()
    lines = capsys.readouterr().out.splitlines()
    variables = [variable for variable, _, _, _ in describe_settings(Settings())]
    for variable in variables:
        assert sum(re.search(rf"\b{variable}\b", line) is not None for line in lines) >= 1, variable
    assert not any("…" in line for line in lines)
