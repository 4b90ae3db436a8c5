"""A Prometheus of Debian that scrapes running services and watches the rules of deploy/prometheus."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.services import IN_CI, NO_AUTHORITIES, PROJECT, OwnServer, kept_port, start_process, wait_until

DEPLOYED = PROJECT / "deploy" / "prometheus"


def installed(program: str) -> str:
    """Return where Prometheus, or its promtool, is; in CI it must be there."""
    if (path := shutil.which(program)) is not None:
        return path
    if IN_CI:
        pytest.fail(f"{program} is required in CI; apt-get install prometheus")
    pytest.skip(f"{program} is not installed (apt-get install prometheus)")


class Prometheus(OwnServer):
    """One Prometheus, with what is deployed but for the targets, the file of the key and the intervals.

    Parameters
    ----------
    targets : mapping of str → str
        Where each job finds its service, as host:port.
    """

    def __init__(self, folder: Path, targets: Mapping[str, str], api_key: str) -> None:
        self._folder = folder
        self.url = f"http://127.0.0.1:{kept_port()}"
        key = folder / "api.key"
        key.write_text(api_key)
        configuration = yaml.safe_load((DEPLOYED / "prometheus.yml").read_text())
        configuration["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        configuration["rule_files"] = [str(DEPLOYED / "rules.yml")]
        jobs = {job["job_name"]: job for job in configuration["scrape_configs"]}
        assert set(jobs) == set(targets)
        for name, job in jobs.items():
            job["static_configs"] = [{"targets": [targets[name]]}]
            del job["dns_sd_configs"]
            if "authorization" in job:
                job["authorization"]["credentials_file"] = str(key)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [
            installed("prometheus"), f"--config.file={self._folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self._folder / 'series'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
        ]  # fmt: skip
        self._process = start_process(command, self._folder / "prometheus.log", os.environ)
        wait_until(self._answers, "Prometheus answers")

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready", verify=NO_AUTHORITIES).is_success
        except httpx.TransportError:
            return False

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of its HTTP API, which must be one without error."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, verify=NO_AUTHORITIES, timeout=60)
        assert answer.is_success, answer.text
        return answer.json()["data"]

    def values(self, query: str) -> list[float]:
        """Return the values of an instant query, of every series that it finds now."""
        return [float(sample["value"][1]) for sample in self.ask("query", query=query)["result"]]

    def alerts(self) -> dict[str, str]:
        """Return the severity of the alerts that fire or are about to, by name."""
        return {alert["labels"]["alertname"]: alert["labels"]["severity"] for alert in self.ask("alerts")["alerts"]}


@contextmanager
def prometheus(folder: Path, targets: Mapping[str, str], api_key: str) -> Iterator[Prometheus]:
    """Run a Prometheus until the block ends."""
    folder.mkdir()
    server = Prometheus(folder, targets, api_key)
    server.start()
    try:
        yield server
    finally:
        server.kill()
