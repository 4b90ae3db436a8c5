"""Nothing that others have chosen is obeyed by the terminal, the editor or the reader of a log that shows it."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.cli.output import new_table
from recsys.cli.show import history_table, list_table
from recsys.runtime.escapes import escaped
from recsys.runtime.logs import LineFormatter, in_short
from recsys.runtime.progress import ProgressReporter
from recsys.runtime.terminal import SafeConsole
from tests.builders import make_history
from tests.preloaded import run_module

HOSTILE = {
    "\x1b[2J\x1b[31mred": "\\u001b[2J\\u001b[31mred",
    "\x9b31m": "\\u009b31m",
    "\x1b]8;;https://evil.example\x07click": "\\u001b]8;;https://evil.example\\u0007click",
    "gpj.\u202eexe": "gpj.\\u202eexe",
    "a\u2028b\u2029c": "a\\u2028b\\u2029c",
    "a\rb\x08\x7f\x00": "a\\rb\\b\\u007f\\u0000",
    "\ufeff\u200b\u2066x\U000e0041": "\\ufeff\\u200b\\u2066x\\udb40\\udc41",
    "a\nerror: forged": "a\\nerror: forged",
    "\ud800": "\\ud800",
}
HARMLESS = ["Grüner Tee", "[red]tea[/red]", "茶", "می\u200cخواهم", "👩\u200d🍳", "a\xa0b", "", "\\u001b"]


@pytest.mark.parametrize(("text", "shown"), HOSTILE.items())
def test_what_is_obeyed_is_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown


@pytest.mark.parametrize("text", HARMLESS)
def test_what_people_read_stays(text: str) -> None:
    assert escaped(text) == text


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_stays_the_same_json(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2)
    assert json.loads(escaped(text, lines=True)) == value


def printed(console: SafeConsole, *, terminal: bool = False) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("text", [text for text in HOSTILE if text != "\ud800"])
def test_a_console_escapes_what_it_prints_and_has_in_tables(text: str) -> None:
    console = SafeConsole(file=io.StringIO(), width=200)
    console.print(f"user {text} is unknown")
    table = new_table(f"What {text} may buy again", caption=f"of {text}")
    table.add_column(f"title {text}")
    table.add_row(text)
    console.print(table)
    said = printed(console)
    assert said.count(HOSTILE[text]) == (4 if "\n" in text else 5), "a caption may have several lines"
    assert not [c for c in said if c != "\n" and not c.isprintable()]


@pytest.mark.parametrize("item", [text for text in HOSTILE if text != "\ud800" and "\n" not in text])
def test_ids_of_a_planted_model_are_escaped_in_lists_and_histories(item: str) -> None:
    console = SafeConsole(file=io.StringIO(), width=400)
    console.print(list_table("Recommended", {"items": [{"item_id": item, "score": 1.0}]}, {}, 5))
    console.print(history_table("u", make_history({item: 1.0}), {}, 5))
    assert printed(console).count(HOSTILE[item]) == 2
    assert not [c for c in printed(console) if c != "\n" and not c.isprintable()]


def test_markup_in_titles_is_shown_as_it_is() -> None:
    console = SafeConsole(file=io.StringIO(), width=200, force_terminal=True)
    title = "[bold red]tea[/] [link=https://evil.example]here[/link] :tea:"
    table = new_table(title)
    table.add_column(title)
    table.add_row(title)
    console.print(title, table)
    assert printed(console).count(title) == 4


def test_progress_escapes_names_of_files() -> None:
    console = SafeConsole(file=io.StringIO(), width=200, force_terminal=True)
    with ProgressReporter(console=console).stage("import [red]x[/]\x1b]0;evil\x07\u202e.csv", 1) as advance:
        advance(1)
    said = printed(console)
    assert "import [red]x[/]\\u001b]0;evil\\u0007\\u202e.csv" in said
    assert "\x1b]0;" not in said
    assert "\u202e" not in said


@pytest.mark.parametrize("text", HOSTILE)
def test_a_log_message_is_one_line_whatever_it_quotes(text: str) -> None:
    record = logging.LogRecord("api", logging.INFO, "here", 1, "user %s", (text,), None)
    assert LineFormatter(in_short).format(record) == f"INFO: user {HOSTILE[text]}"


def test_a_traceback_keeps_its_lines_and_nothing_else() -> None:
    try:
        raise ValueError("a\x1b[2J\u2028b")
    except ValueError:
        record = logging.LogRecord("api", logging.ERROR, "here", 1, "unexpected", (), sys.exc_info())
    first, *others = LineFormatter(in_short).format(record).split("\n")
    assert first == "ERROR: unexpected"
    assert others[0] == "Traceback (most recent call last):"
    assert others[-1] == "ValueError: a\\u001b[2J\\u2028b"


@pytest.mark.parametrize(
    "arguments",
    [
        ["import", "no\x1b[31m\u202esuch.csv"],
        ["import", "a.csv", "b\x1b[31m\u202e.csv"],
        ["import", "--n\x1b[31m\u202eo"],
        ["\x1b[31m\u202e"],
        ["show", "u\x1b[31m\u202e"],
        ["imports", "undo", "\x1b[31m\u202e"],
        ["models", "show", "v\x1b[31m\u202e"],
        ["items", "import", "no\x1b[31m\u202esuch.csv"],
        ["evaluate", "--since", "\x1b[31m\u202e"],
        ["config", "\x1b[31m\u202e"],
    ],
)
def test_no_command_prints_an_argument_raw(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")}
    environment["RECSYS_REDIS__URL"] = "redis://127.0.0.1:1/0"
    done = run_module("recsys", arguments, environment=environment, folder=tmp_path, timeout_s=240)
    said = done.stdout + done.stderr
    assert done.returncode not in (0, -1)
    assert "error" in said.lower()
    assert "\x1b" not in said
    assert "\u202e" not in said
