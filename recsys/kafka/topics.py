"""Topics: what they are, whether they are there, and whether they are still the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple

from confluent_kafka import TopicCollection
from confluent_kafka.admin import AdminClient, ClusterMetadata, ConfigResource  # type: ignore[attr-defined]  # it has it
from confluent_kafka.cimpl import NewTopic

from recsys.errors import KafkaError, KafkaUnavailable, RightMissing, TopicMissing
from recsys.kafka.causes import causes_of
from recsys.kafka.clients import (
    ClientError,
    Consumer,
    KafkaException,
    TopicPartition,
    answer_of,
    kafka_unavailable,
    lacks_right,
    no_right,
    open_admin,
)
from recsys.kafka.silence import Silence
from recsys.logger import logger
from recsys.settings import KafkaSettings

log = logger(__name__)
# Topic ids came with Kafka 2.8; librdkafka's embedded broker answers no DescribeTopics request at all.
_EMBEDDED_CLUSTER = "mockCluster"
_NO_TOPIC_ID = "AAAAAAAAAAAAAAAAAAAAAA"
_WATCH_EVERY_S = 1.0
LOOK_WITHIN_S = 4.0
"""How long a service that looks again and again waits for an answer before it says that there is none."""
_NO_RIGHT = (ClientError.TOPIC_AUTHORIZATION_FAILED, ClientError.CLUSTER_AUTHORIZATION_FAILED)
_OPTION_REFUSED = (ClientError.POLICY_VIOLATION, ClientError.INVALID_CONFIG, ClientError.INVALID_REQUEST)
_ROOM_FOR_HEADERS = 65_536
_MESSAGES = 100


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as the broker describes it.

    Attributes
    ----------
    name : str
    id : str
        Changes when the topic is deleted and created again, which starts its offsets anew.
    partitions : tuple of int
    """

    name: str
    id: str
    partitions: tuple[int, ...]

    def source(self, partition: int) -> str:
        """Name one partition for the low-water marks of applied events."""
        return f"{self.id}:{partition}"

    def sources(self, partitions: Iterable[int]) -> list[str]:
        """Name some partitions."""
        return [self.source(partition) for partition in partitions]


class Described(NamedTuple):
    """All that a broker tells of a topic; ``rights`` of this user on it, None where it does not tell."""

    topic: Topic
    metadata: ClusterMetadata
    rights: frozenset[str] | None

    @property
    def is_embedded(self) -> bool:
        """Whether the broker is librdkafka's own, of the demo, which leaves most questions unanswered."""
        return (self.metadata.cluster_id or "").startswith(_EMBEDDED_CLUSTER)


def describe_topic(settings: KafkaSettings, name: str, *, right: str = "READ") -> Topic:
    """Ask a broker about a topic, and whether this user has a right on it, ``READ`` or ``WRITE``.

    Raises
    ------
    KafkaUnavailable
        When no broker answers, or the right is missing.
    TopicMissing
        When there is no such topic.
    """
    return _describe(open_admin(settings), settings, name, right)


def _describe(
    admin: AdminClient, settings: KafkaSettings, name: str, right: str, *, timeout_s: float | None = None
) -> Topic:
    topic, _, rights = described(admin, settings, name, timeout_s=timeout_s)
    if rights is not None and right not in rights:
        raise RightMissing(f"Kafka at {settings.bootstrap_servers}: {no_right(settings, right, f'topic {name}')}")
    return topic


