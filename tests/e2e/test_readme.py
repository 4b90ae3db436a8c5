"""Every code block of the README, run as it is written, in order, against real services."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from recsys.kafka.topics import describe_topic
from recsys.redis import open_store
from recsys.settings import KafkaSettings, Settings
from tests.planted import list_of, owned_by
from tests.prepared import train_planted
from tests.services import IN_CI, PROJECT, Shop, apache_kafka, kafka_jars, wait_until

README = (PROJECT / "README.md").read_text()


def blocks() -> list[tuple[str, str]]:
    """Return (language, code) of all fenced blocks."""
    return blocks_of(README)


def blocks_of(text: str) -> list[tuple[str, str]]:
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.kafka
@pytest.mark.timeout(600)
def test_readme_blocks_run_as_written(shop: Shop, settings: Settings, kcat: str) -> None:
    train_planted(shop)
    shop.environment["PATH"] = f"{Path(sys.executable).parent}:{shop.environment['PATH']}"
    ran = []
    with open_store(settings) as store:
        for language, code in blocks():
            if language in ("console", "text"):
                continue  # the other tests of this file, and a picture
            if code == "python -m consumer\n":
                shop.start_consumer().await_assigned()
            elif code == "python -m trainer\n":
                shop.start_trainer()
                wait_until(store.trainer.is_alive, "the trainer is ready")
            elif code == "python -m api\n":
                api = shop.start_api()
                shop.environment["RECSYS_API__PORT"] = api.url.rpartition(":")[2]
            else:
                ran.append((code, run_block(shop, language, code)))
            if "echo '42|" in code:
                wait_until(lambda: owned_by(store, "42") == {"sku-9": 1.0, "sku-7": 2.0}, "both purchases are applied")
        for language, code in blocks_of((PROJECT / "docs" / "http-api.md").read_text()):
            if language != "console":
                ran.append((code, run_block(shop, language, code)))
        outputs = {code: output for code, output in ran}
        assert len(ran) >= 10
        assert owned_by(store, "42").keys() == {"sku-9", "sku-7", "sku-1", "sku-2"}
        assert list_of(store, "42") is not None
    imported = next(output for code, output in outputs.items() if "recsys import" in code)
    assert "4 rows imported: 4 new" in imported
    assert "1 rows rejected" in imported
    python_read, node_read = (
        next(output for code, output in outputs.items() if marker in code)
        for marker in ("client.mget(", "client.mGet(")
    )
    assert [line.split()[0] for line in python_read.splitlines()] == node_read.split()
    checked = next(output for code, output in outputs.items() if "recsys verify" in code)
    assert ": 0 differences" in checked


def run_block(shop: Shop, language: str, code: str) -> str:
    """Run one block with the interpreter of its language; return its output."""
    if language == "bash":
        command = ["bash", "-euo", "pipefail", "-c", code]
    elif language == "python":
        command = [sys.executable, "-c", code]
    else:
        assert language == "javascript"
        if shutil.which("npm") is None and not IN_CI:
            pytest.skip("Node is not installed; everything before the Node example passed")
        subprocess.run(["npm", "install", "--silent", "redis"], cwd=shop.folder, check=True, timeout=120)
        (shop.folder / "block.mjs").write_text(code)
        command = ["node", "block.mjs"]
    done = subprocess.run(command, cwd=shop.folder, env=shop.environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_topics_of_the_readme_are_created_as_written(tmp_path: Path) -> None:
    """Kafka's own script, here in front of Kafka's own class."""
    try:
        jars = kafka_jars()
    except (OSError, subprocess.CalledProcessError) as error:
        if IN_CI:
            raise
        pytest.skip(f"no Apache Kafka here: {error}")
    script = tmp_path / "kafka-topics.sh"
    script.write_text(f'#!/bin/sh\nexec java -cp "{jars}/*" org.apache.kafka.tools.TopicCommand "$@"\n')
    script.chmod(0o755)
    code = next(code for language, code in blocks() if language == "console" and "kafka-topics.sh" in code)
    with apache_kafka(jars) as broker:
        address = broker.address
        environment = {
            **os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "RECSYS_KAFKA__BOOTSTRAP_SERVERS": address,
        }  # fmt: skip
        subprocess.run(["bash", "-euo", "pipefail", "-c", code], env=environment, check=True, timeout=120)
        for topic in ("purchases", "purchases.dlq"):
            assert len(describe_topic(KafkaSettings(bootstrap_servers=address), topic).partitions) == 12


def test_two_commands_of_the_readme_exist() -> None:
    """`make demo` is played in test_demo.py; `make test` is what runs this."""
    code = next(code for language, code in blocks() if language == "console")
    assert code == "make demo\nmake test\n"
    for command in code.splitlines():
        dry = subprocess.run([*command.split(), "--dry-run"], cwd=PROJECT, capture_output=True, text=True)
        assert dry.returncode == 0, dry.stderr
    plan = subprocess.run(["make", "demo", "ARGS=--keep", "--dry-run"], cwd=PROJECT, capture_output=True, text=True)
    assert ".venv/bin/recsys demo --keep" in plan.stdout.splitlines()


def test_docker_commands_of_the_readme_fit_the_compose_file() -> None:
    compose = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
    code = next(code for language, code in blocks() if "docker compose" in code)
    services = compose["services"]
    for service, _ in re.findall(r"--scale (\w+)=(\d+)", code):
        assert "ports" not in services[service], "a fixed port would not scale"
    exports = dict(re.findall(r"(RECSYS_\w+)=(\S+)", code))
    host_ports = {port.rsplit(":", 1)[0] for service in services.values() for port in service.get("ports", [])}
    assert exports["RECSYS_KAFKA__BOOTSTRAP_SERVERS"] in host_ports
    assert exports["RECSYS_REDIS__URL"].removeprefix("redis://").removesuffix("/0") in host_ports
