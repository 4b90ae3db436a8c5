"""Lines of the log: their event, sentence and fields, for people and for programs."""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Formatter
from typing import Any

import pytest
import redis
from pydantic import SecretStr

from recsys.errors import SettingsError
from recsys.logger import TAKEN, logger
from recsys.redis.damage import damaged
from recsys.redis.keys import Keys
from recsys.runtime.logs import LineFormatter, configure_logging, in_json, in_words
from recsys.runtime.user_names import are_hashed, name_users_by, named
from recsys.settings import LogSettings, load_settings, secrets
from tests.services import PROJECT
from tests.syntax import nodes_in

PACKAGES = ("recsys", "consumer", "trainer", "api")
LEVELS = frozenset({"debug", "info", "warning", "error", "exception", "critical", "log"})
DOCUMENT = PROJECT / "docs" / "logs.md"
_START = "<!-- written by tests/unit/test_log_lines.py -->\n"
log = logger("tests.lines")


@pytest.fixture(autouse=True)
def _names_as_before() -> Iterator[None]:
    yield
    name_users_by(LogSettings())


def line_of(record: logging.LogRecord) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(LineFormatter(in_json).format(record))
    return found


def test_a_line_for_programs_has_the_event_the_sentence_and_the_fields(caplog: pytest.LogCaptureFixture) -> None:
    log.warning("model_refused", "model {model} is refused: {why}", model="v1", why="no {braces}", n_users=3, share=0.5)
    (record,) = caplog.records
    line = line_of(record)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "warning",
        "logger": "tests.lines",
        "event": "model_refused",
        "message": "model v1 is refused: no {braces}",
        "model": "v1",
        "why": "no {braces}",
        "n_users": 3,
        "share": 0.5,
    }


def test_a_line_for_people_shows_behind_the_sentence_what_it_does_not_name(caplog: pytest.LogCaptureFixture) -> None:
    log.error("model_refused", "model {model} is refused", model="v1", users=3)
    shown = LineFormatter(in_words).format(caplog.records[0])
    assert shown.endswith("Z ERROR   tests.lines: model v1 is refused users=3")


def test_libraries_have_lines_of_the_same_form() -> None:
    line = line_of(logging.LogRecord("redis.connection", logging.WARNING, "", 0, "lost %s", ("localhost",), None))
    assert (line["event"], line["message"], line["level"]) == ("redis", "lost localhost", "warning")
    assert redis.__name__ == line["event"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), Path("a"), ValueError("b"), b"c", ["d"], None, True])
def test_every_field_makes_a_line_of_json(value: object, caplog: pytest.LogCaptureFixture) -> None:
    log.warning("odd", "odd", value=value)
    found = line_of(caplog.records[0])["value"]
    assert found == (value if value is None or value is True else str(value))


def test_a_traceback_is_one_field_and_holds_no_secret(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "_known", frozenset({"hunter-two"}))
    try:
        raise ValueError("hunter-two\nand\x1b[31m")
    except ValueError:
        log.exception("odd", "odd {word}", word="hunter-two")
    text = LineFormatter(in_json).format(caplog.records[0])
    assert text.isprintable()
    line = json.loads(text)
    assert line["exception"].endswith("ValueError: ***\nand\x1b[31m")
    assert (line["message"], line["word"]) == ("odd ***", "***")


