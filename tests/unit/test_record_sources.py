"""Records of files, before anything counts."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from recsys.errors import InputFileError
from recsys.kafka.records import record_timestamp_ms
from recsys.operations import record_sources
from recsys.operations.record_sources import FileRecords
from tests.builders import NOON_MS


def file_of(folder: Path, content: bytes) -> FileRecords:
    path = folder / "records.jsonl"
    path.write_bytes(content)
    return FileRecords(path, topic="orders", now_ms=NOON_MS)


def test_each_line_is_a_record_that_is_published_now(tmp_path: Path) -> None:
    with file_of(tmp_path, b'{"a": 1}\r\n\n  \n{"a": 2}\n{"a": 3}') as source:
        found = list(source.all())
        assert [(record.value(), source.place(record)) for record in found] == [
            (b'{"a": 1}', "line 1"),
            (b'{"a": 2}', "line 4"),
            (b'{"a": 3}', "line 5"),
        ]
        assert {(record.topic(), record_timestamp_ms(record)) for record in found} == {("orders", NOON_MS)}
        assert [record.value() for record in source.newest(2)] == [b'{"a": 2}', b'{"a": 3}']
        assert [record.value() for record in source.oldest(1)] == [b'{"a": 1}']


def test_broken_lines_are_records_unless_the_file_is_of_another_kind(tmp_path: Path) -> None:
    assert [record.value() for record in file_of(tmp_path, b"{broken\n{}\n\xff\n").all()] == [
        b"{broken",
        b"{}",
        b"\xff",
    ]
    assert list(file_of(tmp_path, b"").all()) == []
    for content in (b"user_id,item_id\nu,a\n", b'[\n{"a": 1},\n', b"PAR1\x15\x04", b"\x1f\x8b\x08\x00"):
        with pytest.raises(InputFileError, match=r"records\.jsonl: is no file of records"):
            list(file_of(tmp_path, content).all())


def test_of_a_line_that_is_too_long_the_beginning_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_sources, "_LONGEST_LINE", 8)
    source = file_of(tmp_path, b"[1]\n" + b"x" * 30 + b"\n1234567\n" + b"y" * 16 + b"\n[2]\n" + b"z" * 9)
    assert [(record.offset(), record.value()) for record in source.all()] == [
        (1, b"[1]"), (2, b"x" * 8), (3, b"1234567"), (4, b"y" * 8), (5, b"[2]"), (6, b"z" * 8),
    ]  # fmt: skip


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"[1]\n[2]\n")))
    source = FileRecords(Path("-"), topic="orders", now_ms=NOON_MS)
    assert source.name == "standard input"
    assert [record.value() for record in source.all()] == [b"[1]", b"[2]"]
