from __future__ import annotations

import logging

import pytest

from recsys.errors import SettingsError
from recsys.kafka import cleanup_policy as module
from recsys.kafka.cleanup_policy import PolicyWatch, cleanup_policy, is_compacted
from recsys.runtime.logs import RepeatsLeftOut
from recsys.settings import KafkaSettings

SETTINGS = KafkaSettings(topic="orders", bootstrap_servers="kafka-1:9092")


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(module.__name__), "filters", [RepeatsLeftOut(every_s=3600.0)])


@pytest.mark.parametrize("policy", ["compact", "compact,delete", "delete,compact", "delete, compact"])
def test_a_policy_that_contains_compaction_compacts(policy: str) -> None:
    assert is_compacted(policy)


@pytest.mark.parametrize("policy", ["", "delete", "none"])
def test_other_policies_do_not(policy: str) -> None:
    assert not is_compacted(policy)


def test_a_compacted_topic_is_an_error_with_the_command_that_mends_it_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "topic_config", lambda settings, name: {"cleanup.policy": "compact,delete"})
    assert [cleanup_policy(SETTINGS) for _ in range(3)] == ["compact,delete"] * 3
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "topic orders is compacted (cleanup.policy=compact,delete)" in record.getMessage()
    assert record.getMessage().endswith(
        "kafka-configs.sh --bootstrap-server kafka-1:9092 --alter --entity-type topics --entity-name orders "
        "--add-config cleanup.policy=delete"
    )


def test_a_missing_right_to_look_is_a_warning_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "topic_config", lambda settings, name: None)
    assert [cleanup_policy(SETTINGS) for _ in range(3)] == ["", "", ""]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "no right to describe its configuration (DescribeConfigs)" in record.getMessage()


def test_what_is_right_is_not_mentioned(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(module, "topic_config", lambda settings, name: {"cleanup.policy": "delete"})
    assert cleanup_policy(SETTINGS) == "delete"
    assert caplog.records == []


def test_wrong_settings_are_left_to_those_who_say_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that looks says nothing of them, and does not end with a traceback."""

    def refuse(_: KafkaSettings) -> str:
        raise SettingsError("RECSYS_KAFKA__LIBRDKAFKA: no such property")

    monkeypatch.setattr(module, "cleanup_policy", refuse)
    watch = PolicyWatch(KafkaSettings(), lambda _: None)
    watch._stop.set()
    watch._run()
