"""Kafka clients, made from settings: what the guarantees depend on is fixed, the rest is the operator's."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka import KafkaError as ClientError
from confluent_kafka.admin import AdminClient

from recsys.errors import KafkaUnavailable, SettingsError
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
    "client_config",
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
