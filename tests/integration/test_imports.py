"""Imports, in any order and repetition, count every purchase once; and each can be taken back."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from recsys.data.event import EventType
from recsys.errors import (
    DataDirError,
    InputFileError,
    KafkaUnavailable,
    LockLost,
    RecsysError,
    RedisUnavailable,
    RedisUnsuitable,
)
from recsys.files import event_file
from recsys.files.columns import Columns
from recsys.files.purchases import PurchaseFile
from recsys.operations.import_history import import_file
from recsys.operations.undo_import import imports
from recsys.runtime import fail_points
from recsys.runtime.clock import now
from recsys.runtime.progress import ProgressReporter
from recsys.settings import Settings
from tests.builders import make_event
from tests.offline import READING, OfflineShop, archive_stream, offline_shop, rows


@pytest.fixture
def shop(broker: str, redis_url: str, tmp_path: Path) -> Iterator[OfflineShop]:
    with offline_shop(broker, redis_url, tmp_path) as shop:
        yield shop


def fails_at(point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the fail point raise, once."""
    monkeypatch.setitem(fail_points._armed, point, fail_points._Armed("raise", 1))


FIRST = (
    "u,a,1,2026-01-01T10:00:00Z,",
    "u,a,1,2026-01-01T10:00:00Z,",
    "u,b,2,2026-01-02T10:00:00Z,",
    "v,a,1,2026-01-03T10:00:00Z,order-1",
)


def test_a_full_export_with_one_new_row_counts_that_row(shop: OfflineShop) -> None:
    assert shop.import_(rows(*FIRST)).new == 4
    outcome = shop.import_(rows(*FIRST, "u,c,1,2026-01-04T10:00:00Z,"))
    assert (outcome.new, outcome.known) == (1, 4)
    assert shop.histories() == {"u": {"a": 2, "b": 2, "c": 1}, "v": {"a": 1}}
    shop.ensure_verified()


def test_new_rows_among_known_ones_are_the_only_new_ones_in_every_batch(
    shop: OfflineShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_file, "_BATCH_LINES", 100)
    first = [f"u{n % 9},i{n % 50},1,2026-01-01T{n // 60:02d}:{n % 60:02d}:00Z," for n in range(600)] + list(
        FIRST[:1]
    ) * 300
    more = [line.replace("2026-01-01", "2026-02-01") for line in first[:250]]
    assert shop.import_(rows(*first)).new == 900
    outcome = shop.import_(rows(*more, *first))  # as an export that has the newest first
    assert (outcome.new, outcome.known) == (250, 900)
    shop.ensure_verified()


@pytest.mark.parametrize("again", [FIRST[::-1], FIRST[1:], FIRST[2:] + FIRST[:2], FIRST])
def test_rows_in_another_order_or_fewer_of_them_are_known(shop: OfflineShop, again: Sequence[str]) -> None:
    shop.import_(rows(*FIRST))
    outcome = shop.import_(rows(*again))
    assert (outcome.new, outcome.known) == (0, len(again))
    assert shop.histories() == {"u": {"a": 2, "b": 2}, "v": {"a": 1}}


def test_one_more_of_equal_rows_is_one_more_purchase(shop: OfflineShop) -> None:
    shop.import_(rows(*FIRST))
    assert shop.import_(rows(FIRST[0], FIRST[0], FIRST[0])).new == 1
    assert shop.histories()["u"]["a"] == 3
    shop.ensure_verified()


def test_parquet_after_csv_of_the_same_table_is_known(shop: OfflineShop) -> None:
    frame = pd.DataFrame(
        {
            "user_id": [17850.0, None, 13047.0],
            "item_id": ["a", "b", "c"],
            "quantity": [1.5, 2, 3],
            "timestamp": pd.to_datetime(["2026-01-01 10:00", "2026-01-01 11:00", "2026-01-01 12:00"]),
        }
    )
    assert shop.import_(frame.to_csv(index=False)).new == 2
    outcome = shop.import_(frame)
    assert (outcome.new, outcome.known, outcome.rows.no_user) == (0, 2, 1)


