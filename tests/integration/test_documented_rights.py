"""The rights that docs/operations.md lists: enough for every service, and each is named when it is missing.

deploy/acl has the same ones as files. ``UPDATE_DOCUMENTS=1`` writes those of Redis into both, as the code needs them.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from confluent_kafka import Producer

from recsys.errors import RedisUnsuitable
from recsys.redis import Service, open_store
from recsys.redis.keys import Keys
from recsys.redis.rights import acl_rules
from recsys.settings import Settings
from tests.api import KEY_SETTING, KEYS
from tests.conftest import opened_shop
from tests.planted import item_name, write_history
from tests.secured import PASSWORD, SecuredKafka, SecuredRedis, secured_redis
from tests.services import NO_AUTHORITIES, PROJECT, KafkaServer, RedisCluster, RedisServer, Shop, wait_until

OPERATIONS, ACL = PROJECT / "docs" / "operations.md", PROJECT / "deploy" / "acl"
DOCUMENT = re.sub(r" \\\n +", " ", OPERATIONS.read_text())  # lines that go on
SERVICES = {
    "consumer": Service.CONSUMER, "trainer": Service.TRAINER, "api": Service.API, "operator": Service.COMMAND,
}  # fmt: skip


def kafka_rights(service: str) -> list[str]:
    """Return the documented rights of a service, as arguments of kafka-acls.sh."""
    lines = re.findall(r"^kafka-acls.sh .*? --add (.*)$", DOCUMENT, flags=re.MULTILINE)
    return [line for line in lines if f"User:{service} " in line]


def redis_rights(service: str) -> list[str]:
    """Return the documented rules of a service's user, as ACL SETUSER takes them after name and password."""
    (line,) = re.findall(rf"^redis-cli ACL SETUSER {service} on '>PASSWORD' (.*)$", DOCUMENT, flags=re.MULTILINE)
    return shlex.split(line)


def kafka_file(service: str) -> str:
    """Return what deploy/acl has for a service: the documented commands, for any broker and any login."""
    lines = "".join(f"acls --add {right}\n" for right in kafka_rights(service))
    return (
        f"#!/bin/sh\n# The rights of {service} in Kafka. Arguments go to kafka-acls.sh: "
        f"--bootstrap-server HOST:PORT --command-config FILE\n"
        f'set -eu\nserver="$*"\n# shellcheck disable=SC2086\nacls() {{ kafka-acls.sh $server "$@"; }}\n{lines}'
    )


def redis_file(service: str) -> str:
    """Return what deploy/acl has for a service: a line of an ACL file."""
    return f"user {service} on >PASSWORD {' '.join(redis_rights(service))}\n"


def test_the_documented_rights_are_those_that_the_code_needs_and_those_of_deploy() -> None:
    if os.environ.get("UPDATE_DOCUMENTS"):
        update()
        return
    for name, service in SERVICES.items():
        assert redis_rights(name) == acl_rules(service), "UPDATE_DOCUMENTS=1 writes docs/operations.md and deploy/acl"
        assert (ACL / "redis" / f"{name}.acl").read_text() == redis_file(name)
        assert (ACL / "kafka" / f"{name}.sh").read_text() == kafka_file(name)


def update() -> None:
    """Write the rights of Redis into the document, and all of them into deploy/acl."""
    text = OPERATIONS.read_text()
    for name, service in SERVICES.items():
        line = f"redis-cli ACL SETUSER {name} on '>PASSWORD' {shlex.join(acl_rules(service))}"
        wrapped = " \\\n".join(textwrap.wrap(line, 120, subsequent_indent="  ", break_on_hyphens=False))
        (written,) = re.findall(
            rf"^redis-cli ACL SETUSER {name} .*?(?<!\\)$", text, flags=re.MULTILINE | re.DOTALL
        )  # fmt: skip
        text = text.replace(written, wrapped)
        (ACL / "redis" / f"{name}.acl").write_text(f"user {name} on >PASSWORD {' '.join(acl_rules(service))}\n")
        (ACL / "kafka" / f"{name}.sh").write_text(kafka_file(name))
    OPERATIONS.write_text(text)


