"""Files and folders that are made are their owner's alone, and nothing that lies in their way is followed."""

from __future__ import annotations

import csv
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from recsys.errors import DataDirError, InputFileError, SettingsError
from recsys.files.items import ItemColumns, read_items
from recsys.kafka.clients import open_admin, open_producer, open_reader
from recsys.redis.credentials import bare_url
from recsys.runtime.private_files import create_file, ensure_own_folder, make_folder
from recsys.settings import KafkaSettings, RedisSettings, load_settings
from recsys.settings.regular_files import open_regular
from recsys.settings.secret_files import read_secret_file
from recsys.storage.files import Storage
from recsys.storage.tuned import study_folder
from tests.purchase_files import csv_file, opened, rejected_values, written

KINDS = ["pipe", "socket", "device", "folder"]


@contextmanager
def no_file(folder: Path, kind: str) -> Iterator[Path]:
    """Lay what is no file; whoever opens the pipe to write, and not to read, finds a reader."""
    path = Path("/dev/zero") if kind == "device" else folder / kind
    with ExitStack() as stack:
        if kind == "pipe":
            os.mkfifo(path)
            stack.callback(os.close, os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        elif kind == "socket":
            stack.enter_context(socket.socket(socket.AF_UNIX)).bind(str(path))
        elif kind == "folder":
            path.mkdir()
        yield path


@pytest.fixture(autouse=True)
def _generous_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_what_is_written_under_data_dir_is_its_owners_alone(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "shop" / "data"))
    storage.check_writable()
    storage.write_file("archive/purchases/round/segment.parquet", b"x")
    storage.write_folder("models/v", {"manifest.json": b"x", "holdout/manifest.json": b"y"}, last="manifest.json")
    for path in [tmp_path / "shop", *(tmp_path / "shop").rglob("*")]:
        assert mode(path) == (0o700 if path.is_dir() else 0o600), path


def test_the_set_group_id_bit_says_that_the_group_may_read(tmp_path: Path) -> None:
    tmp_path.chmod(0o2750)
    storage = Storage(str(tmp_path))
    storage.write_file("archive/a.parquet", b"x")
    storage.write_folder("models/v", {"holdout/a": b"x", "manifest.json": b"x"}, last="manifest.json")
    for path in tmp_path.rglob("*"):
        assert mode(path) == (0o2750 if path.is_dir() else 0o640), path


@pytest.mark.parametrize("kind", ["symbolic link", "hard link"])
def test_a_link_in_the_way_of_a_write_is_replaced_and_what_it_leads_to_stays(tmp_path: Path, kind: str) -> None:
    victim, storage = tmp_path / "victim", Storage(str(tmp_path / "data"))
    victim.write_text("precious")
    storage.write_file("hidden.json", b"1")
    for planted in (tmp_path / "data" / "hidden.json.tmp", tmp_path / "data" / "hidden.json"):
        planted.unlink(missing_ok=True)
        planted.symlink_to(victim) if kind == "symbolic link" else planted.hardlink_to(victim)
        storage.write_file("hidden.json", b"2")
        assert storage.read_file("hidden.json") == b"2"
        assert victim.read_text() == "precious"
        assert not (tmp_path / "data" / "hidden.json").is_symlink()


def test_a_link_in_the_way_of_a_folder_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "precious").write_text("1")
    storage = Storage(str(tmp_path / "data"))
    make_folder(tmp_path / "data" / "models")
    (tmp_path / "data" / "models" / "v.tmp").symlink_to(tmp_path / "victim")
    storage.write_folder("models/v", {"manifest.json": b"x"}, last="manifest.json")
    assert [path.name for path in (tmp_path / "victim").iterdir()] == ["precious"]
    (tmp_path / "data" / "left.tmp").symlink_to(tmp_path / "victim")
    storage.remove_temporaries("")
    assert not (tmp_path / "data" / "left.tmp").is_symlink()
    assert (tmp_path / "victim" / "precious").exists()


