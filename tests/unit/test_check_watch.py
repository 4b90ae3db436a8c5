"""What running services say of the checks: once when something becomes wrong, once when it is right again."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import pytest

from recsys.operations.check_watch import CheckWatch
from recsys.operations.finding import Finding, fine, not_checked
from recsys.operations.status_line import Level

SHORT = Finding("topic-retention", Level.WARNING, "records stay for 60 min", "kafka-configs.sh …")
BROKEN = Finding("topic-retention", Level.BROKEN, "records stay for 1 min", "kafka-configs.sh …")
WELL = fine("topic-retention", "records stay for 7 d")


class Watched:
    """A watch to which one look after the other is told."""

    def __init__(self) -> None:
        self.noted: dict[str, bool] = {}
        self._found: Sequence[Finding] = ()
        self._watch = CheckWatch(lambda: self._found, self.noted.__setitem__)

    def failing(self) -> Mapping[str, str]:
        return self._watch.failing()

    def look(self, *found: Finding) -> None:
        self._found = found
        self._watch.look()


def test_what_becomes_wrong_and_right_again_is_said_once_each(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    for finding in (WELL, SHORT, SHORT, BROKEN, SHORT, WELL, WELL, SHORT):
        watched.look(finding)
        assert watched.noted == {"topic-retention": finding.level > Level.OK}
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    endangered = "endangered: purchases expire before a round archives them: no model and no rebuild has them"
    assert said == [
        ("WARNING", f"check topic-retention: records stay for 60 min; {endangered}; kafka-configs.sh …"),
        ("ERROR", f"check topic-retention: records stay for 1 min; {endangered}; kafka-configs.sh …"),
        ("WARNING", "check topic-retention: all is well again: records stay for 7 d"),
        ("WARNING", f"check topic-retention: records stay for 60 min; {endangered}; kafka-configs.sh …"),
    ]


def test_what_cannot_be_looked_at_stays_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    watched.look(not_checked("topic-retention", "Kafka cannot be asked"))
    assert watched.noted == {}
    watched.look(SHORT)
    watched.look(not_checked("topic-retention", "Kafka cannot be asked"))
    assert watched.failing() == {"topic-retention": "warning"}
    watched.look(SHORT)
    assert watched.noted == {"topic-retention": True}
    assert len(caplog.records) == 1


@pytest.mark.parametrize("code", ["kafka", "redis", "topic-compacted", "redis-eviction", "names", "ports", "tls"])
def test_what_a_service_says_by_itself_is_in_the_metrics_and_the_registry_alone(
    code: str, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched()
    watched.look(Finding(code, Level.BROKEN, "away"))
    assert watched.noted == {code: True}
    assert watched.failing() == {code: "broken"}
    watched.look(fine(code, "there"))
    assert watched.noted == {code: False}
    assert watched.failing() == {}
    assert caplog.records == []


def test_one_of_several_brokers_that_is_away_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    watched = Watched()
    watched.look(Finding("ports", Level.WARNING, "nobody listens: Kafka at b:9092"))
    watched.look(Finding("ports", Level.BROKEN, "nobody listens: Kafka at a:9092, b:9092"))
    watched.look(fine("ports", "somebody listens"))
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["check ports"] * 2


@pytest.mark.parametrize(("finding", "level"), [(SHORT, "INFO"), (BROKEN, "ERROR")])
def test_what_could_be_better_from_the_start_is_told_and_no_warning(
    finding: Finding, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    watched = Watched()
    watched.look(finding)
    watched.look(finding)
    assert [record.levelname for record in caplog.records] == [level]
    assert watched.noted == {"topic-retention": True}