def test_redis_loads_the_acl_files_of_deploy(tmp_path: Path) -> None:
    lines = [path.read_text() for path in sorted((ACL / "redis").glob("*.acl"))]
    (tmp_path / "users.acl").write_text("".join(lines).replace(">PASSWORD", f">{PASSWORD}") + "user default off\n")
    server = RedisServer(tmp_path, "--aclfile", str(tmp_path / "users.acl"))
    server.client = redis.Redis(port=server.port, username="operator", password=PASSWORD)
    server.start()
    try:
        for name, service in SERVICES.items():
            url = f"redis://{name}:{PASSWORD}@127.0.0.1:{server.port}/0"
            with open_store(Settings.model_validate({"redis": {"url": url}})) as store:
                store.connection.check()
                store.connection.ensure_rights(service)
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=server.port).ping()
    finally:
        server.kill()


def test_the_commands_for_kafka_of_deploy_are_what_kafka_acls_is_given(tmp_path: Path) -> None:
    (tmp_path / "kafka-acls.sh").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "kafka-acls.sh").chmod(0o755)
    for name in SERVICES:
        command = ["sh", str(ACL / "kafka" / f"{name}.sh"), "--bootstrap-server", "kafka:9092"]
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        given = [f"--bootstrap-server kafka:9092 --add {right}" for right in kafka_rights(name)]
        assert said.splitlines() == given != []


@pytest.fixture
def guarded(secured: SecuredKafka, tmp_path: Path) -> Iterator[tuple[Shop, SecuredRedis]]:
    """A shop on a secured Kafka and a secured Redis, with a user for each service, who has the documented rights."""
    server = KafkaServer(secured.address, True, "a Kafka with rights")
    with secured_redis("--appendonly", "yes") as redis_server, opened_shop(server, redis_server.url, tmp_path) as shop:
        shop.environment["RECSYS_REDIS__PREFIX"] = "recsys"
        for service in SERVICES:
            secured.add_user(f"{shop.name}-{service}")
            for right in kafka_rights(service):
                secured.allow(of_shop(right, shop))
            redis_server.set_user(service, *redis_rights(service))
        yield shop, redis_server


def of_shop(right: str, shop: Shop) -> str:
    """Return a documented right with the shop's own names."""
    return (
        right.replace("User:", f"User:{shop.name}-")
        .replace("purchases", shop.topic)
        .replace("--group recsys", f"--group {shop.environment['RECSYS_KAFKA__GROUP_ID']}")
    )


def logged_in(shop: Shop, secured: SecuredKafka, redis_server: SecuredRedis, service: str) -> dict[str, str]:
    """Return the settings with which a service logs in."""
    login = {**secured.login(f"{shop.name}-{service}"), "session.timeout.ms": 6000}
    return {
        "RECSYS_KAFKA__BOOTSTRAP_SERVERS": secured.sasl_address,
        "RECSYS_KAFKA__LIBRDKAFKA": json.dumps(login),
        "RECSYS_REDIS__URL": redis_server.url_of(service),
    }


