"""Passwords that change while services run are read again from their files."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from recsys.errors import RedisUnsuitable
from recsys.kafka.clients import open_producer, renew_logins
from recsys.redis import open_store
from recsys.settings import Settings
from tests.conftest import opened_shop
from tests.planted import event_json
from tests.secured import PASSWORD, SecuredKafka, SecuredRedis, secured_redis
from tests.services import NO_AUTHORITIES, Api, KafkaServer, Service, Shop, running, wait_until

_CHANGED = "changed-since"


@pytest.fixture(scope="module")
def server() -> Iterator[SecuredRedis]:
    with secured_redis() as started:
        yield started


def change_password(server: SecuredRedis, user: str) -> None:
    """Give a user another password, and have all who are logged in log in again."""
    server.client.execute_command("ACL", "SETUSER", user, "resetpass", f">{_CHANGED}")
    server.client.execute_command("CLIENT", "KILL", "USER", user)


def written(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def test_a_password_of_redis_that_changes_is_read_from_its_file(server: SecuredRedis, tmp_path: Path) -> None:
    server.set_user("shop", "~recsys:*", "+@all")
    path = tmp_path / "url"
    settings = Settings.model_validate({"redis": {"url_file": written(path, server.url_of("shop"))}})
    with open_store(settings) as store:
        assert store.item_lists.popular() is None
        change_password(server, "shop")
        with pytest.raises(RedisUnsuitable, match="refuses user shop"):
            store.item_lists.popular()
        written(path, server.url_of("shop", _CHANGED))
        assert store.item_lists.popular() is None


@pytest.mark.kafka
def test_running_kafka_clients_log_in_with_the_password_that_is_in_the_file(
    secured: SecuredKafka, tmp_path: Path
) -> None:
    secured.add_user("renewed")
    secured.allow("--allow-principal User:renewed --operation Write --topic renewed")
    admin = AdminClient({"bootstrap.servers": secured.address})
    for created in admin.create_topics([NewTopic("renewed", 1)]).values():
        created.result()
    path = tmp_path / "properties"
    written(path, json.dumps(secured.login("renewed", "mistaken-0815")))
    settings = Settings.model_validate(
        {"kafka": {"bootstrap_servers": secured.sasl_address, "librdkafka_file": str(path)}}
    ).kafka
    producer, delivered = open_producer(settings), []
    producer.produce("renewed", b"x", on_delivery=lambda error, _: delivered.append(error))
    assert producer.flush(3) == 1
    written(path, json.dumps(secured.login("renewed")))
    renew_logins(settings)
    wait_until(lambda: producer.flush(1) == 0, "the producer logs in")
    assert delivered == [None]


@pytest.mark.kafka
def test_services_go_on_with_new_passwords_after_sighup(
    secured: SecuredKafka, server: SecuredRedis, tmp_path: Path
) -> None:
    kafka = KafkaServer(secured.address, True, "a Kafka with rights")
    with opened_shop(kafka, server.url, tmp_path) as shop:
        shop.forked = False  # their arguments are looked at
        user = f"{shop.name}-shop"
        secured.add_user(user)
        for resource in (
            f"--topic {shop.topic}",
            f"--topic {shop.topic}.dlq",
            "--group " + shop.environment["RECSYS_KAFKA__GROUP_ID"],
        ):
            secured.allow(f"--allow-principal User:{user} --operation All {resource}")
        server.set_user("shop", "~recsys-*", "+@all")
        url, properties = tmp_path / "url", tmp_path / "properties"
        login = {**secured.login(user, "mistaken-0815"), "session.timeout.ms": 6000}
        files = {
            "RECSYS_KAFKA__BOOTSTRAP_SERVERS": secured.sasl_address,
            "RECSYS_KAFKA__LIBRDKAFKA_FILE": written(properties, json.dumps(login)),
            "RECSYS_REDIS__URL_FILE": written(url, server.url_of("shop")),
        }
        del shop.environment["RECSYS_KAFKA__LIBRDKAFKA"], shop.environment["RECSYS_REDIS__URL"]
        consumer = shop.start_consumer(**files)
        consumer.await_saying("is refused: wrong user name or password")
        written(properties, json.dumps({**login, "sasl.password": PASSWORD}))
        consumer.process.send_signal(signal.SIGHUP)
        consumer.await_assigned()
        api, trainer = started_api(shop, **files), shop.start_trainer(**files)
        trainer.await_saying("trainer ready")
        change_password(server, "shop")
        written(url, server.url_of("shop", _CHANGED))
        services = {"consumer": consumer, "api": api, "trainer": trainer}
        for service in services.values():
            service.process.send_signal(signal.SIGHUP)
            service.await_saying("Kafka clients log in as")
        publish(shop, secured)
        wait_until(lambda: consumer.metrics().get("records_total", 0) >= 1, "the purchase counts")
        wait_until(
            lambda: httpx.get(f"{api.url}/v1/users/u/history", verify=NO_AUTHORITIES).is_success, "the API reads again"
        )
        for name, service in services.items():
            ensure_kept_to_itself(service)
            assert service.stop() == 0, name
            assert not [word for word in (PASSWORD, _CHANGED, "mistaken-0815") if word in service.said()], name


def test_sighup_replaces_the_workers_of_the_api_by_ones_that_know_the_new_keys(redis_url: str, tmp_path: Path) -> None:
    old, new, path = "k" * 43, "n" * 43, tmp_path / "keys"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")} | {
        "RECSYS_REDIS__URL": redis_url,
        "RECSYS_DATA_DIR": str(tmp_path / "data"),
        "RECSYS_API__PORT": "0",
        "RECSYS_API__WORKERS": "2",
        "RECSYS_API__PURCHASES": "false",
        "RECSYS_API__KEYS_FILE": written(path, f"shop:read@2099-12-31:{old}\n"),
    }
    log = tmp_path / "api.log"
    with running([sys.executable, "-m", "api"], log, environment) as process:
        api = Api(process, log)
        api.await_saying(" on http://")

        def status(key: str) -> int:
            headers = {"Authorization": f"Bearer {key}", "Connection": "close"}
            try:
                return httpx.get(
                    f"{api.url}/v1/users/u/history", headers=headers, timeout=30, verify=NO_AUTHORITIES
                ).status_code
            except httpx.TransportError:
                return 0

        def metrics(key: str) -> str:
            headers = {"Authorization": f"Bearer {key}", "Connection": "close"}
            return (
                httpx.get(f"{api.url}/metrics", headers=headers, timeout=30, verify=NO_AUTHORITIES)
                .raise_for_status()
                .text
            )

        wait_until(lambda: status(old) == 200, "the API serves")
        wait_until(lambda: api.said().count("startup complete") == 2, "both workers serve")
        assert "recsys_api_key_ends_timestamp_seconds{" in metrics(old)
        written(path, f"shop:read:{new}\n")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: api.said().count("startup complete") == 4, "both workers are replaced")
        wait_until(lambda: api.said().count("Finished server process") == 2, "the former ones have ended")
        wait_until(lambda: status(old) == 401 and status(new) == 200, "the new key counts")
        wait_until(
            lambda: "recsys_api_key_ends_timestamp_seconds{" not in metrics(new), "the former key's end is forgotten"
        )
        assert api.stop() == 0


def ensure_kept_to_itself(service: Service) -> None:
    """Fail if a service, or what it has started, shows a secret in the list of processes or may leave a core dump."""
    own = psutil.Process(service.process.pid)
    for process in (own, *own.children(recursive=True)):
        arguments = " ".join(process.cmdline())
        assert not [word for word in (PASSWORD, _CHANGED, "mistaken-0815") if word in arguments], arguments
        assert process.rlimit(psutil.RLIMIT_CORE)[0] <= 1
        assert "Umask:\t0077" in Path(f"/proc/{process.pid}/status").read_text()


def started_api(shop: Shop, **settings: str) -> Api:
    """Start an API that is not ready yet: there is no model."""
    environment = {**shop.environment, "RECSYS_API__PORT": "0", **settings}
    log = shop.folder / "api.log"
    api = Api(shop.stack.enter_context(running([sys.executable, "-m", "api"], log, environment)), log)
    api.await_saying(" on http://")
    return api


def publish(shop: Shop, secured: SecuredKafka) -> None:
    producer = open_producer(Settings.model_validate({"kafka": {"bootstrap_servers": secured.address}}).kafka)
    producer.produce(shop.topic, event_json("u", "a"), key="u")
    assert producer.flush(30) == 0
