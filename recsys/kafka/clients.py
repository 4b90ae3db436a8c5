"""Kafka clients, made from settings: what the guarantees depend on is fixed, the rest is the operator's."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka import KafkaError as ClientError
from confluent_kafka.admin import AdminClient

from recsys.errors import Fenced, KafkaError, KafkaUnavailable, RightMissing, SettingsError
from recsys.kafka.causes import Causes, causes_of, no_broker_there, user_of, without_secrets
from recsys.logger import logger
from recsys.runtime.logs import RepeatsLeftOut
from recsys.settings import KafkaSettings, hide_in_records, secrets
from recsys.settings.regular_files import open_regular, what_is_no_file

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
    "explained",
    "fatal_error_of",
    "is_fatal",
    "is_fenced",
    "kafka_unavailable",
    "lacks_right",
    "no_right",
    "open_admin",
    "open_consumer",
    "open_producer",
    "open_reader",
    "renew_logins",
]
log = logger(__name__)
_librdkafka_log = logging.getLogger("librdkafka")
# The operator's properties go to consumers, producers and admin clients alike; each passes over what is not its own.
_librdkafka_log.addFilter(lambda record: "and will be ignored by this" not in record.getMessage())
# A broker that has just started; the client asks again by itself, a moment later.
_librdkafka_log.addFilter(lambda record: "Coordinator load in progress: retrying" not in record.getMessage())
_librdkafka_log.addFilter(RepeatsLeftOut(every_s=30.0))
_librdkafka_log.addFilter(hide_in_records)
T = TypeVar("T")
C = TypeVar("C", bound=Consumer | Producer | AdminClient)
ClientConfig = dict[str, str | int | float | bool]


def client_config(settings: KafkaSettings, defaults: ClientConfig, fixed: ClientConfig) -> ClientConfig:
    """Merge properties: the operator's win over our defaults, but not over what the guarantees depend on."""
    properties = settings.reread().librdkafka
    return {**defaults, **properties, **fixed, "bootstrap.servers": settings.bootstrap_servers}


class _KnownConsumer(Consumer):
    """A consumer that a weak reference can name."""


class _KnownProducer(Producer):
    """A producer that a weak reference can name."""


_OpenClient = Consumer | Producer | AdminClient
_open_clients: list[weakref.ref[_OpenClient]] = []
"""What `renew_logins` tells; those that are gone are left out when the next one comes."""
_register = threading.Lock()


def _registered(client: C) -> C:
    with _register:
        _open_clients[:] = [*(known for known in _open_clients if known() is not None), weakref.ref(client)]
    return client


def renew_logins(settings: KafkaSettings) -> None:
    """Read the file with the properties again and give its user and password to all clients of this process.

    They log in with them the next time that they connect, or that a broker asks for it. Everything else among the
    properties, such as certificates, is read when a client is made.
    """
    if not settings.librdkafka_file:
        return
    found = settings.reread().librdkafka
    user, password = found.get("sasl.username"), found.get("sasl.password")
    if user is None or password is None:
        return
    with _register:
        clients = [client for known in _open_clients if (client := known()) is not None]
    for client in clients:
        with suppress(KafkaException, RuntimeError):  # one that was closed
            client.set_sasl_credentials(str(user), str(password))
    log.info(
        "logins_renewed",
        "{clients} Kafka clients log in as {user_name} with the password that is in its file now",
        clients=len(clients),
        user_name=user,
    )


def open_consumer(
    settings: KafkaSettings,
    group_id: str,
    *,
    on_commit: Callable[[ClientError | None, list[TopicPartition]], None] | None = None,
    **defaults: str | int | float | bool,
) -> Consumer:
    """Open a consumer whose offsets are stored and committed by hand; defaults have ``_`` for ``.``.

    ``on_commit`` takes the brokers' answers to commits, within consume(); it must not raise.
    """
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
    with _wrong_properties_named(settings, config):
        heard = _heard(config, settings) if on_commit is None else {**_heard(config, settings), "on_commit": on_commit}
        return _registered(_KnownConsumer(heard, logger=_Lines(causes_of(settings))))


def open_reader(settings: KafkaSettings, name: str) -> Consumer:
    """Open a consumer for `read_range`; it joins no group, the name only shows in the broker's logs."""
    return open_consumer(settings, f"{settings.group_id}-{name}", enable_partition_eof=True)


def open_producer(settings: KafkaSettings, **defaults: str | int | float | bool) -> Producer:
    """Open an idempotent producer that waits for all replicas; defaults have ``_`` for ``.``."""
    config = client_config(settings, _dotted(defaults), {"enable.idempotence": True, "acks": "all"})
    with _wrong_properties_named(settings, config):
        return _registered(_KnownProducer(_heard(config, settings), logger=_Lines(causes_of(settings))))


def open_admin(settings: KafkaSettings) -> AdminClient:
    """Open an admin client; keep it in a variable: the futures of a temporary one fail.

    What goes wrong with its connections is said by the error of the call that fails, not by lines of its own. Asking
    for a topic never creates it, whatever the broker allows.
    """
    config = client_config(settings, {}, {"allow.auto.create.topics": False})
    with _wrong_properties_named(settings, config):
        return _registered(
            AdminClient(_heard(config, settings), logger=_Lines(causes_of(settings), least=logging.CRITICAL))
        )