def test_every_service_does_its_job_with_the_documented_rights(
    guarded: tuple[Shop, SecuredRedis], secured: SecuredKafka
) -> None:
    shop, redis_server = guarded
    as_ = {service: logged_in(shop, secured, redis_server, service) for service in SERVICES}
    write_history(shop.folder / "history.csv")
    (shop.folder / "items.csv").write_text(f"item_id,title\n{item_name(0, 0)},Tea\n")
    (shop.folder / "today.csv").write_text(f"user_id,item_id,timestamp\nnew,{item_name(0, 1)},2026-01-05T10:00:00Z\n")
    shop.recsys("import", "history.csv", expect=0, **as_["operator"])
    shop.recsys("items", "import", "items.csv", expect=0, **as_["operator"])
    shop.run("trainer", "--once", expect=0, **as_["trainer"])
    trainer = shop.start_trainer(**as_["trainer"])
    consumer = shop.start_consumer(**as_["consumer"])
    api = shop.start_api(**as_["api"], **KEY_SETTING)
    consumer.await_assigned()
    operate = {"Authorization": f"Bearer {KEYS['operate']}"}
    with httpx.Client(base_url=api.url, headers=operate, timeout=60, verify=NO_AUTHORITIES) as http:
        event = {"user_id": "u", "item_id": item_name(0, 0), "event_id": "e"}
        assert http.post("/v1/purchases", json=event).status_code == 202
        wait_until(lambda: http.get("/v1/users/u/recommendations").json().get("source") == "personal", "u has a list")
        assert http.get("/v1/users/u/history").json()["items"]
        assert http.put(f"/v1/items/{item_name(0, 2)}/hidden").is_success
        assert http.delete(f"/v1/items/{item_name(0, 2)}/hidden").is_success
        assert http.post("/v1/recommendations", json={"user_ids": ["u", "v"]}).status_code == 200
    shop.recsys("retrain", "--wait", "--force", expect=0, **as_["operator"])
    shop.recsys("publish", "today.csv", expect=0, **as_["operator"])
    wait_until(lambda: consumer.metrics().get("records_total", 0) >= 2, "both purchases are read")

    def is_all_well() -> bool:
        said = shop.recsys("status", expect=None, **as_["operator"]).stdout
        return [" ".join(line.split()) for line in said.splitlines() if line.startswith(("warning", "BROKEN"))] == [
            "warning checks tls-expiry (warning)"  # the certificates of these servers end in two days
        ]

    wait_until(is_all_well, "all is well")  # the API tells every five seconds what it lacks, at first perhaps Kafka
    for command in (
        ["show", "u"],
        ["models"],
        ["models", "rollback"],
        ["rebuild"],
        ["rebuild", "--wipe"],
        ["imports", "list"],
    ):
        shop.recsys(*command, expect=0, **as_["operator"])
    for name in SERVICES:
        as_whom = "command" if name == "operator" else name
        said = shop.recsys("doctor", "--json", "--as", as_whom, expect=None, **as_[name]).stdout
        found = {finding["code"]: finding for finding in json.loads(said)["findings"]}
        assert [found[code]["level"] for code in ("kafka-rights", "redis-rights")] == ["ok", "ok"], found
        assert {code: one["text"] for code, one in found.items() if not one["checked"]} == {}
    wait_until(lambda: shop.recsys("verify", expect=None, **as_["operator"]).returncode == 0, "nothing differs")
    services = {"consumer": consumer, "trainer": trainer, "api": api}
    for name, service in services.items():
        assert service.stop() == 0
        assert "right" not in service.said(), name
    known = {name.lower().replace(" ", "|") for service in Service for name in service.commands}
    ours = {"multi", "discard", "client|setinfo", "auth", "hello", "acl|setuser", "pexpire"}
    used = {name.removeprefix("cmdstat_") for name in redis_server.client.info("commandstats")}
    assert used - known - ours == set(), "Service lacks commands that are used, so a missing right would not be named"


def test_each_missing_right_of_redis_is_named(tmp_path: Path) -> None:
    with secured_redis() as server:
        for name, service in SERVICES.items():
            rules = redis_rights(name)
            assert missing(server, name, service, rules) == ""
            for command in sorted(service.commands):
                right = command.lower().replace(" ", "|")
                assert f"user {name} lacks the right +{right};" in missing(server, name, service, [*rules, f"-{right}"])
            for key in Keys("recsys").of_all_kinds():
                others = [f"~{_escaped(other)}" for other in Keys("recsys").of_all_kinds() if other != key]
                fewer = [rule for rule in rules if not rule.startswith("~")]
                assert f"~{key}" in missing(server, name, service, [*fewer, *others])


def _escaped(key: str) -> str:
    return key.replace("*", "\\*")


def missing(server: SecuredRedis, user: str, service: Service, rules: list[str]) -> str:
    """Return what a service is told at start, whose user has these rights."""
    server.set_user(user, *rules)
    settings = Settings.model_validate({"redis": {"url": server.url_of(user)}})
    said = ""
    with open_store(settings) as store:
        try:
            store.connection.check()
            store.connection.ensure_rights(service)
        except RedisUnsuitable as error:
            said = str(error)
    assert PASSWORD not in said
    return said


