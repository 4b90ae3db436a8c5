"""What brokers say of themselves, of topics and of what this user may do with them; nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from confluent_kafka import TopicCollection
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # it has it

from recsys.errors import KafkaUnavailable
from recsys.kafka.clients import KafkaException, TopicPartition, answer_of, kafka_unavailable, open_admin
from recsys.kafka.topics import EMBEDDED_CLUSTER, describe_topic, topic_config
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
    described = describe_topic(settings, name, right="")
    admin = open_admin(settings)
    try:
        metadata = answer_of(lambda: admin.list_topics(name, timeout=settings.timeout_s))
        is_embedded = (metadata.cluster_id or "").startswith(EMBEDDED_CLUSTER)
        return TopicLook(
            name,
            described.id,
            len(described.partitions),
            min((len(one.replicas) for one in metadata.topics[name].partitions.values()), default=1),
            tuple(Broker(str(broker.host), int(broker.port)) for broker in metadata.brokers.values()),
            None if is_embedded else _rights(admin, settings, name),
            topic_config(settings, name),
            is_embedded,
        )
    except KafkaException as error:
        admin.poll(0)  # hears why
        raise kafka_unavailable(settings, error, right="DESCRIBE", topic=name) from error


def _rights(admin: AdminClient, settings: KafkaSettings, name: str) -> frozenset[str] | None:
    asked = admin.describe_topics(
        TopicCollection([name]), include_authorized_operations=True, request_timeout=settings.timeout_s
    )
    rights = asked[name].result().authorized_operations
    return frozenset(right.name for right in rights) if rights else None  # brokers before 2.3 tell none


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