@pytest.mark.parametrize(("form", "is_json"), [("json", True), ("text", False), ("auto", True)])
def test_lines_are_json_where_nobody_looks_on(form: str, is_json: bool) -> None:
    program = (
        "from recsys.logger import logger\nfrom recsys.runtime.logs import configure_logging\n"
        "from recsys.settings import LogSettings\n"
        f"configure_logging(LogSettings(format={form!r}))\nlogger('a').info('b', 'c {{d}}', d=1)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stderr.startswith("{") == is_json
    assert "c 1" in ran.stderr


def test_users_are_named_by_keyed_hashes_where_that_is_asked_for() -> None:
    keys = Keys("recsys")
    assert not are_hashed()
    assert "{ann@shop.example}:recs" in str(damaged(keys, keys.recs("ann@shop.example"), "odd"))
    name_users_by(LogSettings(hash_user_ids=True, hash_key=SecretStr("x" * 16)))
    shown = named("ann@shop.example")
    assert re.fullmatch(r"user-[0-9a-f]{16}", shown)
    for key in keys.of_user("ann@shop.example"):
        said = str(damaged(keys, key, "odd"))
        assert "ann" not in said
        assert f"{{{shown}}}:" in said
    assert f"{keys.similar('ann')} is damaged" in str(damaged(keys, keys.similar("ann"), "odd"))  # that is an item
    name_users_by(LogSettings(hash_user_ids=True, hash_key=SecretStr("y" * 16)))
    assert named("ann@shop.example") != shown


def test_the_command_of_the_manual_finds_the_hash_of_a_user() -> None:
    (command,) = re.findall(r"^```sh\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    user, key = "ann@shop.example", "k" * 16
    environment = {**os.environ, "USER_ID": user, "RECSYS_LOG__HASH_KEY": key}
    told = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=True).stdout
    name_users_by(LogSettings(hash_user_ids=True, hash_key=SecretStr(key)))
    assert named(user) == f"user-{told.strip()}"


def test_hashes_need_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_LOG__HASH_USER_IDS", "true")
    monkeypatch.setenv("RECSYS_LOG__HASH_KEY", "too short")
    with pytest.raises(SettingsError, match=r"RECSYS_LOG.*openssl rand"):
        load_settings()
    monkeypatch.setenv("RECSYS_LOG__HASH_KEY", "long enough for a key")
    assert load_settings().log.hash_user_ids


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Yield each place of the code that logs a line."""
    for package in PACKAGES:
        for path in sorted((PROJECT / package).rglob("*.py")):
            for node in nodes_in(path):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in LEVELS
                    and ast.unparse(node.func.value) in {"log", "self._log", "audit_log", "_about_requests"}
                ):
                    yield f"{path.relative_to(PROJECT)}:{node.lineno}", node


def test_every_line_of_the_code_has_an_event_and_the_fields_of_its_sentence() -> None:
    found = list(calls())
    assert len(found) > 150
    for place, call in found:
        event, sentence = call.args[1:] if call.func.attr == "log" else call.args  # type: ignore[attr-defined]
        assert isinstance(event, ast.Constant), place
        assert re.fullmatch(r"[a-z][a-z_]*[a-z]", str(event.value)), place
        assert isinstance(sentence, ast.Constant), place
        fields = {keyword.arg for keyword in call.keywords}
        in_sentence = {name for _, name, _, _ in Formatter().parse(str(sentence.value)) if name is not None}
        assert in_sentence <= fields, place
        assert not fields & TAKEN, place


def table() -> str:
    """Return all events of the code: name, levels, sentences."""
    events: dict[str, list[tuple[str, str]]] = {}
    for _, call in calls():
        level = call.func.attr  # type: ignore[attr-defined]
        event, sentence = call.args[1:] if level == "log" else call.args
        levels = {"exception": "error", "log": "warning or error"}
        shown = str(ast.literal_eval(sentence)).replace("|", "\\|")
        events.setdefault(ast.literal_eval(event), []).append((levels.get(level, level), shown))
    rows = ["| event | level | sentence |", "|---|---|---|"]
    for name, lines in sorted(events.items()):
        sentences = "<br>".join(f"`{sentence}`" for sentence in dict.fromkeys(told for _, told in lines))
        rows.append(f"| `{name}` | {', '.join(dict.fromkeys(level for level, _ in lines))} | {sentences} |")
    return "\n".join(rows) + "\n"


def test_the_document_lists_every_event() -> None:
    before, start, found = DOCUMENT.read_text(encoding="utf-8").partition(_START)
    if os.environ.get("UPDATE_DOCUMENTS") == "1":
        DOCUMENT.write_text(before + _START + table(), encoding="utf-8")
    else:
        assert start + found == _START + table(), "run UPDATE_DOCUMENTS=1 pytest tests/unit/test_log_lines.py"


def test_configuring_does_not_touch_the_loggers_of_whoever_uses_the_library(caplog: pytest.LogCaptureFixture) -> None:
    import structlog

    before = structlog.get_config()
    configure_logging(LogSettings(format="json"))
    assert structlog.get_config() == before
