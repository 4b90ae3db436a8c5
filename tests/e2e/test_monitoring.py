"""A real Prometheus scrapes services that run: the dashboard shows something, alerts say what `recsys status` says."""

from __future__ import annotations

import itertools
import json
import re

import pytest

from tests.api import KEYS, PATIENT, asked_by, prepare
from tests.looks import LENIENT, LEVELS, said_by
from tests.monitoring import Prometheus, prometheus
from tests.planted import event_json
from tests.services import PROJECT, Service, Shop, wait_until
from tests.stream import publish

pytestmark = [pytest.mark.kafka, pytest.mark.real_kafka, pytest.mark.slow]
DASHBOARD = json.loads((PROJECT / "deploy" / "grafana" / "recsys.json").read_text())
QUERIES = [
    target["expr"].replace("$__rate_interval", "1m") for panel in DASHBOARD["panels"] for target in panel["targets"]
]
CALM = {
    **LENIENT,
    "RECSYS_STATUS__EVENT_TO_LIST_MS": "1e9",
    "RECSYS_STATUS__LAG_S": "1e6",
    "RECSYS_STATUS__DEAD_LETTER_SHARE": "0.0001",
}
"""How busy the machine of the tests is, and what it has left, is no matter here."""


def scraped_at(service: Service) -> str:
    """Return host and port of a service's metrics."""
    found = wait_until(lambda: re.search(r"metrics at http://(\S+)/metrics\n", service.said()), "it serves metrics")
    return found[1]


def test_the_dashboard_shows_the_shop_and_alerts_say_what_the_status_says(shop: Shop) -> None:
    shop.environment.update(CALM)
    prepare(shop)
    consumer = shop.start_consumer()
    trainer = shop.start_trainer(RECSYS_TRAINER__METRICS_PORT="any")
    api = shop.start_api(**PATIENT)
    consumer.await_assigned(4)
    targets = {
        "recsys-consumer": scraped_at(consumer),
        "recsys-trainer": scraped_at(trainer),
        "recsys-api": api.url.removeprefix("http://"),
    }
    numbers, reader = itertools.count(), asked_by(api, "read")
    with prometheus(shop.folder / "prometheus", targets, KEYS["read"]) as server:

        def without_answer() -> list[str]:
            """Let the shop go on for a moment, and return what the dashboard still has nothing to show of."""
            number = next(numbers)
            event = event_json(f"user-{number}", "item-003", event_id=f"e{number}")
            publish(shop, [(f"user-{number}", event), ("nobody", b"no event")])
            assert reader(f"/v1/users/user-{number}/recommendations").status_code == 200
            return [query for query in QUERIES if not server.values(query)]

        wait_until(lambda: not without_answer(), "each query of the dashboard finds something")
        assert server.values("up") == [1.0] * 3
        wait_until(lambda: levels(server) == said(shop), "both say the same")
        assert said(shop)["dead-letters"] == 2
        wait_until(lambda: server.alerts().get("RecsysDeadLetters") == "critical", "the alert is about to fire")

        consumer.kill()
        wait_until(lambda: server.alerts().get("RecsysConsumers") == "critical", "the consumer is missed")
        assert said(shop)["consumers"] == 2
        wait_until(lambda: "RecsysTargetDown" in server.alerts(), "and cannot be scraped")
        assert trainer.stop() == 0
        wait_until(
            lambda: not server.values("recsys_shop_check_level"), "nothing is told of a shop that nobody watches"
        )
        wait_until(lambda: server.alerts().get("RecsysNotWatched") == "critical", "that is told")


def levels(server: Prometheus) -> dict[str, int]:
    """Return the level of each line, as Prometheus knows it."""
    result = server.ask("query", query="recsys_shop_check_level")["result"]
    return {sample["metric"]["check"]: int(sample["value"][1]) for sample in result}


def said(shop: Shop) -> dict[str, int]:
    """Return the level of each line, as `recsys status` says it."""
    return {code: LEVELS.index(line["level"]) for code, line in said_by(shop, "status", lists="lines").listed.items()}