def described(
    admin: AdminClient, settings: KafkaSettings, name: str, *, timeout_s: float | None = None
) -> Described:  # fmt: skip
    """Ask a broker for all that it tells of a topic.

    Raises
    ------
    KafkaUnavailable
        When no broker answers, or this user may not even describe the topic.
    TopicMissing
        When there is no such topic.
    """
    timeout_s = settings.timeout_s if timeout_s is None else timeout_s
    rights: frozenset[str] | None = None
    try:
        metadata = answer_of(lambda: admin.list_topics(name, timeout=timeout_s))
        causes_of(settings).forget()
        topic = metadata.topics[name]
        if topic.error is not None and lacks_right(topic.error):
            raise kafka_unavailable(settings, topic.error, right="DESCRIBE", topic=name)
        if topic.error is not None or not topic.partitions:
            variable = f"RECSYS_KAFKA__{'DEAD_LETTER_' * (name == settings.dead_letters)}TOPIC"
            raise TopicMissing(
                f"topic {name} does not exist at {settings.bootstrap_servers}; "
                f"create it (README, section Run it for real) or set {variable}"
            )
        cluster = metadata.cluster_id or ""
        topic_id = _NO_TOPIC_ID
        if not cluster.startswith(_EMBEDDED_CLUSTER):
            told = admin.describe_topics(
                TopicCollection([name]), include_authorized_operations=True, request_timeout=timeout_s
            )[name].result()
            # Brokers before 2.3 tell no rights; who may describe a topic has one.
            rights = frozenset(operation.name for operation in told.authorized_operations or ()) or None
            # Kafka writes its ids in URL-safe base64 without padding; librdkafka's text may hold + and /.
            topic_id = str(told.topic_id).rstrip("=").replace("+", "-").replace("/", "_")
        if topic_id == _NO_TOPIC_ID:  # the broker knows no topic ids
            topic_id = f"{name}@{cluster}"
        return Described(Topic(name, topic_id, tuple(sorted(topic.partitions))), metadata, rights)
    except KafkaException as error:
        admin.poll(0)  # hears why
        raise kafka_unavailable(settings, error, right="DESCRIBE", topic=name) from error


def ensure_group(settings: KafkaSettings, consumer: Consumer) -> None:
    """Make sure that this user may use the consumer group: without the right, asking for its offsets only times out.

    The consumer tells then, when it is asked for messages; so it must not have subscribed yet. An admin client could
    ask for the rights, but librdkafka 2.16 may end the process if the group's coordinator comes back meanwhile.

    Raises
    ------
    RightMissing
    """
    try:
        consumer.committed([TopicPartition(settings.topic, 0)], timeout=settings.timeout_s)
    except KafkaException as error:  # there is no such group yet, or no broker answers: whatever comes next will say so
        told = [error.args[0], *(message.error() for message in consumer.consume(_MESSAGES, 0))]
        for problem in told:
            if problem is not None and lacks_right(problem):
                raise kafka_unavailable(settings, problem) from error


def topic_config(settings: KafkaSettings, name: str) -> Mapping[str, str] | None:
    """Return the configuration of a topic; empty where the embedded broker has none, None where it may not be read.

    Raises
    ------
    KafkaUnavailable
        When no broker answers, or there is no such topic.
    """
    admin = open_admin(settings)
    resource = ConfigResource(ConfigResource.Type.TOPIC, name)
    try:
        metadata = answer_of(lambda: admin.list_topics(name, timeout=settings.timeout_s))
        if (metadata.cluster_id or "").startswith(_EMBEDDED_CLUSTER):
            return {}
        asked = admin.describe_configs([resource], request_timeout=settings.timeout_s)
        return {option: entry.value or "" for option, entry in asked[resource].result().items()}
    except KafkaException as error:
        if error.args[0].code() in _NO_RIGHT:
            return None
        raise kafka_unavailable(settings, error) from error


class TopicWatch:
    """Notices that a topic has been deleted, or deleted and created again, which starts its offsets anew.

    librdkafka goes on reading at its old position then. Use it as a context manager: a thread looks every second. It
    says as well when no broker answers: a consumer to which nothing comes could not tell.

    Parameters
    ----------
    settings : KafkaSettings
    topic : Topic
    on_silence : callable
        Takes the seconds since a broker last answered, 0 while they do.
    """

    def __init__(
        self, settings: KafkaSettings, topic: Topic, *, on_silence: Callable[[float], None] = lambda _: None
    ) -> None:
        self._silence = Silence(settings, log, on_silence)
        self._settings = settings
        self._topic = topic
        self._changed: KafkaError | None = None
        self._stop = threading.Event()
        self._admin = open_admin(settings)
        self._thread = threading.Thread(target=self._run, name="topic-watch", daemon=True)

    def __enter__(self) -> TopicWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()

    def raise_if_changed(self, *, look: bool = False) -> None:
        """Raise `TopicMissing` or `KafkaUnavailable` if it is no longer the same topic; ``look`` asks right now."""
        if look:
            self._look(self._settings.timeout_s)
        if self._changed is not None:
            raise self._changed

    def _run(self) -> None:
        while not self._stop.wait(_WATCH_EVERY_S):
            self._look(min(LOOK_WITHIN_S, self._settings.timeout_s))

    def _look(self, timeout_s: float) -> None:
        self._admin.poll(0)  # else what it has to tell would pile up
        try:
            found = _describe(self._admin, self._settings, self._topic.name, "READ", timeout_s=timeout_s)
        except TopicMissing as error:
            self._changed = error
        except RightMissing:  # which reading will meet as well, and wait for
            self._silence.answered()
        except Exception as error:  # none may end the thread; the next look may do better
            self._silence.unanswered(error)
        else:
            self._silence.answered()
            if found.id != self._topic.id:
                self._changed = KafkaUnavailable(f"topic {found.name} has been deleted and created again")


