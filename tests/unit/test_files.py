from __future__ import annotations

import errno
import os
import re
import uuid
from pathlib import Path

import pytest

from recsys.errors import DataDirError
from recsys.operations.machine_checks import folder_finding
from recsys.operations.status_line import Level
from recsys.storage.files import DiskFull, Storage


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}")


def full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def said_of_full(folder: Path) -> str:
    return f"the disk of {folder} is full (No space left on device); make room on it"


def everything_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_what_is_written_is_read(storage: Storage) -> None:
    storage.write_file("a/b/c.bin", b"\x00\xff")
    assert storage.read_file("a/b/c.bin") == b"\x00\xff"


def test_an_opened_file_has_its_size(storage: Storage) -> None:
    content = bytes(range(256)) * 10_000
    storage.write_file("a/b", content)
    with storage.opened("a/b") as (file, size):
        assert (file.read(), size) == (content, len(content))
    assert storage.read_at_most("a/b", len(content)) == content
    with pytest.raises(DataDirError, match="more than 255 bytes"):
        storage.read_at_most("a/b", 255)


def test_writing_again_replaces(storage: Storage) -> None:
    storage.write_file("a", b"long content")
    storage.write_file("a", b"short")
    assert storage.read_file("a") == b"short"
    assert storage.files("", "a") == ["a"]


def test_a_folder_is_written_with_all_its_files(storage: Storage) -> None:
    storage.write_folder("models/v1", {"one": b"1", "two": b"2"}, last="one")
    assert storage.files("models", "") == ["models/v1/one", "models/v1/two"]
    assert storage.read_file("models/v1/two") == b"2"


def test_files_are_found_by_suffix_at_any_depth_in_order(storage: Storage) -> None:
    for name in ("x/b.parquet", "x/a.parquet", "x/y/z/c.parquet", "x/note.txt", "other/d.parquet"):
        storage.write_file(name, b"")
    assert storage.files("x", ".parquet") == ["x/a.parquet", "x/b.parquet", "x/y/z/c.parquet"]


def test_a_folder_that_is_not_there_has_no_files(storage: Storage) -> None:
    assert storage.files("nowhere", "") == []


def test_a_missing_file_stays_a_missing_file(storage: Storage) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read_file("nowhere/nothing")
    with pytest.raises(FileNotFoundError):
        storage.read_at_most("nowhere/nothing", 1)


def test_deleting_removes_files_and_folders_and_minds_no_absence(storage: Storage) -> None:
    storage.write_file("a/b", b"")
    storage.write_file("a/c/d", b"")
    storage.write_file("keep", b"")
    storage.delete("a/b")
    assert storage.files("", "") == ["a/c/d", "keep"]
    storage.delete("a")
    storage.delete("a")
    assert storage.files("", "") == ["keep"]


def test_another_process_can_open_the_uri(storage: Storage) -> None:
    storage.write_file("a/b", b"content")
    assert Storage(storage.uri("a")).read_file("b") == b"content"


def test_a_relative_folder_has_an_absolute_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Storage("data").uri("models/v1") == str(tmp_path / "data" / "models" / "v1")


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("before", [None, b"old"])
def test_a_failed_write_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, before: bytes | None
) -> None:
    storage = Storage(str(tmp_path))
    if before is not None:
        storage.write_file("folder/name", before)
    with monkeypatch.context() as patched:
        patched.setattr(os if call == "fsync" else Path, call, full)
        with pytest.raises(DataDirError, match=rf"folder/name: {re.escape(said_of_full(tmp_path))}$"):
            storage.write_file("folder/name", b"new")
    assert everything_below(tmp_path) == (["folder"] if before is None else ["folder", "folder/name"])
    if before is not None:
        assert storage.read_file("folder/name") == before


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_failed_folder_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    storage = Storage(str(tmp_path))
    with monkeypatch.context() as patched:
        patched.setattr(os if call == "fsync" else Path, call, full)
        with pytest.raises(DataDirError, match=rf"models/v1: {re.escape(said_of_full(tmp_path))}$"):
            storage.write_folder("models/v1", {"one": b"1", "last": b"2"}, last="last")
    assert everything_below(tmp_path) == ["models"]
    storage.write_folder("models/v1", {"one": b"1", "last": b"2"}, last="last")
    assert storage.files("", "") == ["models/v1/last", "models/v1/one"]


def test_a_folder_that_fails_in_its_second_file_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync

    def fails_later(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 2:
            full()
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fails_later)
    with pytest.raises(DataDirError):
        Storage(str(tmp_path)).write_folder("models/v1", {"one": b"1", "last": b"2"}, last="last")
    assert everything_below(tmp_path) == ["models"]


