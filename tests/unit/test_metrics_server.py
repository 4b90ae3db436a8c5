from __future__ import annotations

import logging
import re
import socket
import threading
import urllib.request
from contextlib import ExitStack, suppress

import pytest
from prometheus_client import CollectorRegistry, Counter

from recsys.errors import SettingsError
from recsys.runtime.metrics_server import MOST_CONNECTIONS, serve_metrics


def test_a_port_that_is_free_is_found_and_named_for_each_service(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for name in ("one", "other"):
        registry = CollectorRegistry()
        Counter(name, "counted", registry=registry).inc(3)
        serve_metrics("any", registry, variable="RECSYS_CONSUMER__METRICS_PORT")
    addresses = re.findall(r"metrics at (http://\S+)", caplog.text)
    assert len(set(addresses)) == 2
    for name, address in zip(("one", "other"), addresses, strict=True):
        with urllib.request.urlopen(address, timeout=30) as reply:  # noqa: S310 - it begins with http://
            assert f"{name}_total 3.0\n" in reply.read().decode()


def test_a_port_that_is_taken_is_one_clear_error() -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"^RECSYS_TRAINER__METRICS_PORT: cannot listen on port {port}: "):
            serve_metrics(port, CollectorRegistry(), variable="RECSYS_TRAINER__METRICS_PORT")


def test_it_listens_where_it_is_told_and_on_this_machine_alone_if_it_is_not(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    port = served(caplog)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port))
    assert served(caplog, host="127.0.0.3")
    assert "metrics at http://127.0.0.3:" in caplog.text
    with socket.create_connection(("127.0.0.9", served(caplog, host="0.0.0.0"))):  # noqa: S104
        pass
    for host in ("192.0.2.77", "no such host"):
        with pytest.raises(
            SettingsError, match=rf"^RECSYS_CONSUMER__METRICS_HOST: {host} is no address of this machine"
        ):
            serve_metrics("any", CollectorRegistry(), variable="RECSYS_CONSUMER__METRICS_PORT", host=host)


def served(caplog: pytest.LogCaptureFixture, host: str = "127.0.0.1") -> int:
    serve_metrics("any", CollectorRegistry(), variable="RECSYS_CONSUMER__METRICS_PORT", host=host)
    return int(re.findall(r"metrics at http://\S+:(\d+)/", caplog.text)[-1])


def answer_to(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=240) as connection, suppress(ConnectionError):
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65_536), b""))
    return b""


def test_hundreds_of_connections_cost_no_thread_each_and_keep_prometheus_out_of_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    port = served(caplog)
    before = threading.active_count()
    with ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=240)) for _ in range(300)]
        assert answer_to(port, b"GET /metrics HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200 OK\r\n")
        assert threading.active_count() == before
        with suppress(ConnectionResetError):
            assert idle[0].recv(1) == b""  # the oldest gave way
    assert MOST_CONNECTIONS < 300


def test_a_connection_that_sends_no_request_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    port = served(caplog)
    assert answer_to(port, b"GET /metrics HTTP/1.1\r\n") == b""  # the end of the head does not come
    assert answer_to(port, b"x" * 1_000_000) == b""
    assert answer_to(port, b"POST /metrics HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 405")
    assert answer_to(port, b"\xff\r\n\r\n").startswith(b"HTTP/1.1 405")
    head, _, body = answer_to(port, b"HEAD / HTTP/1.1\r\nAccept: \xff;;version=x,\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert not body
    assert all(record.levelno == logging.INFO for record in caplog.records)


def test_no_port_serves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    serve_metrics(0, CollectorRegistry(), variable="RECSYS_CONSUMER__METRICS_PORT")
    assert not caplog.records