def test_a_file_that_an_operator_names_replaces_no_link(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "report.html"
    victim.write_text("precious")
    path.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        create_file(path)
    path.unlink()
    path.hardlink_to(victim)
    os.close(create_file(path))
    assert (victim.read_text(), path.read_text(), mode(path)) == ("precious", "", 0o600)
    os.close(create_file(Path("/dev/null")))
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_rejects_are_private_and_refuse_a_link(tmp_path: Path) -> None:
    file, path, victim = (
        csv_file(tmp_path, "user_id,item_id,timestamp\nu,a,soon\n"),
        tmp_path / "r",
        tmp_path / "victim",
    )
    victim.write_text("precious")
    path.symlink_to(victim)
    with pytest.raises(InputFileError, match=r"cannot write rejected rows: this is a symbolic link.*--rejects"):
        written(file, path)
    assert victim.read_text() == "precious"
    path.unlink()
    written(file, path)
    assert mode(path) == 0o600


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_neither_written_to_nor_removed(tmp_path: Path, kind: str) -> None:
    purchases = csv_file(tmp_path, "user_id,item_id,timestamp\nu,a,soon\n")
    with no_file(tmp_path, kind) as path:
        before = path.lstat()
        with pytest.raises(OSError, match=f"this is a {kind}, not a file"):
            create_file(path)
        with pytest.raises(InputFileError) as told:
            written(purchases, path)
        assert str(told.value) == (
            f"{path}: cannot write rejected rows: this is a {kind}, not a file; name another file with --rejects"
        )
        after = path.lstat()
        assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (before.st_ino, before.st_mode, before.st_mtime_ns)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_not_read_either(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = f"this is a {kind}, not a file"
    end = ", and it holds no Parquet file" if kind == "folder" else "$"
    with no_file(tmp_path, kind) as path:
        with pytest.raises(OSError, match=refused):
            open_regular(path)
        with pytest.raises(InputFileError, match=f"^{path}: {refused}{end}"):
            opened(path)
        with pytest.raises(InputFileError, match=f"^{path}: {refused}{end}"):
            read_items(path, ItemColumns())
        with pytest.raises(SettingsError, match=refused):
            read_secret_file(str(path), "RECSYS_REDIS__URL_FILE")
        monkeypatch.setenv("RECSYS_CONFIG", str(path))
        with pytest.raises(SettingsError, match=f"^RECSYS_CONFIG: cannot read {path}: {refused}$"):
            load_settings()


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_no_library_is_left_to_wait_for_what_should_be_a_file_of_tls(tmp_path: Path, kind: str) -> None:
    refused = f"this is a {kind}, not a file"
    with no_file(tmp_path, kind) as path:
        for option in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
            url = SecretStr(f"rediss://127.0.0.1:1/0?{option}={path}")
            with pytest.raises(ValueError, match=f"{option} names {path}: {refused}"):
                bare_url(RedisSettings(url=url))
        for name in ("ssl.ca.location", "ssl.certificate.location", "ssl.key.location"):
            settings = KafkaSettings(librdkafka={"security.protocol": "ssl", name: str(path)})
            for open_client in (open_producer, open_admin, lambda settings: open_reader(settings, "test")):
                with pytest.raises(SettingsError, match=f"{name} names {path}.*{refused}"):
                    open_client(settings)


@pytest.mark.parametrize("kind", KINDS)
def test_a_segment_that_is_no_file_holds_nobody_up(tmp_path: Path, kind: str) -> None:
    storage = Storage(str(tmp_path))
    with no_file(tmp_path, kind) as path:
        if kind == "device":
            (tmp_path / kind).symlink_to(path)
        for read in (storage.read_file, lambda name: storage.reading(name).__enter__()):
            with pytest.raises(DataDirError, match=f"this is a {kind}, not a file"):
                read(kind)


def test_a_link_to_a_file_is_read_as_mounted_secrets_are(tmp_path: Path) -> None:
    (tmp_path / "..data").write_text("secret")
    (tmp_path / "password").symlink_to("..data")
    with open_regular(tmp_path / "password") as file:
        assert file.read() == b"secret"


FORMULAS = ["=cmd|' /C calc'!A0", "+1+2", "-2+3", "@SUM(1)", " =1", "\uff1d1", "'=1", "''@x", "-", "="]
PARTS = {
    "a;=1": "a;'=1", "a;=1;b;@x": "a;'=1;b;'@x",
    "a\t=1": "a\t'=1", "a, =1": "a,' =1", "a|+x": "a|'+x", "a\n=1": "a\n'=1",
    "a;'=1": "a;''=1", "=1;=2": "'=1;'=2", 'a;"=1"': "a;'\"=1\"", "a;\t=1": "a;\t'=1", ";-x": ";'-x",
    "\t=1": "'\t'=1", "\n=1": "'\n'=1", "\ta": "'\ta",
}  # fmt: skip
"""Values that are formulas only where a spreadsheet splits them, and what stands in a file of rejects."""
NO_FORMULAS = ["a;-1", "1;2", "a; b", "-1", "+2.5", "-1.234,5", "-1e3", "'tis", "a=b", "1-2", "", "'"]


def test_no_cell_of_rejects_is_a_formula_and_an_import_reads_them_as_they_were(tmp_path: Path) -> None:
    header, cells = ["user_id", "item_id", "timestamp", "=title"], [*FORMULAS, *PARTS, *NO_FORMULAS]
    with (tmp_path / "purchases.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *(["u", "a", "soon", cell] for cell in cells)])
    given = rejected_values(opened(tmp_path / "purchases.csv"))
    assert [row[3] for row in given] == cells
    written(opened(tmp_path / "purchases.csv"), tmp_path / "rejects.csv")
    with (tmp_path / "rejects.csv").open(newline="") as file:
        first, *rows = csv.reader(file)
    assert first == ["user_id", "item_id", "timestamp", "'=title", "why"]
    assert [row[3] for row in rows] == [*(f"'{cell}" for cell in FORMULAS), *PARTS.values(), *NO_FORMULAS]
    assert (tmp_path / "rejects.csv").read_text().count('"u","a","soon","') == len(cells), "all is in quotes"
    again = opened(tmp_path / "rejects.csv")
    assert again.table.names == [*header, "why"]
    assert [row[:4] for row in rejected_values(again)] == given


def test_the_folder_of_a_tuning_among_temporary_files_is_nobody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    storage = Storage("memory://shop")
    folder = study_folder(storage)
    assert folder.parent == tmp_path
    assert mode(folder) == 0o700
    assert study_folder(storage) == folder, "an interrupted tuning is continued"
    folder.chmod(0o777)
    with pytest.raises(DataDirError, match=r"a folder of this user's own.*remove it"):
        study_folder(storage)
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataDirError, match="a folder of this user's own"):
        study_folder(storage)


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_own_folder(tmp_path / "own")
    own = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    with pytest.raises(PermissionError, match="this user's own"):
        ensure_own_folder(tmp_path / "own")