def test_commands_name_what_they_are_refused(guarded: tuple[Shop, SecuredRedis], secured: SecuredKafka) -> None:
    shop, redis_server = guarded
    operator = logged_in(shop, secured, redis_server, "operator")
    (shop.folder / "today.csv").write_text(f"user_id,item_id,timestamp\nnew,{item_name(0, 1)},2026-01-05T10:00:00Z\n")
    producer = Producer({"bootstrap.servers": secured.address})
    producer.produce(f"{shop.topic}.dlq", b"{")
    assert producer.flush(60) == 0
    delete = f"--allow-principal User:{shop.name}-operator --operation Delete --topic {shop.topic}.dlq"
    denied = refused(shop, "dead-letters", "purge", "--yes", **operator)
    assert f"no DELETE right for User:{shop.name}-operator on topic {shop.topic}.dlq" in denied
    assert "no longer listed, but they stay in" in denied
    secured.allow(delete)
    shop.recsys("dead-letters", "purge", "--yes", expect=0, **operator)
    *_, write = (of_shop(right, shop) for right in kafka_rights("operator"))
    user, group = f"User:{shop.name}-operator", shop.environment["RECSYS_KAFKA__GROUP_ID"]
    secured.take_away(write)
    assert f"no WRITE right for {user} on topic {shop.topic}" in refused(shop, "publish", "today.csv", **operator)
    secured.take_away(f"--allow-principal {user} --operation Read --group {group}")
    assert f"no READ right for {user} on group {group}" in refused(shop, "rebuild", **operator)
    secured.take_away(f"--allow-principal {user} --operation Read --topic {shop.topic}")
    assert f"no DESCRIBE right for {user} on topic {shop.topic}" in refused(shop, "rebuild", **operator)
    wrong = secured.login(f"{shop.name}-operator", "mistaken-0815")
    stranger = {**operator, "RECSYS_KAFKA__TIMEOUT_S": "4", "RECSYS_KAFKA__LIBRDKAFKA": json.dumps(wrong)}
    for command in (["rebuild"], ["publish", "today.csv"]):
        assert f"{user} is refused: wrong user name or password" in refused(shop, *command, **stranger)
    consumer = shop.start_consumer(**stranger)
    consumer.await_saying(f"waiting: Kafka at {secured.sasl_address}: {user} is refused: wrong user name or password")
    assert consumer.stop() == 0
    assert "not-the-password" not in consumer.said()
    redis_server.set_user("operator", *redis_rights("operator"), "-hset")
    assert "user operator lacks the right +hset" in refused(shop, "import", "today.csv", **operator)
    redis_server.set_user("operator", "~other:*", *[rule for rule in redis_rights("operator") if rule[0] != "~"])
    assert "user operator lacks the right ~recsys:" in refused(shop, "show", "u", **operator)


def refused(shop: Shop, *arguments: str, **settings: str) -> str:
    """Run a command that fails and return the first line of what it says."""
    done = shop.recsys(*arguments, expect=None, **settings)
    assert done.returncode == 1, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert "Traceback" not in done.stderr
    assert PASSWORD not in done.stderr
    return lines[0]


def test_rights_in_a_cluster(redis_cluster: RedisCluster, tmp_path: Path) -> None:
    (more,) = re.findall(r"^`(\+cluster.*)`\.$", DOCUMENT, flags=re.MULTILINE)
    rules = [*redis_rights("consumer"), *more.split()]
    for node in redis_cluster.nodes:
        node.client.execute_command("ACL", "SETUSER", "clustered", "reset", "on", f">{PASSWORD}", *rules)
    url = redis_cluster.url.replace("redis://", f"redis://clustered:{PASSWORD}@")
    settings = Settings.model_validate({"redis": {"url": url, "cluster": True}})
    with open_store(settings) as store:
        store.connection.check()
        store.connection.ensure_rights(Service.CONSUMER)
        clients: list[Any] = [node.client for node in redis_cluster.nodes]
        for client in clients:
            client.execute_command("ACL", "SETUSER", "clustered", "-hset")
        with pytest.raises(RedisUnsuitable, match=r"lacks the right \+hset;"):
            store.connection.ensure_rights(Service.CONSUMER)
