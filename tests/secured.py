"""A Kafka with SASL/SCRAM, TLS and ACLs, and a Redis with ACL users and TLS, on loopback.

``python -m tests.secured kafka`` or ``redis`` starts one and prints its addresses, its users and the settings that a
service needs for it, until Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from tests.services import ApacheKafka, RedisServer, kafka_jars, kept_port, running_kafka, wait_until

PASSWORD = "pass-phrase"  # noqa: S105 - of servers on loopback that live as long as a test
"""Of all users, unless they are given another one."""
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
_OPERATIONS = {operation.name.replace("_", "").lower(): operation for operation in AclOperation}
_RESOURCES = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional_id": ResourceType.TRANSACTIONAL_ID,
}


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its private key, PEM files."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority of one's own, made with openssl in a folder."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._own = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
        self._openssl(
            "req", "-x509", *_NEW_KEY, "-days", "2", "-subj", f"/CN={name}",
            "-keyout", self._own.key, "-out", self._own.certificate,
        )  # fmt: skip

    @property
    def certificate(self) -> Path:
        """What others trust."""
        return self._own.certificate

    def issue(
        self, name: str, *, names: Iterable[str] = ("DNS:localhost", "IP:127.0.0.1"), expired: bool = False
    ) -> Certificate:
        """Make a certificate of ``CN=<name>`` for a server that has these names, or for a client."""
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        made = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        self._openssl(
            "req", *_NEW_KEY, "-subj", f"/CN={name}", "-keyout", made.key, "-out", request
        )  # fmt: skip
        extensions.write_text(f"subjectAltName={','.join(names)}")
        self._openssl(
            "x509", "-req", "-in", request, "-CA", self._own.certificate, "-CAkey", self._own.key, "-CAcreateserial",
            "-days", "-1" if expired else "2", "-extfile", extensions, "-out", made.certificate,
        )  # fmt: skip
        return made

    def _openssl(self, *arguments: str | Path) -> None:
        subprocess.run(["openssl", *map(str, arguments)], cwd=self._folder, check=True, capture_output=True)


class SecuredKafka(ApacheKafka):
    """An Apache Kafka whose clients log in and may do only what ACLs allow.

    It listens four times: ``address`` in plain text, where whoever connects is a super user, for the tests' own
    clients; ``sasl_address`` with SASL/SCRAM over TLS; ``tls_address`` for clients that have a certificate of the
    authority; ``plain_sasl_address`` with SASL/SCRAM in plain text.
    """

    def __init__(self, jars: Path, folder: Path, *, server: Certificate | None = None) -> None:
        self.authority = Authority(folder / "certificates")
        self._server = server or self.authority.issue("broker")
        self._sasl, self._tls, self._plain_sasl = kept_port(), kept_port(), kept_port()
        self.sasl_address = f"localhost:{self._sasl}"
        self.tls_address = f"localhost:{self._tls}"
        self.plain_sasl_address = f"localhost:{self._plain_sasl}"
        super().__init__(jars, folder)

    def properties(self, folder: Path, controller_port: int) -> dict[str, object]:
        """Return the broker's configuration."""
        keys = folder / "broker-keys.pem"
        keys.write_text(self._server.key.read_text() + self._server.certificate.read_text())
        own = super().properties(folder, controller_port)
        more = {
            "SASL": f"SASL://localhost:{self._sasl}",
            "TLS": f"TLS://localhost:{self._tls}",
            "PLAINSASL": f"PLAINSASL://localhost:{self._plain_sasl}",
        }
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        return {
            **own,
            "listeners": ",".join([str(own["listeners"]), *more.values()]),
            "advertised.listeners": ",".join([str(own["advertised.listeners"]), *more.values()]),
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL:SASL_SSL,TLS:SSL,"
            "PLAINSASL:SASL_PLAINTEXT",
            "sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512",
            "listener.name.sasl.scram-sha-256.sasl.jaas.config": scram,
            "listener.name.sasl.scram-sha-512.sasl.jaas.config": scram,
            "listener.name.plainsasl.scram-sha-256.sasl.jaas.config": scram,
            "listener.name.plainsasl.scram-sha-512.sasl.jaas.config": scram,
            "listener.name.tls.ssl.client.auth": "required",
            "ssl.principal.mapping.rules": "RULE:^CN=(.*)$/$1/,DEFAULT",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": keys,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self.authority.certificate,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS;User:admin",
        }

    def start(self) -> None:
        """Start the broker and wait until it serves."""
        super().start()
        self._admin = AdminClient({"bootstrap.servers": self.address})

    def add_user(self, name: str, password: str = PASSWORD) -> None:
        """Let a user log in with a password, which may be a new one."""
        upsertion = UserScramCredentialUpsertion(
            name, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096), password.encode()
        )
        for changed in self._admin.alter_user_scram_credentials([upsertion]).values():
            changed.result()
        client = AdminClient({"bootstrap.servers": self.sasl_address, **self.login(name, password)})

        def logs_in() -> bool:
            try:
                return bool(client.list_topics(timeout=5).brokers)
            except KafkaException:
                return False

        wait_until(logs_in, f"{name} logs in")

    def login(self, name: str, password: str = PASSWORD) -> dict[str, str]:
        """Return the librdkafka properties of a client that logs in at `sasl_address`."""
        return {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-256",
            "sasl.username": name,
            "sasl.password": password,
            "ssl.ca.location": str(self.authority.certificate),
        }

    def certified(self, client: Certificate) -> dict[str, str]:
        """Return the librdkafka properties of a client that shows a certificate at `tls_address`."""
        return {
            "security.protocol": "SSL",
            "ssl.ca.location": str(self.authority.certificate),
            "ssl.certificate.location": str(client.certificate),
            "ssl.key.location": str(client.key),
        }

    def allow(self, command: str) -> None:
        """Grant what a command line of kafka-acls.sh grants, its program, server and --add left out."""
        for created in self._admin.create_acls(_bindings(command)).values():
            created.result()

    def take_away(self, command: str) -> None:
        """Take back what `allow` granted."""
        for removed in self._admin.delete_acls([_filter(binding) for binding in _bindings(command)]).values():
            assert removed.result(), command


