from __future__ import annotations

import logging
import re
import socket
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Counter

from recsys.errors import SettingsError
from recsys.runtime.metrics_server import serve_metrics


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


def test_no_port_serves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    serve_metrics(0, CollectorRegistry(), variable="RECSYS_CONSUMER__METRICS_PORT")
    assert not caplog.records
