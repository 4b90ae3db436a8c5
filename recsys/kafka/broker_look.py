"""What brokers say of themselves, of topics and of what this user may do with them; nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]  # it has it

from recsys.errors import KafkaUnavailable
from recsys.kafka.clients import KafkaException, TopicPartition, kafka_unavailable, open_admin
from recsys.kafka.topics import described, topic_config
from recsys.settings import KafkaSettings


@dataclass(frozen=True, slots=True)
class Broker:
    """Where a broker says that clients find it."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class TopicLook:
    """A topic as `recsys doctor` looks at it.

    Attributes
    ----------
    partitions : int
    replicas : int
        Of the partition that has the fewest.
    brokers : sequence of Broker
        All of the cluster.
    rights : frozenset of str or None
        What this user may do, as ACLs name it (``READ``); None where the brokers do not tell.
    config : mapping of str → str, or None
        None where it may not be read; empty where the broker has none.
    is_embedded : bool
        Whether it is librdkafka's own broker, of the demo, which leaves most questions unanswered.
    """

    name: str
    id: str
    partitions: int
    replicas: int
    brokers: tuple[Broker, ...]
    rights: frozenset[str] | None
    config: Mapping[str, str] | None
    is_embedded: bool = False


def look_at_topic(settings: KafkaSettings, name: str) -> TopicLook:
    """Ask the brokers about a topic.

    Raises
    ------
    KafkaUnavailable
        When no broker answers.
    RightMissing
        When this user may not even describe the topic.
    TopicMissing
    """
    found = described(open_admin(settings), settings, name)
    return TopicLook(
        name,
        found.topic.id,
        len(found.topic.partitions),
        min((len(one.replicas) for one in found.metadata.topics[name].partitions.values()), default=1),
        tuple(Broker(str(broker.host), int(broker.port)) for broker in found.metadata.brokers.values()),
        found.rights,
        {} if found.is_embedded else topic_config(settings, name),
        found.is_embedded,
    )


def newest_record_ms(settings: KafkaSettings, topic: TopicLook) -> int | None:
    """Return the largest timestamp of a topic's records, in epoch milliseconds; None where there is none.

    Raises
    ------
    KafkaUnavailable
        When no broker answers, or none that can say it.
    """
    admin = open_admin(settings)
    newest = OffsetSpec.max_timestamp()  # type: ignore[no-untyped-call]
    asked = {TopicPartition(topic.name, partition): newest for partition in range(topic.partitions)}
    try:
        answers = admin.list_offsets(asked, request_timeout=settings.timeout_s)
        found = [answer.result() for answer in answers.values()]
    except KafkaException as error:
        raise kafka_unavailable(settings, error, topic=topic.name) from error
    except ValueError as error:
        raise KafkaUnavailable(
            f"Kafka at {settings.bootstrap_servers} cannot be asked for timestamps: {error}"
        ) from error
    return max((one.timestamp for one in found if one.offset >= 0 and one.timestamp >= 0), default=None)
