"""Kafka clients, made from settings: what the guarantees depend on is fixed, the rest is the operator's."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka import KafkaError as ClientError
from confluent_kafka.admin import AdminClient

from recsys.errors import Fenced, KafkaError, KafkaUnavailable, SettingsError
from recsys.runtime.logs import RepeatsLeftOut
from recsys.settings import KafkaSettings, hide_in_records, secrets

__all__ = [
    "AdminClient",
    "ClientConfig",
    "ClientError",
    "Consumer",
    "KafkaException",
    "Message",
    "Producer",
    "TopicPartition",
    "answer_of",
    "client_config",
    "client_failed",
    "fatal_error_of",
    "is_fatal",
    "is_fenced",
    "kafka_unavailable",
    "open_admin",
    "open_consumer",
    "open_producer",
    "open_reader",
]
log = logging.getLogger(__name__)
_librdkafka_log = logging.getLogger("librdkafka")
# The operator's properties go to consumers, producers and admin clients alike; each passes over what is not its own.
_librdkafka_log.addFilter(lambda record: "and will be ignored by this" not in record.getMessage())
_librdkafka_log.addFilter(RepeatsLeftOut(every_s=30.0))
_librdkafka_log.addFilter(hide_in_records)
T = TypeVar("T")
ClientConfig = dict[str, str | int | float | bool]


def client_config(settings: KafkaSettings, defaults: ClientConfig, fixed: ClientConfig) -> ClientConfig:
    """Merge properties: the operator's win over our defaults, but not over what the guarantees depend on."""
    return {**defaults, **settings.librdkafka, **fixed, "bootstrap.servers": settings.bootstrap_servers}


def open_consumer(settings: KafkaSettings, group_id: str, **defaults: str | int | float | bool) -> Consumer:
    """Open a consumer whose offsets are stored and committed by hand; defaults have ``_`` for ``.``."""
    fixed: ClientConfig = {
        "group.id": group_id,
        "group.protocol": settings.group_protocol,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "allow.auto.create.topics": False,
    }
    if settings.group_protocol == "classic":
        fixed["partition.assignment.strategy"] = "cooperative-sticky"
    config = client_config(settings, {"check.crcs": True, **_dotted(defaults)}, fixed)
    with _wrong_properties_named():
        return Consumer(config, logger=_librdkafka_log)


def open_reader(settings: KafkaSettings, name: str) -> Consumer:
    """Open a consumer for `read_range`; it joins no group, the name only shows in the broker's logs."""
    return open_consumer(settings, f"{settings.group_id}-{name}", enable_partition_eof=True)


def open_producer(settings: KafkaSettings, **defaults: str | int | float | bool) -> Producer:
    """Open an idempotent producer that waits for all replicas; defaults have ``_`` for ``.``."""
    config = client_config(settings, _dotted(defaults), {"enable.idempotence": True, "acks": "all"})
    with _wrong_properties_named():
        return Producer(config, logger=_librdkafka_log)


def open_admin(settings: KafkaSettings) -> AdminClient:
    """Open an admin client; keep it in a variable: the futures of a temporary one fail."""
    with _wrong_properties_named():
        return AdminClient(client_config(settings, {}, {}), logger=_librdkafka_log)


@contextmanager
def _wrong_properties_named() -> Iterator[None]:
    """Only the operator's properties can be wrong when a client is made."""
    try:
        yield
    except (KafkaException, TypeError, ValueError) as error:
        problem = error.args[0].str() if error.args and isinstance(error.args[0], ClientError) else error
        shown = secrets.hidden_where_settings_are_quoted(str(problem))
        raise SettingsError(f"RECSYS_KAFKA__LIBRDKAFKA: {shown}") from None


def _dotted(properties: Mapping[str, str | int | float | bool]) -> ClientConfig:
    return {name.replace("_", "."): value for name, value in properties.items()}


def kafka_unavailable(settings: KafkaSettings, error: KafkaException) -> KafkaUnavailable:
    """Say in one line which brokers did not serve, and why."""
    problem = error.args[0].str() if error.args and isinstance(error.args[0], ClientError) else error
    return KafkaUnavailable(f"Kafka at {settings.bootstrap_servers}: {problem}")


# What a client says of its fatal state is the code _FATAL, with the text of the real one.
_FENCED = tuple(
    ClientError(code).str() for code in (ClientError.FENCED_INSTANCE_ID, ClientError.UNRELEASED_INSTANCE_ID)
)


def is_fatal(error: ClientError) -> bool:
    """Whether a client cannot go on after this error; errors inside messages carry a code and no flag."""
    return error.fatal() or error.code() == ClientError._FATAL or is_fenced(error)


def is_fenced(error: ClientError) -> bool:
    """Whether another member of the group has the same group.instance.id."""
    return any(words in error.str() for words in _FENCED)


def client_failed(settings: KafkaSettings, error: ClientError, client: str) -> KafkaError:
    """Return what a fatal error of a client ("consumer") means: a new one goes on, unless it was fenced."""
    if is_fenced(error):
        name = settings.librdkafka.get("group.instance.id", "")
        return Fenced(
            f"another member of group {settings.group_id} has the same group.instance.id ({name}): give each consumer "
            f"one of its own (RECSYS_KAFKA__LIBRDKAFKA), or none; one that was killed holds it for up to "
            f"session.timeout.ms ({error.str()})"
        )
    return KafkaUnavailable(f"the Kafka {client} failed permanently: {error.str()}")


def fatal_error_of(serve: Callable[[], object]) -> ClientError | None:
    """Call a producer's poll() or flush(), and return the fatal error that it raises, if any.

    Where a delivery is reported in the same call, the client raises a SystemError because of it, and the report is
    lost: of what had not been reported before nobody knows whether it arrived.
    """
    try:
        serve()
    except KafkaException as error:
        problem: ClientError = error.args[0]
        return problem
    except SystemError as error:
        if not isinstance(error.__cause__, KafkaException):
            raise
        cause: ClientError = error.__cause__.args[0]
        return cause
    return None


def answer_of(ask: Callable[[], T]) -> T:
    """Make a call that waits for a broker, in a thread of its own, so that signals are handled meanwhile."""
    answer: Future[T] = Future()

    def call() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=call, name="ask-kafka", daemon=True).start()
    return answer.result()
