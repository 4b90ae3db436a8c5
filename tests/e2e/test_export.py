"""`recsys export`: the lists in a file are those in Redis, whatever interrupts it."""

from __future__ import annotations

import csv
import json
import stat
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from recsys.errors import InputFileError
from recsys.files.marks import with_formula
from recsys.operations import export_lists as module
from recsys.operations.export_lists import export_lists
from recsys.redis import Store, open_store
from recsys.runtime import fail_points
from recsys.runtime.progress import ProgressReporter
from recsys.settings import Settings
from tests.prepared import train_planted
from tests.services import Shop

pytestmark = pytest.mark.kafka
ODD = ["=1+1", "+4.9", "-5e3", "@cmd", 'quo"te', "com,ma;semi", "zwölf\u2028"]


@pytest.fixture
def store(shop: Shop, settings: Settings) -> Any:
    train_planted(shop)
    with open_store(settings) as opened:
        yield opened


def right(store: Store, users: list[str], n: int) -> dict[str, list[tuple[str, float]]]:
    popular = store.item_lists.popular()
    assert popular is not None
    lists = store.users.lists(users)
    return {
        user: [(item["item_id"], item["score"]) for item in (own or popular)["items"][:n]]
        for user, own in zip(users, lists, strict=True)
    }


def everybody(store: Store) -> list[str]:
    return sorted(user for batch in store.users.user_ids() for user in batch)


def in_jsonl(path: Path) -> dict[str, list[tuple[str, float]]]:
    found = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    return {one["user_id"]: [(item["item_id"], item["score"]) for item in one["items"]] for one in found}


def in_rows(rows: list[dict[str, Any]]) -> dict[str, list[tuple[str, float]]]:
    found: dict[str, list[tuple[str, float]]] = {}
    for row in rows:
        found.setdefault(row["user_id"], []).append((row["item_id"], float(row["score"])))
        assert int(float(row["place"])) == len(found[row["user_id"]])
    return found


def test_each_format_holds_the_lists_of_redis_and_spreadsheets_calculate_nothing(shop: Shop, store: Store) -> None:
    users = [*everybody(store)[:30], *ODD]
    (shop.folder / "users.txt").write_text("user_id\n" + "\r\n".join([*users, users[0]]) + "\n", newline="")
    for suffix in ("csv", "jsonl", "parquet"):
        said = shop.recsys("export", "--out", f"lists.{suffix}", "--users", "users.txt", "-n", "3").stdout
        assert f"{len(users)} users exported to lists.{suffix}: 30 with their own list, {len(ODD)} with" in said
        assert stat.S_IMODE((shop.folder / f"lists.{suffix}").stat().st_mode) == 0o600, "customers are nobody else's"
    expected = right(store, users, 3)
    assert in_jsonl(shop.folder / "lists.jsonl") == expected
    table = pq.read_table(shop.folder / "lists.parquet")
    assert in_rows(table.to_pylist()) == expected
    assert set(table["source"].to_pylist()) == {"personal", "popular"}
    with (shop.folder / "lists.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert not [row for row in rows if row["user_id"].startswith(("=", "@"))]
    assert in_rows([row | {"user_id": with_formula(row["user_id"])} for row in rows]) == expected
    assert {path.name for path in shop.folder.glob("lists*")} == {"lists.csv", "lists.jsonl", "lists.parquet"}


def test_all_users_are_exported_without_hidden_items_and_an_export_that_is_killed_goes_on(
    shop: Shop, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = everybody(store)
    hidden = right(store, users, 1)[users[0]][0][0]
    store.catalogue.hide_all([hidden])
    progress = ProgressReporter(console=Console(quiet=True))
    monkeypatch.setattr(module, "_USERS_PER_PART", 30)
    out = shop.folder / "lists.jsonl"
    reached = []

    def die(name: str) -> None:
        reached.append(name)
        if len(reached) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(fail_points, "reach", die)
        with pytest.raises(KeyboardInterrupt):
            export_lists(store, out, None, 5, progress)
    parts = shop.folder / "lists.jsonl.parts"
    written = {path.name: path.stat().st_mtime_ns for path in parts.iterdir() if path.name in ("000000", "000001")}
    assert len(written) == 2
    assert not out.exists()
    with pytest.raises(InputFileError, match="another -n, which was interrupted"):
        export_lists(store, out, None, 6, progress)
    with pytest.raises(InputFileError, match="another export writes"), module._folder_of(out):
        export_lists(store, out, None, 5, progress)
    reached.clear()
    monkeypatch.setattr(fail_points, "reach", reached.append)
    outcome = export_lists(store, out, None, 5, progress)
    assert len(reached) == -(-len(users) // 30) - 2, "what was written is not written again"
    assert outcome == (len(users), len(users))
    assert not parts.exists()
    found = in_jsonl(out)
    assert list(found) == users
    lists = store.users.lists(users)
    for user, one in zip(users, lists, strict=True):
        assert one is not None
        assert [item for item, _ in found[user]] == [
            item["item_id"] for item in one["items"] if item["item_id"] != hidden
        ][:5]


def test_what_cannot_be_exported_is_said_in_one_line(shop: Shop, settings: Settings) -> None:
    (shop.folder / "bad.txt").write_text("anna\n" + "x" * 257 + "\n")
    (shop.folder / "empty.txt").write_text("user_id\n")
    (shop.folder / "latin.txt").write_bytes(b"Zo\xeb\n")
    for arguments, words in (
        (["--out", "lists.xlsx"], "lists.xlsx: the name must end with .csv, .jsonl, .parquet"),
        (["--out", "lists.csv", "--users", ""], "--users: name a file"),
        (["--out", "lists.csv", "--users", "nowhere.txt"], "nowhere.txt: No such file"),
        (["--out", "lists.csv", "--users", "bad.txt"], "bad.txt, line 2:"),
        (["--out", "lists.csv", "--users", "empty.txt"], "empty.txt: holds no user ids"),
        (["--out", "lists.csv", "--users", "latin.txt"], "latin.txt: is not UTF-8"),
        (["--out", "lists.csv"], "no model has been published yet"),
    ):
        said = shop.recsys("export", *arguments, expect=1)
        assert words in " ".join(said.stderr.split())
        assert "Traceback" not in said.stderr
    train_planted(shop)
    with open_store(settings) as store:
        progress = ProgressReporter(console=Console(quiet=True))
        (shop.folder / "elsewhere").touch()
        (shop.folder / "link.csv").symlink_to(shop.folder / "elsewhere")
        for out in (shop.folder / "link.csv", shop.folder / "missing" / "lists.csv", Path("/proc/lists.csv")):
            with pytest.raises(InputFileError, match="cannot be written"):
                export_lists(store, out, None, 5, progress)
        damaged = shop.folder / "lists.csv.parts"
        damaged.mkdir()
        (damaged / "parts.json").write_text("[")
        with pytest.raises(InputFileError, match="is damaged; remove it"):
            export_lists(store, shop.folder / "lists.csv", None, 5, progress)