def test_a_mended_reject_is_the_only_new_row(shop: OfflineShop) -> None:
    broken = rows(*FIRST, "w,a,1,soon,")
    assert shop.import_(broken).rows.rejected == 1
    mended = (shop.folder / "rejects.csv").read_text().replace("soon", "2026-01-05T10:00:00Z", 1)
    assert (shop.import_(mended).new, shop.import_(broken.replace("soon", "2026-01-05T10:00:00Z")).new) == (1, 0)
    assert shop.histories()["w"] == {"a": 1}
    shop.ensure_verified()


def test_the_same_file_with_other_options_is_refused_until_the_import_is_taken_back(shop: OfflineShop) -> None:
    text = rows("u,a,1,2026-01-01 10:00,")
    first = shop.import_(text)
    with pytest.raises(InputFileError) as caught:
        shop.import_(text, timezone="Europe/Berlin")
    for word in ("timezone: default, now Europe/Berlin", f"recsys imports undo {first.id}"):
        assert word in str(caught.value)
    assert shop.undo(first.id) == (1, 1)
    assert shop.histories() == {}
    assert shop.import_(text, timezone="Europe/Berlin").new == 1
    assert [record.options for record in imports(shop.data_dir)] == [{"no_user": "guest", "timezone": "Europe/Berlin"}]
    shop.ensure_verified()


def test_purchases_that_only_look_known_can_be_counted(shop: OfflineShop) -> None:
    shop.import_(rows("u,a,1,2026-01-01,", "v,a,1,2026-01-01,"))
    other_branch = rows("u,a,1,2026-01-01,", "w,a,1,2026-01-01,")
    outcome = shop.import_(other_branch)
    assert (outcome.new, outcome.known, outcome.dates_only) == (1, 1, True)
    shop.undo(outcome.id)
    assert shop.import_(other_branch, as_new=True).new == 2
    assert shop.import_(other_branch, as_new=True).new == 0, "the same import again"
    assert shop.histories() == {"u": {"a": 2}, "v": {"a": 1}, "w": {"a": 1}}
    shop.ensure_verified()


def test_what_a_later_import_held_as_well_comes_back_with_it(shop: OfflineShop) -> None:
    monday, tuesday = rows(*FIRST), rows(*FIRST, "u,c,1,2026-01-04T10:00:00Z,")
    first, second = shop.import_(monday), shop.import_(tuesday)
    assert shop.undo(first.id) == (4, 2)
    assert shop.relying == [second.id]
    assert shop.histories() == {"u": {"c": 1}}
    assert shop.import_(tuesday).new == 4
    assert shop.histories() == {"u": {"a": 2, "b": 2, "c": 1}, "v": {"a": 1}}
    shop.ensure_verified()


def test_a_row_that_was_rejected_and_is_valid_later_is_new(shop: OfflineShop) -> None:
    text = rows("u,a,1,1790000000,", "u,b,1,1790200000,", "v,c,1,1790000000,")
    early = PurchaseFile(shop.written(text), Columns(), events=READING, now=datetime.fromtimestamp(1_790_000_000, UTC))
    outcome = import_file(
        early, shop.data_dir, shop.store.users, rejects=shop.folder / "r.csv", progress=ProgressReporter(), clock=now
    )
    assert (outcome.new, outcome.rows.rejected) == (2, 1)
    assert shop.import_(text).new == 1
    assert shop.histories() == {"u": {"a": 1, "b": 1}, "v": {"c": 1}}
    shop.ensure_verified()


def test_a_part_of_the_archive_that_was_lost_comes_back_and_counts_once(shop: OfflineShop) -> None:
    text = rows(*FIRST)
    shop.import_(text)
    (segment,) = shop.data_dir.archive.segments()
    shop.data_dir.archive.remove(segment)
    assert shop.import_(text).new == 4
    shop.ensure_verified()


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_part_that_was_lost_and_came_back_is_applied_in_its_place(
    shop: OfflineShop, lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_file, "_BATCH_LINES", 4)
    text = rows(*(f"u,i{n},1,2026-01-01T10:00:{n:02d}Z," for n in range(12)))
    shop.import_(text)
    shop.data_dir.archive.remove(shop.data_dir.archive.segments()[lost])
    assert shop.import_(text).new == 4
    before = shop.histories()
    assert len(before["u"]) == 12
    shop.undo(shop.import_(rows("u,wrong,1,2026-01-01T10:00:00Z,")).id)
    assert shop.histories() == before