def _bindings(command: str) -> list[AclBinding]:
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--allow-principal", required=True)
    parser.add_argument("--operation", action="append", required=True)
    parser.add_argument("--cluster", action="store_true")
    for kind in _RESOURCES:
        parser.add_argument(f"--{kind.replace('_', '-')}", action="append", default=[])
    given = parser.parse_args(shlex.split(command))
    places = [(ResourceType.BROKER, "kafka-cluster")] if given.cluster else []
    places += [(_RESOURCES[kind], name) for kind in _RESOURCES for name in getattr(given, kind)]
    return [
        AclBinding(
            place, name, ResourcePatternType.LITERAL, given.allow_principal, "*",
            _OPERATIONS[operation.replace("_", "").lower()], AclPermissionType.ALLOW,
        )
        for place, name in places
        for operation in given.operation
    ]  # fmt: skip


def _filter(binding: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        binding.restype, binding.name, binding.resource_pattern_type, binding.principal, binding.host,
        binding.operation, binding.permission_type,
    )  # fmt: skip


def secured_kafka(jars: Path) -> AbstractContextManager[SecuredKafka]:
    """Run a secured Kafka until the block ends."""
    return running_kafka(SecuredKafka, jars)


class SecuredRedis(RedisServer):
    """A Redis that listens twice: on ``port`` in plain text, and on ``tls_port`` with TLS.

    Its ``client`` may do everything; other users are made by `set_user`.
    """

    def __init__(self, folder: Path, *options: str, server: Certificate | None = None) -> None:
        self.authority = Authority(folder / "certificates")
        self.tls_port = kept_port()
        server = server or self.authority.issue("redis")
        super().__init__(
            folder, "--tls-port", str(self.tls_port), "--tls-cert-file", str(server.certificate),
            "--tls-key-file", str(server.key), "--tls-ca-cert-file", str(self.authority.certificate),
            "--tls-auth-clients", "no", *options,
        )  # fmt: skip

    def set_user(self, name: str, *rules: str) -> None:
        """Make a user with exactly these rules, as ``ACL SETUSER`` takes them; open connections lose what is gone."""
        self.client.execute_command("ACL", "SETUSER", name, "reset", "on", f">{PASSWORD}", *rules)

    def url_of(self, name: str, password: str = PASSWORD, *, host: str = "localhost", tls: bool = True) -> str:
        """Return the URL with which a user logs in."""
        if not tls:
            return f"redis://{name}:{password}@{host}:{self.port}/0"
        trusted = quote(str(self.authority.certificate), safe="/")
        return f"rediss://{name}:{password}@{host}:{self.tls_port}/0?ssl_ca_certs={trusted}"


@contextmanager
def secured_redis(*options: str) -> Iterator[SecuredRedis]:
    """Run a secured Redis until the block ends."""
    with tempfile.TemporaryDirectory(prefix="recsys-redis-") as name:
        server = SecuredRedis(Path(name), *options)
        server.start()
        try:
            yield server
        finally:
            server.kill()


def _kafka(stack: ExitStack) -> dict[str, Any]:
    kafka = stack.enter_context(secured_kafka(kafka_jars()))
    kafka.add_user("admin")
    kafka.add_user("shop")
    print(f"Kafka, SASL/SCRAM over TLS:  {kafka.sasl_address}")
    print(f"Kafka, client certificates:  {kafka.tls_address}")
    print(f"Kafka, plain text, whoever connects is a super user:  {kafka.address}")
    print(f"users: admin (super user) and shop (no rights yet), both with the password {PASSWORD}")
    return {
        "RECSYS_KAFKA__BOOTSTRAP_SERVERS": kafka.sasl_address,
        "RECSYS_KAFKA__LIBRDKAFKA": json.dumps(kafka.login("shop")),
    }


def _redis(stack: ExitStack) -> dict[str, Any]:
    server = stack.enter_context(secured_redis())
    server.set_user("shop", "~recsys*", "+@all", "-@dangerous", "+info")
    print(f"Redis, TLS:  localhost:{server.tls_port}")
    print(f"Redis, plain text, whoever connects may do everything:  {server.url}")
    print(f"user: shop (keys recsys*, no dangerous commands but INFO) with the password {PASSWORD}")
    return {"RECSYS_REDIS__URL": server.url_of("shop")}


def main() -> None:
    """Run one server until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tests.secured", description=__doc__)
    parser.add_argument("server", choices=["kafka", "redis"])
    start = {"kafka": _kafka, "redis": _redis}[parser.parse_args().server]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as stack:
        for name, value in start(stack).items():
            print(f"export {name}={shlex.quote(value)}")
        print("Ctrl-C ends it.", flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