def test_a_file_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace

    def noted_sync(descriptor: int) -> None:
        done.append("sync")
        real_sync(descriptor)

    def noted_replace(path: Path, target: Path) -> Path:
        done.append("rename")
        return real_replace(path, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    Storage(str(tmp_path)).write_file("name", b"content")
    assert done == ["sync", "rename", "sync"]


def test_a_remote_folder_gets_the_file_that_says_it_is_whole_last(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(f"memory://{uuid.uuid4().hex}")
    written: list[str] = []
    real = storage.fs.pipe_file

    def noted(path: str, content: bytes) -> None:
        written.append(path.rsplit("/", 1)[1])
        real(path, content)

    monkeypatch.setattr(storage.fs, "pipe_file", noted)
    storage.write_folder("v1", {"a": b"", "manifest.json": b"", "z": b""}, last="manifest.json")
    assert written == ["a", "z", "manifest.json"]


def test_what_a_crash_left_is_replaced_by_the_next_write(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    (tmp_path / "name.tmp").write_bytes(b"half")
    (tmp_path / "v1.tmp").mkdir()
    (tmp_path / "v1.tmp" / "stale").write_bytes(b"half")
    storage.write_file("name", b"whole")
    storage.write_folder("v1", {"one": b"1"}, last="one")
    assert everything_below(tmp_path) == ["name", "v1", "v1/one"]


def test_temporaries_are_removed_at_any_depth_and_nothing_else(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write_file("archive/r/whole.parquet", b"")
    storage.write_file("elsewhere/b.tmp", b"")
    (tmp_path / "archive" / "r" / "half.parquet.tmp").write_bytes(b"")
    (tmp_path / "archive" / "v.tmp").mkdir()
    (tmp_path / "archive" / "v.tmp" / "inner").write_bytes(b"")
    storage.remove_temporaries("archive")
    storage.remove_temporaries("nowhere")
    assert storage.files("", "") == ["archive/r/whole.parquet", "elsewhere/b.tmp"]


def test_errors_of_the_disk_become_storage_errors(tmp_path: Path, storage: Storage) -> None:
    local = Storage(str(tmp_path / "here"))
    (tmp_path / "here").write_bytes(b"a file where a folder is needed")
    with pytest.raises(DataDirError, match="here"):
        local.write_file("below", b"")
    with pytest.raises(DataDirError, match="here"):
        local.write_folder("below/v1", {"one": b""}, last="one")
    with pytest.raises(DataDirError, match=r"here is not a writable folder .*; set RECSYS_DATA_DIR"):
        local.check_writable()
    with pytest.raises(DataDirError, match="here"):
        local.read_file("below")


def test_a_folder_cannot_be_read_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataDirError, match="folder"):
        Storage(str(tmp_path)).read_file("folder")


def test_a_version_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write_folder("v1", {"one": b"first"}, last="one")
    with pytest.raises(DataDirError):
        storage.write_folder("v1", {"one": b"second"}, last="one")
    assert storage.read_file("v1/one") == b"first"
    assert everything_below(tmp_path) == ["v1", "v1/one"]


@pytest.mark.parametrize("url", ["no-such-protocol://bucket/x", "s4://x"])
def test_an_unknown_protocol_is_a_storage_error(url: str) -> None:
    with pytest.raises(DataDirError, match=url):
        Storage(url)


def test_checking_that_a_folder_is_writable_leaves_nothing(storage: Storage) -> None:
    storage.check_writable()
    assert storage.files("", "") == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_no_reason_for_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:  # fmt: skip
    def fsync(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    said = f"the disk of {tmp_path} is full ({os.strerror(number)}); make room on it"
    with pytest.raises(DiskFull, match=f"^{re.escape(said)}$"):
        Storage(str(tmp_path)).check_writable()
    with pytest.raises(DiskFull, match=f"a/b: {re.escape(said)}$"):
        Storage(str(tmp_path)).write_file("a/b", b"")
    found = folder_finding(Storage(str(tmp_path)), to_write=True, clock=lambda: 0.0)
    assert (found.level, found.text) == (Level.BROKEN, said)
    assert "RECSYS_DATA_DIR" not in found.advice


def test_a_file_in_the_place_of_the_folder_is_named_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "here").write_bytes(b"")
    with pytest.raises(DataDirError, match=r"here is a file, not a folder; set RECSYS_DATA_DIR"):
        Storage(str(tmp_path / "here")).files("archive", ".parquet")
