"""docs/metrics.md, the rules for Prometheus and the dashboard: all of them name what the services count."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from api.metrics import ApiMetrics
from consumer.metrics import ConsumerMetrics
from tests.monitoring import DEPLOYED, installed
from tests.services import PROJECT
from tests.unit.test_service_state import CASES, CAUSE, FACTS, lines
from trainer.metrics import TrainerMetrics

DOCUMENT = PROJECT / "docs" / "metrics.md"
DASHBOARD = PROJECT / "deploy" / "grafana" / "recsys.json"
_START = "<!-- written by tests/unit/test_monitoring_files.py -->\n"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((DEPLOYED / "rules.yml").read_text())["groups"] for rule in group["rules"]
]
CODES = {code for code, *_ in CASES} | {code for name in FACTS for code in lines(**{name: CAUSE})}
"""Of all lines of recsys status."""


def registries() -> dict[str, CollectorRegistry]:
    return {
        "Consumer": ConsumerMetrics().registry,
        "Trainer": TrainerMetrics().registry,
        "HTTP API": ApiMetrics()._registry,
    }


def described(registry: CollectorRegistry) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, type, labels and meaning of what a service counts."""
    collectors: list[Collector] = list(registry._collector_to_names)
    for collector in collectors:
        for family in collector.collect():
            labels: Sequence[str] = getattr(collector, "_labelnames", ()) or getattr(family, "_labelnames", ())
            suffix = "_total" if family.type == "counter" else ""
            yield f"{family.name}{suffix}", family.type, ", ".join(labels), family.documentation


def tables() -> str:
    parts = []
    for service, registry in registries().items():
        rows = [f"| `{name}` | {kind} | {labels} | {meaning} |" for name, kind, labels, meaning in described(registry)]
        parts += [f"## {service}", "", "| metric | type | labels | meaning |", "|---|---|---|---|", *sorted(rows), ""]
    return "\n".join(parts)


def test_the_document_lists_everything_that_the_services_count() -> None:
    before, found = DOCUMENT.read_text().split(_START)
    if os.environ.get("UPDATE_DOCUMENTS"):
        DOCUMENT.write_text(f"{before}{_START}\n{tables()}")
        return
    assert found == f"\n{tables()}", "run UPDATE_DOCUMENTS=1 make test ARGS=tests/unit/test_monitoring_files.py"


def test_names_follow_the_conventions_of_prometheus() -> None:
    for registry in registries().values():
        for name, kind, _, meaning in described(registry):
            assert re.fullmatch(r"recsys_(consumer|trainer|api|shop)_[a-z_]+", name)
            assert name.endswith("_total") == (kind == "counter"), name
            assert kind != "histogram" or name.endswith("_seconds")
            assert not re.search(r"_(ms|millis|mib|kb|minutes|hours)(_|$)", name), "base units only"
            assert meaning


def known_names() -> set[str]:
    """Return the names of all series that there may be."""
    names = {rule["record"] for rule in RULES if "record" in rule} | {"up"}
    for registry in registries().values():
        for name, kind, *_ in described(registry):
            names |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else {name}
    return names


def queries() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


@pytest.mark.parametrize("expression", [*[rule["expr"] for rule in RULES], *queries()])
def test_rules_and_dashboard_ask_for_what_is_counted(expression: str) -> None:
    names = set(re.findall(r"\b(?:recsys[_:][a-z0-9_:]+|up(?=\{))", expression))
    for pattern in re.findall(r'__name__=~"(.*?)"', expression):
        names = {name for name in known_names() if re.fullmatch(pattern, name)}
        assert len(names) == pattern.count("|") + 1
    assert names, expression
    assert names <= known_names()


def test_every_line_of_the_status_has_an_alert_of_its_name_and_the_manual_tells_of_all_alerts() -> None:
    alerts = {rule["alert"]: rule for rule in RULES if "alert" in rule}
    watched = {}
    for name, rule in alerts.items():
        for code in re.findall(r'check="([a-z-]+)"', rule["expr"]):
            watched[code] = name
    assert watched == {code: "Recsys" + code.title().replace("-", "") for code in CODES}
    manual = (PROJECT / "docs" / "operations.md").read_text()
    for name in set(alerts) - set(watched.values()):
        assert f"| `{name}` |" in manual
    for code in CODES:
        assert re.search(rf"^\| [^|`]+ `{code}` \|", manual, flags=re.MULTILINE)


def test_rules_fire_when_they_should_and_only_then() -> None:
    tests = DEPLOYED / "rules_test.yml"
    done = subprocess.run(
        [installed("promtool"), "test", "rules", str(tests)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tested = {case["alertname"] for test in yaml.safe_load(tests.read_text())["tests"]
              for case in test.get("alert_rule_test", []) if case["exp_alerts"]}  # fmt: skip
    assert tested == {rule["alert"] for rule in RULES if "alert" in rule}
    cases = [case for test in yaml.safe_load(tests.read_text())["tests"] for case in test.get("promql_expr_test", [])]
    recorded = {name for case in cases for name in re.findall(r"recsys:[a-z0-9_:]+", case["expr"])}
    assert recorded == {rule["record"] for rule in RULES if "record" in rule}