def test_as_new_counts_no_event_id_twice(shop: OfflineShop) -> None:
    shop.import_(rows("u,a,1,2026-01-01,e1", "u,b,1,2026-01-01,"))
    outcome = shop.import_(rows("u,a,1,2026-01-01,e1", "u,b,1,2026-01-01,", "u,c,1,2026-01-01,"), as_new=True)
    assert (outcome.new, outcome.known) == (2, 1)
    assert shop.histories() == {"u": {"a": 1, "b": 2, "c": 1}}
    shop.ensure_verified()


def test_a_column_of_orders_taken_for_event_ids_is_noticed(shop: OfflineShop) -> None:
    outcome = shop.import_(rows("u,a,1,2026-01-01,o1", "u,b,1,2026-01-01,o1", "u,c,1,2026-01-01,o1"))
    assert (outcome.new, outcome.known, outcome.repeated_ids) == (1, 2, 2)


def test_a_forgotten_user_does_not_lose_what_came_since_when_another_import_is_taken_back(shop: OfflineShop) -> None:
    shop.import_(rows("u,x,1,2026-01-01T10:00:00Z,", "v,x,1,2026-01-01T10:00:00Z,"))
    shop.import_("user_id,item_id,timestamp,type\nu,,2026-01-02T10:00:00Z,forget\n")
    shop.publish([make_event("u", "a"), make_event("u", None, type_=EventType.FORGET), make_event("u", "b")])
    before = shop.histories()
    assert before == {"u": {"b": 1}, "v": {"x": 1}}
    wrong = shop.import_(rows("u,y,1,2026-02-01T10:00:00Z,", "v,y,1,2026-02-01T10:00:00Z,"))
    shop.undo(wrong.id)
    assert shop.histories() == before


