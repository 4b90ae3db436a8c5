"""Every code block of README.md and docs/, run as it is written, in order, in a small demo that is kept running.

Blocks of bash, Python and JavaScript run. Those of `console` cannot run here (they need Docker, hours, or a terminal of
their own): they are compared with what they call.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from recsys.cli.app import app
from recsys.kafka.topics import describe_topic, topic_config
from recsys.operations.dead_letters import DeadLetterTopic, LetterFilter, count_letters
from recsys.redis import Store, open_store
from recsys.runtime.progress import ProgressReporter
from recsys.settings import KafkaSettings, load_settings
from recsys.storage.data_dir import open_data_dir
from tests.planted import list_of, owned_by
from tests.services import IN_CI, PROJECT, Api, apache_kafka, kafka_jars, running, wait_until

_OF_ITS_OWN = "connect.md"
"""Its blocks need real Kafka, and topics of other forms: test_connect.py runs them."""
DOCUMENTS = [
    PROJECT / "README.md", *sorted(path for path in (PROJECT / "docs").glob("*.md") if path.name != _OF_ITS_OWN)
]  # fmt: skip
SERVICES = ("python -m consumer", "python -m trainer", "python -m api")


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    document: str
    language: str
    code: str


def blocks() -> list[Block]:
    """Return the fenced blocks of all documents, in the order in which a reader meets them."""
    return [block for path in DOCUMENTS for block in blocks_of(path)]


def blocks_of(path: Path) -> list[Block]:
    found = re.findall(r"^```(\w+)\n(.*?)^```$", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [Block(path.name, language, code) for language, code in found]


def console_blocks(*parts: str) -> list[str]:
    """Return the console blocks that hold one of these texts."""
    return [b.code for b in blocks() if b.language == "console" and any(part in b.code for part in parts)]


@contextmanager
def kept_demo(folder: Path) -> Iterator[dict[str, str]]:
    """Play the demo with a sample of its households, keep it running, and yield the environment that it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    log = folder / "demo.log"
    command = [sys.executable, "-m", "recsys", "demo", "--households", "300", "--keep"]
    with running(command, log, environment) as demo:

        def kept() -> bool:
            assert demo.poll() is None, f"the demo ended with {demo.returncode}:\n{log.read_text()}"
            return "Ctrl-C stops it" in log.read_text()

        wait_until(kept, "the demo has played its month", patience_s=600)
        yield {**environment, **dict(re.findall(r"export (RECSYS_\w+)=(\S+)", log.read_text()))}
        demo.send_signal(signal.SIGINT)
        assert demo.wait(timeout=120) == 0