class _Lines:
    """Takes the log lines of a client: all tell `Causes`, those of a level go to the log as well."""

    def __init__(self, causes: Causes, *, least: int = logging.NOTSET) -> None:
        self._causes = causes
        self._least = least

    def log(self, level: int, message: str, *arguments: object) -> None:
        """Take a line, as librdkafka's wrapper calls a `logging.Logger`."""
        text = message % arguments if arguments else message
        self._causes.note(text)
        if level >= self._least:
            _librdkafka_log.log(level, "%s", self._causes.without_secrets(text))


def _heard(config: ClientConfig, settings: KafkaSettings) -> dict[str, Any]:
    """Have a client tell its errors to `Causes` as well: some come as events and in no log line."""
    causes = causes_of(settings)
    return {**config, "error_cb": lambda error: causes.note(error.str())}


@contextmanager
def _wrong_properties_named(settings: KafkaSettings, config: ClientConfig) -> Iterator[None]:
    """Only the operator's properties can be wrong when a client is made."""
    try:
        for name, path in _locations(config):
            if problem := what_is_no_file(path):  # OpenSSL would wait for ever for what comes out of a pipe
                raise ValueError(f"{name} names {path}: {problem}")
        yield
    except (KafkaException, TypeError, ValueError) as error:
        problem = error.args[0].str() if error.args and isinstance(error.args[0], ClientError) else str(error)
        problem = _file_that_cannot_be_read(config) or problem
        shown = secrets.hidden_where_settings_are_quoted(without_secrets(settings, problem))
        raise SettingsError(f"RECSYS_KAFKA__LIBRDKAFKA: {shown}") from None


def _file_that_cannot_be_read(config: ClientConfig) -> str:
    """Name the file, which librdkafka does not; empty when all can be read."""
    for name, path in _locations(config):
        try:
            os.listdir(path) if Path(path).is_dir() else open_regular(path).close()
        except OSError as error:
            return f"{name} names {path}, which cannot be read: {error.strerror}"
    return ""


def _locations(config: ClientConfig) -> list[tuple[str, str]]:
    """Return the properties that name a file, and the files."""
    return [(name, path) for name, path in config.items() if name.endswith(".location") and isinstance(path, str)]


def _dotted(properties: Mapping[str, str | int | float | bool]) -> ClientConfig:
    return {name.replace("_", "."): value for name, value in properties.items()}


_UNSPECIFIC = (
    ClientError._TRANSPORT,
    ClientError._TIMED_OUT,
    ClientError._ALL_BROKERS_DOWN,
    ClientError._MSG_TIMED_OUT,
)
_MISSING_RIGHTS = (
    ClientError.TOPIC_AUTHORIZATION_FAILED,
    ClientError.GROUP_AUTHORIZATION_FAILED,
    ClientError.CLUSTER_AUTHORIZATION_FAILED,
    ClientError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
)


def lacks_right(error: ClientError) -> bool:
    """Say whether a broker refuses something to this user."""
    return error.code() in _MISSING_RIGHTS


def kafka_unavailable(
    settings: KafkaSettings, error: KafkaException | ClientError, *, right: str = "READ", topic: str = ""
) -> KafkaUnavailable:
    """Say in one line which brokers did not serve, and why: see `explained`."""
    told = error.args[0] if isinstance(error, KafkaException) and error.args else error
    kind = RightMissing if isinstance(told, ClientError) and lacks_right(told) else KafkaUnavailable
    return kind(f"Kafka at {settings.bootstrap_servers}: {explained(settings, error, right=right, topic=topic)}")


def explained(
    settings: KafkaSettings, error: KafkaException | ClientError, *, right: str = "READ", topic: str = ""
) -> str:
    """Return why Kafka did not serve, in words for an operator.

    Parameters
    ----------
    settings : KafkaSettings
    error : KafkaException or ClientError
        What librdkafka said. Where it only says that nothing answered in time, the newest cause that one of the
        clients was told counts.
    right, topic : str
        What was needed, for a broker that refuses it without naming it; no topic = that of the purchases.
    """
    told = error.args[0] if isinstance(error, KafkaException) and error.args else error
    if not isinstance(told, ClientError):
        problem = str(told)
    elif lacks_right(told):
        problem = _refused(settings, told.code(), right, topic or settings.topic)
    else:
        problem = (told.code() in _UNSPECIFIC and causes_of(settings).newest()) or told.str()
        if told.code() == ClientError._TRANSPORT and problem == told.str():
            problem = no_broker_there(settings) or problem
    return without_secrets(settings, problem)


def _refused(settings: KafkaSettings, code: int, right: str, topic: str) -> str:
    if code == ClientError.GROUP_AUTHORIZATION_FAILED:
        return no_right(settings, "READ", f"group {settings.group_id}")
    if code == ClientError.CLUSTER_AUTHORIZATION_FAILED:
        return no_right(settings, right, f"topic {topic}") + ", and none on the cluster"
    return no_right(settings, right, f"topic {topic}")


def no_right(settings: KafkaSettings, right: str, resource: str) -> str:
    """Return the words for a right that an ACL must grant, such as ``READ`` on ``topic purchases``."""
    return f"no {right} right for {user_of(settings)} on {resource}"


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
    return KafkaUnavailable(f"the Kafka {client} failed permanently: {explained(settings, error)}")


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
        if "without setting an exception" in str(error):  # the client has lost it; its own log line says why
            return ClientError(ClientError._FATAL, "the client has failed for good")
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