def test_what_an_interrupted_import_has_archived_is_completed_by_another_file(
    shop: OfflineShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = rows(*(f"u{n % 3},i{n},1,2026-01-01T10:00:{n:02d}Z," for n in range(9)))
    fails_at("in-import", monkeypatch)
    with pytest.raises(fail_points.FailPointReached):
        shop.import_(text)
    assert shop.histories() == {}, "archived, and not yet in Redis"
    (interrupted,) = imports(shop.data_dir)
    assert not interrupted.finished_at
    other = shop.import_(rows(*(f"u0,i{n},1,2026-01-01T10:00:{n:02d}Z," for n in (6, 7, 8))))
    assert (other.new, other.known) == (2, 1)
    assert set(shop.histories()["u0"]) == {"i0", "i3", "i6", "i7", "i8"}, "all of the user's rows, not only those met"
    assert shop.import_(text).known == 9
    assert set(shop.histories()["u0"]) == {"i0", "i3", "i6", "i7", "i8"}
    shop.ensure_verified()


@pytest.mark.parametrize("order", ["newest first", "oldest first", "shuffled"])
def test_of_imported_event_ids_those_of_the_newest_events_are_remembered(shop: OfflineShop, order: str) -> None:
    lines = [f"u,i{n % 7},1,2026-01-01T{n // 60:02d}:{n % 60:02d}:00Z,e{n}" for n in range(400)]
    ordered = {"newest first": lines[::-1], "oldest first": lines, "shuffled": sorted(lines, key=hash)}[order]
    assert shop.import_(rows(*ordered)).new == 400
    copies = [
        make_event("u", f"i{n % 7}", timestamp=1_767_225_600_000 + n * 60_000, event_id=f"e{n}")
        for n in range(300, 400)
    ]
    shop.publish(copies)
    assert sum(shop.histories()["u"].values()) == 400
    shop.publish([make_event("u", "new", event_id="other")])
    assert sum(shop.histories()["u"].values()) == 401


def test_an_event_id_counts_once_in_a_file_and_once_in_topic_and_file(shop: OfflineShop) -> None:
    many = [f"u,i,1,2026-01-01T10:{n // 60:02d}:{n % 60:02d}Z,e{n}" for n in range(600)]
    outcome = shop.import_(rows(*many, *many[:50]))
    assert (outcome.new, outcome.known) == (600, 50)
    shop.ensure_verified()


def test_purchases_of_the_topic_are_known_by_their_ids_and_warned_of_without(shop: OfflineShop) -> None:
    shop.publish([make_event("u", "a"), make_event("u", "b", event_id="e1")])
    archive_stream(shop)
    outcome = shop.import_(
        rows("u,a,1,2026-11-22T12:00:00Z,", "u,b,1,2026-11-22T12:00:00Z,e1", "u,c,1,2026-11-22T12:00:00Z,")
    )
    assert (outcome.new, outcome.known, outcome.like_stream) == (2, 1, 1)
    assert shop.histories() == {"u": {"a": 2, "b": 1, "c": 1}}
    shop.undo(outcome.id)
    assert shop.histories() == {"u": {"a": 1, "b": 1}}


@pytest.mark.parametrize("point", ["undo-begun", "undo-archived", "undo-set-aside", ""])
def test_an_import_is_taken_back_as_if_it_had_never_been_made(
    shop: OfflineShop, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.publish([make_event("u", "a"), make_event("v", "b", quantity=2)])
    archive_stream(shop)
    shop.import_(rows("u,x,1,2026-01-01T10:00:00Z,", "w,x,3,2026-01-01T10:00:00Z,"))
    shop.publish([make_event("u", "c"), make_event("v", "a", event_id="e")])  # beyond the archive
    before = shop.histories()
    revision = shop.store.users.read(["u"])["u"].revision
    wrong = shop.import_(rows(*(f"{user},{item},1,2026-02-01T10:00:00Z," for user in "uvz" for item in "axyz")))
    assert shop.histories()["z"] == dict.fromkeys("axyz", 1)
    if point:
        fails_at(point, monkeypatch)
        with pytest.raises(fail_points.FailPointReached):
            shop.undo(wrong.id)
        with pytest.raises(InputFileError, match=f"recsys imports undo {wrong.id} was interrupted"):
            shop.import_(rows("q,a,1,2026-01-01,"))
    assert shop.undo(wrong.id) == (12, 3), "all of it, what an interrupted undo had removed as well"
    assert shop.histories() == before
    assert shop.store.users.read(["u"])["u"].revision > revision, "no list of an erased history looks like a new one"
    shop.publish([make_event("u", "c"), make_event("z", "a")])
    assert shop.histories() == before | {"u": before["u"] | {"c": 2}, "z": {"a": 1}}
    with pytest.raises(
        InputFileError, match=rf"{wrong.id}: this import was taken back already, on {now():%Y-%m-%d} at"
    ):
        shop.undo(wrong.id)
    with pytest.raises(InputFileError, match="there is no such import; recsys imports list shows them all"):
        shop.undo("0123456789abcdef")


def test_an_undo_that_an_earlier_version_began_is_completed(shop: OfflineShop, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = shop.import_(rows(*FIRST))
    fails_at("undo-begun", monkeypatch)
    with pytest.raises(fail_points.FailPointReached):
        shop.undo(wrong.id)
    (record,) = shop.data_dir.storage.files("archive/imports", ".undo")
    shop.data_dir.storage.write_file(record, b'{"users": ["u", "v"]}')
    assert shop.undo(wrong.id) == (4, 2)
    assert shop.histories() == {}


def test_an_import_that_was_taken_back_can_be_made_again_and_taken_back_again(shop: OfflineShop) -> None:
    for _ in range(2):
        outcome = shop.import_(rows(*FIRST))
        assert (outcome.new, shop.undo(outcome.id)) == (4, (4, 2))
        with pytest.raises(InputFileError, match="was taken back already"):
            shop.undo(outcome.id)


@pytest.mark.parametrize("kind", [RedisUnavailable, RedisUnsuitable, DataDirError, LockLost])
def test_an_error_midway_says_what_to_do(
    shop: OfflineShop, kind: type[RecsysError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise kind("it went away")

    text = rows(*FIRST)
    with monkeypatch.context() as patched:
        patched.setattr(type(shop.store.users), "apply_without_reading", fails)
        with pytest.raises(kind, match="it went away; part of the file may be imported: run the same command again"):
            shop.import_(text)
    outcome = shop.import_(text)
    assert (outcome.new, outcome.known) == (0, 4)
    shop.ensure_verified()
    with monkeypatch.context() as patched:
        patched.setattr(type(shop.store.users), "set_aside", fails)
        with pytest.raises(kind, match=f"it went away; the import .* run recsys imports undo {outcome.id} again"):
            shop.undo(outcome.id)
    assert shop.undo(outcome.id) == (4, 2)


def test_only_rows_that_another_import_has_brought_can_be_others_that_look_alike(shop: OfflineShop) -> None:
    twice = shop.import_(rows("u,a,1,2026-01-01,e1", "u,b,1,2026-01-01,e1", "u,b,1,2026-01-01,"))
    assert (twice.new, twice.known, twice.repeated_ids, twice.alike) == (2, 1, 1, 0)
    other = shop.import_(rows("u,a,1,2026-01-01,e1", "u,b,1,2026-01-01,", "u,c,1,2026-01-01,"))
    assert (other.new, other.known, other.alike) == (1, 2, 1)


def test_nothing_is_taken_back_while_kafka_is_away(shop: OfflineShop) -> None:
    outcome = shop.import_(rows(*FIRST))
    before = shop.histories()
    shop.settings = Settings.model_validate(
        shop.settings.model_dump() | {"kafka": {"bootstrap_servers": "127.0.0.1:1", "timeout_s": 0.2}}
    )
    with pytest.raises(KafkaUnavailable):
        shop.undo(outcome.id)
    assert (shop.histories(), shop.data_dir.imports.undoing()) == (before, [])


def exports(folder: Path, *contents: str) -> list[Path]:
    """Write files of purchases: part-0.csv and so on."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"part-{n}.csv" for n in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_text(content)
    return paths


def test_equal_rows_of_several_files_are_as_many_purchases_as_in_one(shop: OfflineShop) -> None:
    exports(shop.folder / "x", rows(FIRST[0], FIRST[2], "u,n,1,soon,"), rows(FIRST[0], FIRST[1], FIRST[3]))
    outcome = shop.import_files(f"{shop.folder}/x/part-*.csv")
    assert (outcome.rows.read, outcome.new, outcome.known, outcome.rows.rejected) == (6, 5, 0, 1)
    assert shop.histories() == {"u": {"a": 3, "b": 2}, "v": {"a": 1}}
    assert shop.import_(rows(*FIRST)).new == 0
    shop.ensure_verified()
    assert shop.undo(outcome.id) == (5, 2)
    assert shop.histories() == {}


def test_a_file_that_comes_again_among_new_ones_renamed_or_packed_counts_once(shop: OfflineShop) -> None:
    first, second, third = exports(
        shop.folder / "x", rows(*FIRST), rows("u,c,1,2026-01-04T10:00:00Z,"), rows("v,d,1,2026-01-05T10:00:00Z,e5")
    )
    assert shop.import_files(first).new == 4
    assert shop.import_files(first, second).new == 1
    outcome = shop.import_files(f"{shop.folder}/x/*.csv")
    assert (outcome.new, outcome.known) == (1, 5)
    before = shop.histories()
    packed = first.with_name("zz.csv.gz")
    packed.write_bytes(gzip.compress(first.read_bytes()))
    first.unlink()
    again = shop.import_files(third, packed, second)
    assert (again.id, again.new, again.known) == (outcome.id, 0, 6), (
        "the same import: the same content in another order"
    )
    assert shop.histories() == before
    assert len(imports(shop.data_dir)) == 3
    shop.ensure_verified()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_an_interrupted_import_of_several_files_is_completed_in_any_order(
    shop: OfflineShop, order: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_file, "_BATCH_LINES", 4)
    parts = [[f"u{n % 3},i{part}-{n},1,2026-01-01T10:00:{n:02d}Z," for n in range(6)] for part in range(3)]
    paths = exports(shop.folder / "x", *(rows(*part, *FIRST[:1]) for part in parts))
    monkeypatch.setitem(fail_points._armed, "in-import", fail_points._Armed("raise", 3))
    with pytest.raises(fail_points.FailPointReached):
        shop.import_files(*paths)
    outcome = shop.import_files(*(paths[place] for place in order))
    assert (outcome.rows.read, outcome.new + outcome.known) == (21, 21)
    assert len(imports(shop.data_dir)) == 1
    histories = shop.histories()
    assert sum(len(history) for history in histories.values()) == 19
    assert histories["u"] == {"a": 3}
    shop.ensure_verified()
    assert shop.import_files(*paths).new == 0
    assert shop.histories() == histories


def test_a_file_that_breaks_off_leaves_nothing_of_the_others(shop: OfflineShop) -> None:
    good, bad = exports(shop.folder / "x", rows(*FIRST), "")
    text = rows(*(f"w{n},a,1,2026-01-01T10:00:00Z,e{n * n}" for n in range(20_000))).encode()
    bad.write_bytes(gzip.compress(text)[:-100])
    with pytest.raises(InputFileError, match=r"part-1\.csv: cannot be read: the gzip data ends too early"):
        shop.import_files(good, bad)
    assert (shop.histories(), imports(shop.data_dir), shop.data_dir.archive.segments()) == ({}, [], [])
    bad.write_bytes(gzip.compress(text))
    assert shop.import_files(good, bad).new == 20_004
    shop.ensure_verified()


def test_the_same_purchases_in_every_form_of_file_count_once(shop: OfflineShop) -> None:
    text = rows(*FIRST)
    objects = pd.read_csv(io.StringIO(text)).to_json(orient="records", lines=True)
    folder = shop.folder / "x"
    folder.mkdir()
    (folder / "a.jsonl").write_text(objects)
    (folder / "a.csv.zst").write_bytes(pa.compress(text.encode(), "zstd", asbytes=True))
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("a.csv", text)
    frame = pd.read_csv(io.StringIO(text))
    frame["day"] = frame["timestamp"].str[:10]
    frame.to_parquet(folder / "hive", partition_cols=["day"])
    assert shop.import_files(folder / "a.jsonl").new == 4
    first = shop.histories()
    assert first == {"u": {"a": 2, "b": 2}, "v": {"a": 1}}
    for name in ("a.csv.zst", "a.zip", "hive"):
        outcome = shop.import_files(folder / name)
        assert (outcome.new, outcome.known) == (0, 4), name
    assert shop.histories() == first
    shop.ensure_verified()


def test_a_mended_reject_of_several_files_is_the_only_new_row(shop: OfflineShop) -> None:
    folder = shop.folder / "x"
    folder.mkdir()
    for name, lines in (("a", [{"item_id": "a"}, {"item_id": "b", "timestamp": "soon"}]), ("b", [{"item_id": "c"}])):
        objects = ({"user_id": 7, "timestamp": "2026-01-01T10:00:00Z"} | line for line in lines)
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in objects))
    outcome = shop.import_files(folder / "a.jsonl", folder / "b.jsonl")
    assert (outcome.new, outcome.rows.rejected) == (2, 1)
    mended = (shop.folder / "rejects.csv").read_text("utf-8-sig").replace("soon", "2026-01-05T10:00:00Z", 1)
    assert shop.import_(mended).new == 1
    assert shop.histories() == {"7": {"a": 1, "b": 1, "c": 1}}
    shop.ensure_verified()


row = st.tuples(
    st.sampled_from("uvw"), st.sampled_from("ab"), st.sampled_from([1, 2.5]), st.integers(1, 3), st.booleans()
)
files = st.lists(st.lists(row, min_size=1, max_size=8), min_size=1, max_size=4)


@given(files, st.data())
@hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_in_any_order_and_repetition_of_imports_histories_are_their_union(
    broker: str,
    redis_url: str,
    tmp_path_factory: pytest.TempPathFactory,
    contents: list[list[Any]],
    data: st.DataObject,
) -> None:
    order = data.draw(st.lists(st.sampled_from(range(len(contents))), min_size=1, max_size=6))
    union: Counter[Any] = Counter()
    with offline_shop(broker, redis_url, tmp_path_factory.mktemp("shop")) as shop:
        for place in order:
            lines = [
                f"{user},{item},{quantity},2026-01-0{day},{f'{item}-{quantity}-{day}' if has_id else ''}"
                for user, item, quantity, day, has_id in contents[place]
            ]
            shop.import_(rows(*lines))
            union |= Counter(contents[place])
        expected: dict[str, dict[str, float]] = {}
        for (user, item, quantity, _, has_id), count in union.items():
            history = expected.setdefault(user, {})
            history[item] = history.get(item, 0) + quantity * (1 if has_id else count)
        assert shop.histories() == expected
        shop.ensure_verified()
