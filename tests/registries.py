"""A real Schema Registry: Apicurio on Java 17, from Maven; it may be killed and started again."""

from __future__ import annotations

import json
import os
import ssl
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
from confluent_kafka.schema_registry import SchemaRegistryClient

from tests.services import OwnServer, end_process, from_maven, kept_port, start_process, wait_until
from tests.shared_servers import StartedServer

_API = "/apis/ccompat/v7"


def registry_folder() -> Path:
    """Fetch the registry with Maven, once, and unpack it."""
    return from_maven("registry", unpack=_unpacked)


def _unpacked(folder: Path) -> None:
    (packed,) = folder.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    packed.unlink()


class Registry(OwnServer):
    """One registry on a port of its own; its schemas are in the memory of a database server, so that they outlive it.

    A database in files does not do: killed, it forgets what it has acknowledged, or cannot be opened again.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.port = kept_port()
        self.url = f"http://127.0.0.1:{self.port}{_API}"
        self._folder = folder
        port = kept_port()
        self._schemas = f"jdbc:h2:tcp://127.0.0.1:{port}/mem:schemas;DB_CLOSE_DELAY=-1"
        (jar,) = registry_folder().glob("lib/*com.h2database.h2-*.jar")
        command = ["java", "-Xmx100m", "-cp", str(jar), "org.h2.tools.Server", "-tcp", "-tcpPort", str(port)]
        log = folder / "database.log"
        database = self._database = start_process([*command, "-ifNotExists"], log, os.environ)

        def runs() -> bool:
            if database.poll() is not None:
                raise RuntimeError(f"the database of schemas did not start:\n{log.read_text()[-4000:]}")
            return "TCP server running" in log.read_text()

        wait_until(runs, "the database of schemas runs")

    def start(self) -> None:
        """Start the registry and wait until it answers."""
        (jar,) = registry_folder().glob("apicurio-registry-app-*-runner.jar")
        command = [
            "java", "-Xmx400m", "-XX:TieredStopAtLevel=1", f"-Djava.io.tmpdir={self._folder}",
            f"-Dquarkus.http.port={self.port}", "-Dquarkus.http.host=127.0.0.1",
            f"-Dquarkus.datasource.jdbc.url={self._schemas}",
            "-jar", str(jar),
        ]  # fmt: skip
        log = self._folder / f"registry-{time.monotonic_ns()}.log"
        process = self._process = start_process(command, log, os.environ)

        def answers() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"the registry did not start:\n{log.read_text()[-4000:]}")
            try:
                return httpx.get(f"{self.url}/subjects", timeout=10).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers, "the registry answers")

    def close(self) -> None:
        """End it, and its schemas."""
        self.kill()
        end_process(self._database)


def started_registry(folder: Path) -> StartedServer:
    """Start a registry; whoever asked for it ends it."""
    registry = Registry(folder)
    registry.start()
    return StartedServer(registry.url, "a Schema Registry (Apicurio 2.6.13.Final), started for these tests")


def client_of(url: str) -> SchemaRegistryClient:
    """Return a producer's client."""
    return SchemaRegistryClient({"url": url})


class AnsweringServer:
    """An HTTP server that gives nearly every request the same answer: what a registry says that refuses, or is none.

    Parameters
    ----------
    status : int
    body : str
    tls : SSLContext or None
        None speaks plain HTTP.
    """

    def __init__(self, status: int, body: str = "{}", *, tls: ssl.SSLContext | None = None) -> None:
        self.status = status
        self.body = body
        self.pages: dict[str, tuple[int, str]] = {}
        """Pages with an answer of their own."""
        self.leads_to = ""
        """Address of a server that answers instead; empty means this one does."""
        self.requests: list[tuple[str, str | None]] = []
        """Path and Authorization of each request."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests.append((self.path, self.headers["Authorization"]))
                server._answers.wait()
                status, body = server._answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self._answers = Event()
        self._answers.set()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._http.server_port}"
        self._thread = Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def answer_schema(self, schema: dict[str, Any]) -> None:
        """Answer from now on with an Avro schema."""
        self.status, self.body = 200, json.dumps({"schema": json.dumps(schema)})

    def _answer(self, path: str) -> tuple[int, str]:
        if self.leads_to:
            answer = httpx.get(f"{self.leads_to}{path}", timeout=60)
            return answer.status_code, answer.text
        return self.pages.get(path, (self.status, self.body))

    def answer_json_schema(self, schema: dict[str, Any]) -> None:
        """Answer from now on with a JSON Schema."""
        self.status, self.body = 200, json.dumps({"schema": json.dumps(schema), "schemaType": "JSON"})

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Take requests and answer none until the block ends."""
        self._answers.clear()
        try:
            yield
        finally:
            self._answers.set()

    def answer_proto(self, text: str) -> None:
        """Answer from now on with the text of a .proto file."""
        self.status, self.body = 200, json.dumps({"schema": text, "schemaType": "PROTOBUF"})

    def __enter__(self) -> AnsweringServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
