"""A Kafka with users, rights and TLS: what cannot work is said with its cause, and without passwords."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from recsys.errors import KafkaUnavailable, SettingsError, TopicMissing
from recsys.kafka.clients import open_consumer
from recsys.kafka.topics import describe_topic, ensure_group
from recsys.settings import KafkaSettings
from tests.secured import PASSWORD, Authority, Certificate, SecuredKafka
from tests.services import kept_port, running, wait_until

Properties = dict[str, str]


@pytest.fixture(scope="module")
def kafka(secured: SecuredKafka) -> SecuredKafka:
    """Have a topic, and users with different rights."""
    admin = AdminClient({"bootstrap.servers": secured.address})
    for created in admin.create_topics([NewTopic("purchases", 2)]).values():
        created.result()
    for user in ("reader", "writer", "stranger"):
        secured.add_user(user)
    secured.allow("--allow-principal User:reader --operation Read --topic purchases --group recsys")
    secured.allow("--allow-principal User:writer --operation Write --topic purchases")
    secured.allow("--allow-principal User:certified --operation Read --topic purchases")
    return secured


def settings_of(address: str, properties: Properties) -> KafkaSettings:
    return KafkaSettings.model_validate({"bootstrap_servers": address, "timeout_s": 4, "librdkafka": properties})


def problem(address: str, properties: Properties, right: str = "READ") -> str:
    """Return what an operator is told when asking for the topic."""
    with pytest.raises((KafkaUnavailable, TopicMissing, SettingsError)) as raised:
        describe_topic(settings_of(address, properties), "purchases", right=right)
    text = str(raised.value)
    assert len(text.splitlines()) == 1
    assert PASSWORD not in text
    return text


def ensure_group_of(settings: KafkaSettings) -> None:
    """Ask with a consumer of its own."""
    consumer = open_consumer(settings, settings.group_id)
    try:
        ensure_group(settings, consumer)
    finally:
        consumer.close()


def test_whoever_has_the_right_is_served(kafka: SecuredKafka) -> None:
    certified = kafka.certified(kafka.authority.issue("certified"))
    assert describe_topic(settings_of(kafka.tls_address, certified), "purchases").partitions == (0, 1)
    assert describe_topic(settings_of(kafka.sasl_address, kafka.login("reader")), "purchases").partitions == (0, 1)
    writer = settings_of(kafka.sasl_address, kafka.login("writer"))
    assert describe_topic(writer, "purchases", right="WRITE").partitions == (0, 1)
    ensure_group_of(settings_of(kafka.sasl_address, kafka.login("reader")))


def test_missing_rights_are_named(kafka: SecuredKafka) -> None:
    address = kafka.sasl_address
    reader, writer = kafka.login("reader"), kafka.login("writer")
    assert "no WRITE right for User:reader on topic purchases" in problem(address, reader, "WRITE")
    assert "no READ right for User:writer on topic purchases" in problem(address, writer)
    assert "no DESCRIBE right for User:stranger on topic purchases" in problem(address, kafka.login("stranger"))
    with pytest.raises(KafkaUnavailable, match="no READ right for User:writer on group recsys"):
        ensure_group_of(settings_of(address, writer))


def test_login_that_is_refused(kafka: SecuredKafka) -> None:
    for name, password in (("reader", "not-the-password"), ("nobody", PASSWORD)):
        said = problem(kafka.sasl_address, kafka.login(name, password))
        assert f"User:{name} is refused: wrong user name or password" in said
        assert password not in said
    said = problem(kafka.sasl_address, {**kafka.login("reader"), "sasl.mechanism": "PLAIN"})
    assert "does not take sasl.mechanism PLAIN, but SCRAM-SHA-" in said


def test_address_that_is_wrong(kafka: SecuredKafka) -> None:
    login = kafka.login("reader")
    assert "the host of nowhere.invalid:9093 is unknown" in problem("nowhere.invalid:9093", login)
    port = kept_port()
    assert f"localhost:{port} cannot be reached: Connection refused" in problem(f"localhost:{port}", login)


def test_address_of_another_server(redis_url: str) -> None:
    address = redis_url.removeprefix("redis://").partition("/")[0]
    said = problem(address, {})  # Redis answers and closes: which of the two the client notices is up to the network
    unlike, closed = (
        f"what listens at {address} does not answer as a Kafka broker",
        f"{address} closes every connection",
    )
    assert unlike in said or (closed in said and "it is no Kafka broker" in said)


def test_tls_where_none_is_spoken_and_none_where_it_is(kafka: SecuredKafka) -> None:
    login = kafka.login("reader")
    assert f"{kafka.address} speaks no TLS" in problem(kafka.address, login)
    assert f"{kafka.plain_sasl_address} speaks no TLS" in problem(kafka.plain_sasl_address, login)
    plain_login = {**login, "security.protocol": "SASL_PLAINTEXT"}
    for properties in ({}, plain_login):
        assert f"{kafka.sasl_address} expects TLS" in problem(kafka.sasl_address, properties)
    assert "perhaps it expects a login" in problem(kafka.plain_sasl_address, {})


def test_certificate_of_the_broker_that_cannot_be_verified(kafka: SecuredKafka, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other", "other")
    said = problem(kafka.sasl_address, {**kafka.login("reader"), "ssl.ca.location": str(other.certificate)})
    assert f"the certificate of {kafka.sasl_address} cannot be verified: unable to get local issuer" in said
    own = Authority(tmp_path / "own")
    trusting = {"security.protocol": "SSL", "ssl.ca.location": str(own.certificate)}
    with tls_server(own.issue("old", expired=True), tmp_path) as address:
        assert f"the certificate of {address} cannot be verified: certificate has expired" in problem(address, trusting)
    with tls_server(own.issue("elsewhere", names=["DNS:elsewhere.example"]), tmp_path) as address:
        assert "cannot be verified: Hostname mismatch" in problem(address, trusting)


@contextmanager
def tls_server(shown: Certificate, folder: Path) -> Iterator[str]:
    """Run a server that shows a certificate and says nothing more."""
    port, log = kept_port(), folder / f"{shown.certificate.stem}.log"
    command = [
        "openssl",
        "s_server",
        "-accept",
        str(port),
        "-cert",
        str(shown.certificate),
        "-key",
        str(shown.key),
        "-www",
    ]
    with running(command, log, {}):
        wait_until(lambda: "ACCEPT" in log.read_text(), "it listens")
        yield f"localhost:{port}"


def test_certificate_of_the_client_that_is_refused(kafka: SecuredKafka, tmp_path: Path) -> None:
    address = kafka.tls_address
    expired = kafka.authority.issue("expired", expired=True)
    said = problem(address, kafka.certified(expired))
    assert f"the client certificate {expired.certificate} has expired, on 20" in said
    foreign = Authority(tmp_path, "foreign").issue("certified")
    assert f"{address} refuses the client certificate {foreign.certificate}" in problem(
        address, kafka.certified(foreign)
    )
    none = {"security.protocol": "SSL", "ssl.ca.location": str(kafka.authority.certificate)}
    assert f"{address} demands a client certificate" in problem(address, none)


def test_topic_that_is_not_there(kafka: SecuredKafka) -> None:
    kafka.allow("--allow-principal User:reader --operation Describe --topic absent")
    with pytest.raises(TopicMissing, match="topic absent does not exist"):
        describe_topic(settings_of(kafka.sasl_address, kafka.login("reader")), "absent")


def test_properties_that_are_wrong_are_said_without_passwords(kafka: SecuredKafka) -> None:
    absent = kafka.authority.certificate.with_name("absent.pem")
    for name in ("ssl.ca.location", "ssl.certificate.location", "ssl.key.location"):
        said = problem(kafka.tls_address, {"security.protocol": "SSL", name: str(absent)})
        assert f"RECSYS_KAFKA__LIBRDKAFKA: {name} names {absent}, which cannot be read: No such file" in said
    key_password = "pass-of-key"  # noqa: S105
    key = kafka.authority.issue("locked").key
    locked = key.with_suffix(".locked")
    command = ["openssl", "pkey", "-aes256", "-passout", "pass:other", "-in", str(key), "-out", str(locked)]
    subprocess.run(command, check=True, capture_output=True)
    properties = {
        **kafka.certified(Certificate(key.with_suffix(".pem"), locked)),
        "ssl.key.password": key_password,
    }
    said = problem(kafka.tls_address, properties)
    assert "RECSYS_KAFKA__LIBRDKAFKA: " in said
    assert "ssl.key" in said
    assert key_password not in said