def create_topic_if_missing(settings: KafkaSettings, name: str, *, partitions: int, for_records_of: str) -> bool:
    """Create a topic with the broker's default replication; return whether it was missing.

    It takes what the topic ``for_records_of`` takes, and 64 KiB of headers more; where that is not known, or refused,
    what the broker takes by default.
    """
    admin = open_admin(settings)
    try:
        topic = answer_of(lambda: admin.list_topics(name, timeout=settings.timeout_s)).topics[name]
    except KafkaException as error:
        admin.poll(0)  # hears why
        raise kafka_unavailable(settings, error) from error
    if topic.error is None and topic.partitions:
        return False
    if topic.error is not None and lacks_right(topic.error):
        raise kafka_unavailable(settings, topic.error, right="DESCRIBE", topic=name)
    largest = (topic_config(settings, for_records_of) or {}).get("max.message.bytes")
    config = {"max.message.bytes": str(int(largest) + _ROOM_FOR_HEADERS)} if largest else {}
    try:
        try:
            _create(admin, settings, NewTopic(name, num_partitions=partitions, config=config))
        except KafkaException as error:
            if not config or error.args[0].code() not in _OPTION_REFUSED:
                raise
            log.warning(
                "topic_not_created",
                "topic {topic} cannot be created with {config}: {error}",
                topic=name,
                config=config,
                error=error.args[0].str(),
            )
            _create(admin, settings, NewTopic(name, num_partitions=partitions))
    except KafkaException as error:
        if error.args[0].code() == ClientError.TOPIC_ALREADY_EXISTS:
            return False
        problem = error.args[0].str()
        if lacks_right(error.args[0]):
            problem = no_right(settings, "CREATE", f"topic {name}")
        raise KafkaUnavailable(
            f"Kafka at {settings.bootstrap_servers}: topic {name} does not exist and cannot be created: {problem}"
        ) from error
    return True


def _create(admin: AdminClient, settings: KafkaSettings, topic: NewTopic) -> None:
    admin.create_topics([topic], request_timeout=settings.timeout_s)[topic.topic].result()


def erase_records(settings: KafkaSettings, topic: Topic, before: Mapping[int, int]) -> None:
    """Erase the records of some partitions that come before an offset.

    Raises
    ------
    KafkaUnavailable
        When no broker answers, the right is missing, or the topic's records are not to be erased.
    """
    admin = open_admin(settings)
    places = [TopicPartition(topic.name, partition, offset) for partition, offset in before.items()]
    try:
        for future in admin.delete_records(places, request_timeout=settings.timeout_s).values():
            future.result()
    except KafkaException as error:
        raise kafka_unavailable(settings, error, right="DELETE", topic=topic.name) from error


def end_offsets(consumer: Consumer, settings: KafkaSettings, topic: Topic) -> dict[int, tuple[int, int]]:
    """Return the first offset still there and the next one to be written, by partition."""
    try:
        return {
            partition: consumer.get_watermark_offsets(
                TopicPartition(topic.name, partition), timeout=settings.timeout_s, cached=False
            )
            for partition in topic.partitions
        }
    except KafkaException as error:
        raise kafka_unavailable(settings, error) from error