@contextmanager
def api_of(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run `python -m api` and yield its port."""
    log = folder / "api.log"
    with running([sys.executable, "-m", "api"], log, {**environment, "RECSYS_API__PORT": "0"}) as process:
        api = Api(process, log)
        wait_until(api.is_ready, "the API is ready")
        yield api.url.rpartition(":")[2]


@pytest.mark.timeout(1200)
def test_blocks_run_as_written_in_order(
    tmp_path: Path, kcat: str, monkeypatch: pytest.MonkeyPatch, compiled: None
) -> None:
    ran: list[tuple[Block, str]] = []
    with kept_demo(tmp_path) as environment:
        for name in [name for name in os.environ if name.startswith("RECSYS_")]:
            monkeypatch.delenv(name)
        for name, value in environment.items():
            if name.startswith("RECSYS_"):
                monkeypatch.setenv(name, value)
        with open_store(load_settings()) as store, api_of(tmp_path, environment) as port:
            environment["RECSYS_API__PORT"] = port
            for block in blocks():
                if block.language in ("bash", "python", "javascript"):
                    output = run_block(tmp_path, environment, block)
                    ran.append((block, output))
                    await_effect(store, block.code, output)

    def output_of(part: str) -> str:
        return next(output for block, output in ran if part in block.code)

    assert {block.document for block, _ in ran} == {
        "README.md",
        "contract.md",
        "files.md",
        "http-api.md",
        "operations.md",
        "settings.md",
    }
    imported = output_of("recsys import")
    assert "3 rows imported: 3 new" in imported
    assert "1 row rejected" in imported
    assert "NDCG@20" in imported, "the new model was compared with the live one"
    assert "unjudged" not in imported
    assert "NDCG@20" in output_of("recsys evaluate\n")
    assert "report written to report.html" in output_of("recsys evaluate --html")
    before, after = (output for block, output in ran if "recsys show 42" in block.code)
    bought = output_of("user 42 bought").split()[-1]
    assert first_rows(before)["Recommended to 42"] == bought
    assert first_rows(after)["History of 42"] == bought
    assert bought not in after.partition("Recommended to 42")[2]
    python_read, node_read = output_of("client.mget("), output_of("client.mGet(")
    assert [line.split()[0] for line in python_read.splitlines()] == node_read.split()
    checked = [output for block, output in ran if "recsys verify --all" in block.code]
    assert len(checked) == 2
    assert all(": 0 differences" in output for output in checked)


def await_effect(store: Store, code: str, output: str) -> None:
    """Wait until the consumer has applied what a block published: a reader is slower, a script may be quicker."""
    if "user 42 bought" in code:
        bought = output.split()[-1]
        wait_until(lambda: bought not in [item["item_id"] for item in listed(store, "42")], "the list has changed")
    if "kcat -P" in code:
        wait_until(lambda: owned_by(store, "42").get("sku-1") == 2.0, "the purchase of the shell is applied")
    if "order-9:1" in code:
        wait_until(lambda: "user_id_missing" in letters_by_code(), "the letter is there")
    if "redrive --reason" in code:
        assert "1 letter would be redriven" in output
        assert "1 letter redriven: 1 event published" in output
        wait_until(lambda: owned_by(store, "anna").get("sku-3") == 1.0, "the mended purchase is applied")
    if "recsys publish" in code:
        wait_until(lambda: owned_by(store, "ben").get("sku-2") == 2.0, "the purchases of the file are applied")


def letters_by_code() -> Iterable[str]:
    settings = load_settings()
    with DeadLetterTopic(settings.kafka, open_data_dir(settings).storage) as topic:
        return count_letters(topic, LetterFilter(), ProgressReporter()).by_code.keys()


def listed(store: Store, user_id: str) -> list[dict[str, object]]:
    found = list_of(store, user_id)
    assert found is not None
    return list(found["items"])


def first_rows(output: str) -> dict[str, str]:
    """Return the id in the first row of the tables that `recsys show` prints of user 42."""
    tables = re.split(r"^(?=History of|Recommended to|What 42)", output, flags=re.MULTILINE)
    rows = {}
    for table in tables:
        cells = [line.split("│") for line in table.splitlines() if line.startswith("│")]
        if cells:
            first = cells[0][2] if table.startswith("Recommended") else cells[0][1]
            rows[" ".join(table.split()[:3]).rstrip(",")] = first.strip()
    return rows


def run_block(folder: Path, environment: dict[str, str], block: Block) -> str:
    """Run one block with the interpreter of its language; return its output."""
    if block.language == "bash":
        command = ["bash", "-euo", "pipefail", "-c", block.code]
    elif block.language == "python":
        command = [sys.executable, "-c", block.code]
    else:
        if shutil.which("npm") is None and not IN_CI:
            pytest.skip("Node is not installed; everything before the Node example passed")
        subprocess.run(["npm", "install", "--silent", "redis"], cwd=folder, check=True, timeout=120)
        (folder / "block.mjs").write_text(block.code)
        command = ["node", "block.mjs"]
    done = subprocess.run(
        command, cwd=folder, env={**environment, "COLUMNS": "200"}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, f"{block.document}:\n{block.code}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_topics_are_created_and_enlarged_as_written(tmp_path: Path) -> None:
    """Kafka's own scripts, here in front of Kafka's own classes."""
    try:
        jars = kafka_jars()
    except (OSError, subprocess.CalledProcessError) as error:
        if IN_CI:
            raise
        pytest.skip(f"no Apache Kafka here: {error}")
    classes = {
        "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
        "kafka-configs.sh": "kafka.admin.ConfigCommand",
    }
    for name, of_kafka in classes.items():
        script = tmp_path / name
        script.write_text(f'#!/bin/sh\nexec java -cp "{jars}/*" {of_kafka} "$@"\n')
        script.chmod(0o755)
    (create,), (enlarge,) = console_blocks("kafka-topics.sh"), console_blocks("kafka-configs.sh")
    with apache_kafka(jars) as broker:
        address = broker.address
        environment = {
            **os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "RECSYS_KAFKA__BOOTSTRAP_SERVERS": address,
        }  # fmt: skip
        for code in (create, enlarge):
            subprocess.run(["bash", "-euo", "pipefail", "-c", code], env=environment, check=True, timeout=120)
        settings = KafkaSettings(bootstrap_servers=address)
        for topic in ("purchases", "purchases.dlq"):
            assert len(describe_topic(settings, topic).partitions) == 12
        by_default, enlarged = (topic_config(settings, topic) for topic in ("purchases", "purchases.dlq"))
        assert by_default is not None
        assert enlarged is not None
        assert int(enlarged["max.message.bytes"]) == int(by_default["max.message.bytes"]) + 64 * 1024


def test_two_commands_of_the_readme_exist() -> None:
    """`make demo` is played in test_demo.py; `make test` is what runs this."""
    code = next(block.code for block in blocks() if block.language == "console")
    assert code == "make demo\nmake test\n"
    for command in code.splitlines():
        dry_run(command)
    assert ".venv/bin/recsys demo --keep" in dry_run("make demo ARGS=--keep").splitlines()


def dry_run(command: str) -> str:
    done = subprocess.run([*command.split(), "--dry-run"], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_docker_commands_of_the_readme_fit_the_compose_file() -> None:
    compose = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
    (code,) = (block for block in console_blocks("docker compose") if "RECSYS_REDIS__URL" in block)
    services = compose["services"]
    for service, _ in re.findall(r"--scale (\w+)=(\d+)", code):
        assert "ports" not in services[service], "a fixed port would not scale"
    exports = dict(re.findall(r"(RECSYS_\w+)=(\S+)", code))
    host_ports = {port.rsplit(":", 1)[0] for service in services.values() for port in service.get("ports", [])}
    assert exports["RECSYS_KAFKA__BOOTSTRAP_SERVERS"] in host_ports
    *_, host_address = services["passwords"]["command"]
    assert host_address in host_ports
    assert 'RECSYS_REDIS__URL="$(docker compose exec -T trainer cat /run/recsys/operator-on-host.url)"' in code
    assert "passwords:/run/recsys:ro" in services["trainer"]["volumes"]


_TESTED_ELSEWHERE = ("kafka-topics.sh", "kafka-configs.sh", "docker compose", "kafka-acls.sh", "ACL SETUSER")


def test_every_line_of_a_console_block_is_checked() -> None:
    """Topics, Docker, rights and the two commands have tests of their own; of the rest, each line names what exists."""
    for code in console_blocks(""):
        if code == "make demo\nmake test\n" or any(part in code for part in _TESTED_ELSEWHERE):
            continue
        for line in code.splitlines():
            if line.startswith("recsys "):
                parsed_by_the_command(line.split()[1:])
            else:
                assert line in SERVICES
                assert (PROJECT / line.split()[-1] / "__main__.py").exists()


def parsed_by_the_command(words: list[str]) -> None:
    """Fail unless these words are a command of ours with its own arguments and options; nothing is run."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "resolve_command"):  # a group of commands
        context = command.make_context("recsys", list(words), resilient_parsing=True)
        _, command, words = command.resolve_command(context, words)
    command.make_context("recsys", words)
