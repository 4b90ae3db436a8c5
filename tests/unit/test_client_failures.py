"""What errors of Kafka clients mean, told from the error objects that a real client gives."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from consumer.rebalance import Assignment
from recsys.errors import Fenced, KafkaUnavailable
from recsys.kafka.clients import (
    answer_of,
    client_failed,
    fatal_error_of,
    is_fatal,
    is_fenced,
    kafka_unavailable,
)
from recsys.kafka.topics import Topic
from recsys.settings import KafkaSettings

SETTINGS = KafkaSettings(group_id="shop-7", librdkafka={"group.instance.id": "recsys-1"})
# Inside messages the client wraps the cause into the text of _FATAL, and fatal() says False.
CLASSIC = KafkaError(
    KafkaError._FATAL,
    "Fatal error: Broker: Static consumer fenced by other consumer with same group.instance.id: Fatal consumer error: "
    "Broker: Static consumer fenced by other consumer with same group.instance.id",
)
CONSUMER = KafkaError(
    KafkaError._FATAL,
    "Fatal error: Broker: The instance ID is still used by another member in the consumer group: "
    "ConsumerGroupHeartbeat fatal error: Broker: The instance ID is still used by another member in the consumer group",
)
UNUSED: Any = None
OTHER = KafkaError(KafkaError._FATAL, "Fatal error: Broker: Producer attempted an operation with an old epoch")


@pytest.mark.parametrize(
    "error",
    [CLASSIC, CONSUMER, KafkaError(KafkaError.FENCED_INSTANCE_ID), KafkaError(KafkaError.UNRELEASED_INSTANCE_ID)],
)
def test_a_fenced_client_is_fatal_and_ends_the_process_with_a_line_that_names_the_setting(error: KafkaError) -> None:
    assert is_fatal(error)
    assert is_fenced(error)
    failure = client_failed(SETTINGS, error, "consumer")
    assert isinstance(failure, Fenced)
    assert "\n" not in str(failure)
    assert "another member of group shop-7 has the same group.instance.id (recsys-1)" in str(failure)


@pytest.mark.parametrize("error", [OTHER, KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "desync", fatal=True)])
def test_any_other_fatal_error_asks_for_a_new_client(error: KafkaError) -> None:
    assert is_fatal(error)
    assert not is_fenced(error)
    assert isinstance(client_failed(SETTINGS, error, "consumer"), KafkaUnavailable)


@pytest.mark.parametrize(
    "code", [KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError.REBALANCE_IN_PROGRESS]
)
def test_errors_that_pass_are_not_fatal(code: int) -> None:
    assert not is_fatal(KafkaError(code))


def test_a_fatal_error_is_found_also_where_a_report_fails_because_of_it() -> None:
    def raise_(error: BaseException, cause: BaseException | None = None) -> Any:
        raise error from cause

    problem = KafkaException(OTHER)
    assert fatal_error_of(lambda: 0) is None
    assert fatal_error_of(lambda: raise_(problem)) is OTHER
    assert fatal_error_of(lambda: raise_(SystemError("returned a result with an exception set"), problem)) is OTHER
    with pytest.raises(SystemError):
        fatal_error_of(lambda: raise_(SystemError("something else")))
    lost = fatal_error_of(lambda: raise_(SystemError("<method flush> returned NULL without setting an exception")))
    assert lost is not None
    assert is_fatal(lost)


def test_an_answer_is_what_the_call_returns_or_raises() -> None:
    assert answer_of(lambda: 5) == 5
    with pytest.raises(KafkaException):
        answer_of(lambda: (_ for _ in ()).throw(KafkaException(OTHER)))


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_a_rebalance_meets_in_a_client_that_failed_for_good_is_left_to_its_message(wrapped: bool) -> None:
    """Commits and other calls say "Local: Fatal error" and no cause: a fenced member, replaced, would fence back."""
    assignment = Assignment(SETTINGS, Topic("purchases", "id", (0,)), UNUSED)
    problem = KafkaException(KafkaError(KafkaError._FATAL, "Commit failed: Local: Fatal error"))

    def callback(consumer: Any, places: list[TopicPartition]) -> None:
        if wrapped:
            raise kafka_unavailable(SETTINGS, problem) from problem
        raise problem

    assignment._kept(callback)(UNUSED, [])
    assignment.raise_failure()


def test_anything_else_that_a_rebalance_meets_ends_the_client() -> None:
    assignment = Assignment(SETTINGS, Topic("purchases", "id", (0,)), UNUSED)

    def callback(consumer: Any, places: list[TopicPartition]) -> None:
        raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    assignment._kept(callback)(UNUSED, [])
    with pytest.raises(KafkaUnavailable):
        assignment.raise_failure()
