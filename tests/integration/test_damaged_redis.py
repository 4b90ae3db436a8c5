"""Whatever somebody has written into Redis: one user's damage is that user's, and a shared key is named."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgpack
import orjson
import pytest

from recsys.errors import DamagedKey, InvalidModel, LockHeld, WritesLost
from recsys.lists.live_model import LiveModel
from recsys.operations.make_again import make_again
from recsys.redis import ModelStamp, PublishOutcome, Store, UserState
from recsys.redis.model_pointer import CENTURY_S
from recsys.redis.rebuild_state import RebuildStage
from recsys.runtime.clock import now
from recsys.runtime.progress import ProgressReporter
from recsys.storage.data_dir import DataDir
from recsys.storage.files import Storage
from tests.builders import make_event, make_model
from tests.integration.test_aside import made_again, shop
from tests.integration.test_users import MODEL, NOW, a_list, event, placed
from tests.lists import write_lists
from tests.offline import OfflineShop
from tests.unit.test_models import save

__all__ = ["shop"]  # a fixture
Damage = Callable[[Any, Any], object]
OTHER_KINDS: dict[str, Callable[[Any, str], object]] = {
    "a list": lambda client, key: client.rpush(key, "x"),
    "a hash": lambda client, key: client.hset(key, "x", "y"),
    "a string": lambda client, key: client.set(key, "\xff"),
}


def of_another_kind(kind: str, name: str) -> Damage:
    def damage(client: Any, keys: Any) -> None:
        key = getattr(keys, name)("u")
        client.delete(key)
        OTHER_KINDS[kind](client, key)

    return damage


def applied_field(field: str, value: str) -> Damage:
    return lambda client, keys: client.hset(keys.applied("u"), field, value)


def history_field(item: str | bytes, value: str | bytes) -> Damage:
    return lambda client, keys: client.hset(keys.history("u"), item, value)


def seen_value(value: bytes) -> Damage:
    return lambda client, keys: client.set(keys.seen("u"), value)


NO_NUMBERS = (
    "abc", "-1", "nan", "inf", "1e300", "1e3", "0x10", " 5", "1.5", "1234567890123456", "99999999999999999999", "",
)  # fmt: skip
DAMAGES: dict[str, Damage] = {
    **{f"{name} is {kind}": of_another_kind(kind, name) for name in ("history", "applied") for kind in OTHER_KINDS},
    **{f"seen is {kind}": of_another_kind(kind, "seen") for kind in OTHER_KINDS},
    **{
        f"{field}={value}": applied_field(field, value)
        for field in ("revision", "aside")
        for value in NO_NUMBERS
    },
    "holds=abc": applied_field("holds", "abc"),
    **{f"a={value}": history_field("a", value) for value in (
        "", "x|1", "1|x", "1", "|", "nan|1", "inf|1", "1|1|x", "1|1|1|x", "1|1|1|1|1", "1|999999999999", "1|5|1|6",
        "9999999999999999|1", "1|-1", "1|1\n", "\xff",
    )},
    "an item with a line break": history_field("a\nb", "1|1"),
    "an item that is no text": history_field(b"\xff", "1|1"),
    "an item without a name": history_field("", "1|1"),
    **{f"seen {name}": seen_value(value) for name, value in {
        "garbage": b"\xc1\xff",
        "a number": msgpack.packb(5),
        "an array": msgpack.packb([1, 2, 3]),
        "numbers by source": msgpack.packb({"s": 5}),
        "texts for offsets": msgpack.packb({"t:0": ["x", "y"] * 4}),
        "deep": b"\x91" * 1000 + b"\x01",
        "nothing": b"",
    }.items()},
}  # fmt: skip


def keys_of(store: Store) -> Any:
    return store.users._keys


def damage(store: Store, how: Damage) -> None:
    how(store.connection.client, keys_of(store))


def two_users(store: Store) -> dict[str, UserState]:
    return store.users.apply({user: [placed(0, event("a")), placed(1, event("b"))] for user in "uv"})


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_user_is_set_aside_and_nobody_else_is_any_the_worse(store: Store, name: str) -> None:
    before = two_users(store)
    damage(store, DAMAGES[name])
    states = store.users.apply({user: [placed(2, event("a"))] for user in "uv"})
    assert states["v"].history.entries["a"].units == 2_000_000
    assert (states["v"].aside, states["v"].revision) == (False, before["v"].revision + 1)
    assert states["u"].aside
    assert not states["u"].history.entries
    assert store.aside.users() == ["u"]
    read = store.users.read("uv")
    assert (read["u"].aside, read["v"].aside) == (True, False)
    written = write_lists(
        store.users, {user: states[user].revision for user in "uv"}, [a_list("x"), a_list("x")], MODEL, at=NOW
    )
    assert written == [PublishOutcome.REVISION_MOVED, PublishOutcome.PUBLISHED]
    store.aside.begin(["u"])
    seen = store.aside.states(["u"])
    store.aside.apply({"u": [placed(offset, event("ab a"[offset].strip() or "a")) for offset in (0, 1)]})
    store.aside.adopt(seen)
    again = store.users.apply({"u": [placed(3, event("c"))]})["u"]
    assert (again.aside, sorted(again.history.entries)) == (False, ["a", "b", "c"])
    assert again.revision > before["u"].revision


@pytest.mark.parametrize("name", DAMAGES)
def test_reading_survives_every_damage(store: Store, name: str) -> None:
    two_users(store)
    damage(store, DAMAGES[name])
    read = store.users.read("uv")
    assert not read["v"].aside
    assert sorted(read["v"].history.entries) == ["a", "b"]
    store.users.set_aside_damaged(read)
    assert store.users.read(["v"])["v"].aside is False


@pytest.mark.parametrize("name", ["revision=abc", "history is a list", "applied is a string", "a=x|1", "seen garbage"])
def test_a_damaged_user_is_made_again_from_archive_and_topic(shop: OfflineShop, name: str) -> None:
    whole = shop.histories()
    damage(shop.store, DAMAGES[name])
    shop.publish([make_event("u", "a"), make_event("v", "d")])
    assert shop.store.aside.users() == ["u"]
    assert made_again(shop) == 1
    assert shop.histories() == {"u": whole["u"] | {"a": 2}, "v": whole["v"] | {"d": 1}}


def test_only_the_history_that_a_list_needs_tells_some_damages_and_then_the_user_is_set_aside(store: Store) -> None:
    """A field that no event touches is seen when the list is made."""
    two_users(store)
    damage(store, history_field("b", "1|1|1|1|1"))
    assert store.users.apply_without_reading({"u": [placed(2, event("a"))]}) == (1, 0)
    store.users.set_aside_damaged(store.users.read("uv"))
    assert store.aside.users() == ["u"]


@pytest.mark.parametrize("value", [b"[]", b"{", b"{}", b'{"model": "v1", "items": [{}]}', b"\xff"])
def test_a_damaged_list_is_none_and_is_written_again(
    store: Store, caplog: pytest.LogCaptureFixture, value: bytes
) -> None:
    states = two_users(store)
    revisions = {user: state.revision for user, state in states.items()}
    write_lists(store.users, revisions, [a_list("x"), a_list("y")], MODEL, at=NOW)
    client, key = store.connection.client, keys_of(store).recs("u")
    client.set(key, value)
    own, other = store.users.lists(["u", "v"])
    assert own is None
    assert other is not None
    assert f"{key} is damaged" in caplog.text
    client.delete(key)
    client.rpush(key, "x")
    assert store.users.lists(["u", "v"]) == [None, other]
    assert store.users.read(["u"])["u"].listed_sequence == -1, "it is not taken for a list"
    write_lists(store.users, {"u": revisions["u"]}, [a_list("x")], MODEL, at=NOW)
    assert store.users.lists(["u"]) != [None]


@pytest.mark.parametrize("field", ["listed", "sequence"])
@pytest.mark.parametrize("value", NO_NUMBERS)
def test_what_is_known_of_a_list_may_be_nonsense_and_the_next_one_writes_it_again(
    store: Store, field: str, value: str
) -> None:
    revisions = {user: state.revision for user, state in two_users(store).items()}
    write_lists(store.users, revisions, [a_list("x"), a_list("y")], MODEL, at=NOW)
    damage(store, applied_field(field, value))
    read = store.users.read(["u"])["u"]
    assert (read.aside, read.listed_sequence) == (False, -1)
    applied = store.users.apply({"u": [placed(2, event("a"))]})["u"]
    assert (applied.aside, applied.listed_sequence, applied.revision) == (False, -1, revisions["u"] + 1)
    assert write_lists(store.users, {"u": applied.revision}, [a_list("z")], MODEL, at=NOW) == [PublishOutcome.PUBLISHED]
    assert store.users.read(["u"])["u"].listed_sequence == MODEL.sequence


def test_a_sequence_that_is_no_time_keeps_no_list_out(store: Store) -> None:
    state = two_users(store)["u"]
    write_lists(store.users, {"u": state.revision}, [a_list("x")], MODEL, at=NOW)
    damage(store, applied_field("sequence", str(2**53 - 1)))
    assert write_lists(store.users, {"u": state.revision}, [a_list("y")], MODEL, at=NOW) == [PublishOutcome.PUBLISHED]
    ahead = ModelStamp("later", MODEL.sequence + 1)
    assert write_lists(store.users, {"u": state.revision}, [a_list("z")], ahead, at=NOW) == [PublishOutcome.PUBLISHED]
    assert write_lists(store.users, {"u": state.revision}, [a_list("y")], MODEL, at=NOW) == [PublishOutcome.SUPERSEDED]


# The pointer to the model ---------------------------------------------------------------------------------------


@contextmanager
def listening() -> Iterator[tuple[int, list[object]]]:
    """Yield the port of a server, and who has connected to it."""
    met: list[object] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def accept() -> None:
            while True:
                try:
                    connection, address = server.accept()
                except OSError:
                    return
                met.append(address)
                connection.close()

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1], met
        server.shutdown(socket.SHUT_RDWR)


def pointer(**changes: object) -> bytes:
    good = {
        "version": "20261122T101500Z-1a2b3c", "sequence": 1_700_000_000, "uri": "/models/x",
        "manifest_sha256": "a" * 64, "published_at": "2026-11-22T10:15:00.000Z",
    }  # fmt: skip
    return orjson.dumps(good | changes)


def test_nothing_follows_the_address_in_the_pointer(store: Store, tmp_path: Path) -> None:
    models = DataDir.of(Storage(str(tmp_path / "data"))).models
    version, _, digest = save(Storage(str(tmp_path / "data")), make_model())
    _, elsewhere, theirs = save(Storage(str(tmp_path / "elsewhere")), make_model(seed=9))
    with listening() as (port, met):
        for uri in (f"ftp://someone:secret@127.0.0.1:{port}/x", f"http://127.0.0.1:{port}/x", elsewhere, "", "\x00"):
            store.connection.client.set(keys_of(store).model, pointer(version=version, manifest_sha256=digest, uri=uri))
            with LiveModel(store, models, poll_s=60).followed() as live:
                assert live.current is not None
                assert live.current.model.version == version
        store.connection.client.set(
            keys_of(store).model, pointer(version=Path(elsewhere).name, manifest_sha256=theirs, uri=elsewhere)
        )
        with LiveModel(store, models, poll_s=60).followed() as live:
            assert live.current is None, "a model outside data_dir is none"
        assert met == []


@pytest.mark.parametrize(
    "value",
    [
        pointer(version="../../etc"),
        pointer(version="a/b"),
        pointer(version=".."),
        pointer(version=""),
        pointer(version="x" * 65),
        pointer(version="v\x1b[31m"),
        pointer(version=5),
        pointer(sequence=2**53 - 1),
        pointer(sequence=2**53),
        pointer(sequence=-1),
        pointer(sequence="1"),
        pointer(sequence=1.5),
        pointer(manifest_sha256="../x"),
        pointer(manifest_sha256=""),
        pointer(published_at="2026-11-22T10:15:00.000Z" + " " * 100),
        pointer(uri="x" * 20_000),
        b"[" * 10_000,
    ],
)
def test_a_pointer_that_cannot_be_is_damaged_and_the_next_model_takes_its_place(store: Store, value: bytes) -> None:
    store.connection.client.set(keys_of(store).model, value)
    with pytest.raises(InvalidModel, match="model is damaged"):
        store.pointer.read()
    assert store.pointer.read_unless_damaged() is None
    at = now()
    moved = store.pointer.move("v1", "/models/v1", "aa", seen=store.pointer.value(), at=at)
    assert moved is not None
    assert moved.sequence == int(at.timestamp())
    assert store.pointer.read() == moved


def test_a_pointer_of_another_kind_is_damaged_and_the_next_model_takes_its_place(store: Store) -> None:
    store.connection.client.rpush(keys_of(store).model, "x")
    with pytest.raises(InvalidModel, match="model is damaged: it is no string"):
        store.pointer.read()
    assert store.pointer.move("v1", "/models/v1", "aa", seen=b"", at=now()) is None
    assert store.pointer.move("v1", "/models/v1", "aa", seen=store.pointer.value(), at=now()) is not None


def test_the_largest_sequence_that_is_believed_does_not_keep_the_next_model_out(store: Store) -> None:
    store.connection.client.set(keys_of(store).model, pointer(sequence=int(now().timestamp()) + CENTURY_S - 60))
    seen = store.pointer.read()
    assert seen is not None
    moved = store.pointer.move("v1", "/models/v1", "aa", seen=store.pointer.value(), at=now())
    assert moved is not None
    assert moved.sequence == seen.sequence + 1
    assert store.pointer.read() == moved


# Keys that all share --------------------------------------------------------------------------------------------

SHARED: dict[str, tuple[Callable[[Any], str], Callable[[Store], object]]] = {
    "hidden": (lambda keys: keys.hidden, lambda store: store.catalogue.hidden()),
    "unavailable": (lambda keys: keys.unavailable, lambda store: store.catalogue.hidden()),
    "titles": (lambda keys: keys.titles, lambda store: store.catalogue.titles(["a"])),
    "catalogue": (lambda keys: keys.catalogue, lambda store: store.catalogue.stamp()),
    "popular": (lambda keys: keys.popular_in(None), lambda store: store.item_lists.popular()),
    "similar": (lambda keys: keys.similar("a"), lambda store: store.item_lists.similar("a")),
    "requests": (lambda keys: keys.trainer_requests, lambda store: store.trainer.requests()),
    "rounds": (lambda keys: keys.trainer_requests, lambda store: store.trainer.rounds()),
    "rollback": (lambda keys: keys.trainer_requests, lambda store: store.trainer.rollback_request()),
    "status": (lambda keys: keys.trainer_status, lambda store: store.trainer.status()),
    "aside": (lambda keys: keys.aside, lambda store: store.aside.count()),
    "marks": (
        lambda keys: keys.marks(""),
        lambda store: (store.applied_offsets.read(["t:0"]), store.applied_offsets.everything()),
    ),
}


@pytest.mark.parametrize("name", SHARED)
def test_a_shared_key_of_another_kind_is_named_with_what_to_do(store: Store, name: str) -> None:
    if store.connection.is_cluster and name == "marks":
        key = keys_of(store).marks(store.connection.shard_tags()[0])
    else:
        key = SHARED[name][0](keys_of(store))
    store.connection.client.zadd(key, {"x": 1})
    with pytest.raises(DamagedKey, match=r"delete|next round|the next model") as caught:
        SHARED[name][1](store)
    assert key in str(caught.value)
    assert caught.value.key == key
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["abc", "-1", "1e3", "9007199254740991", "9" * 20, "9" * 5000, ""])
def test_numbers_that_are_none_are_said(store: Store, value: str) -> None:
    client, keys = store.connection.client, keys_of(store)
    client.hset(keys.trainer_requests, mapping={"requested": value or "x", "rounds": value or "x", "rollback": "{}"})
    for look in (store.trainer.requests, store.trainer.rounds, store.trainer.rollback_request):
        with pytest.raises(DamagedKey, match="trainer:requests is damaged"):
            look()
    for shard in store.connection.shard_tags():
        client.hset(keys.marks(shard), "t:0", value)
    with pytest.raises(DamagedKey, match="recsys rebuild"):
        store.applied_offsets.read(["t:0"])
    with pytest.raises(WritesLost):
        store.applied_offsets.follow({"t:0": (5, 5)})


@pytest.mark.parametrize("value", ["[]", "{", "5", '{"model": 5}', '{"items": []}', "\xff"])
def test_shared_lists_that_are_none_are_said(store: Store, value: str) -> None:
    client, keys = store.connection.client, keys_of(store)
    client.set(keys.popular_in(None), value)
    client.set(keys.similar("a"), value)
    with pytest.raises(DamagedKey, match="popular is damaged"):
        store.item_lists.popular()
    with pytest.raises(DamagedKey, match="similar is damaged"):
        store.item_lists.similar("a")


def test_consumers_go_on_when_the_set_of_those_aside_is_damaged(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    two_users(store)
    store.connection.client.set(keys_of(store).aside, "x")
    damage(store, applied_field("revision", "abc"))
    with caplog.at_level(logging.ERROR):
        states = store.users.apply({user: [placed(2, event("a"))] for user in "uv"})
    assert (states["u"].aside, states["v"].aside) == (True, False)
    assert f"{keys_of(store).aside} is damaged" in caplog.text
    store.trainer.delete_damaged(keys_of(store).aside)
    store.users.apply({"u": [placed(3, event("a"))]})
    assert store.aside.users() == ["u"], "named again with the next event"


def test_hidden_items_that_cannot_be_read_are_said_once_and_stay_as_they_were(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.catalogue.hide("a")
    with LiveModel(store, DataDir.of(Storage(str(tmp_path))).models, poll_s=60).followed() as live:
        store.connection.client.delete(keys_of(store).hidden)
        store.connection.client.set(keys_of(store).hidden, "x")
        for _ in range(3):
            live._look()
        assert live.hidden == {"a"}
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(said) == 1
    assert keys_of(store).hidden in said[0]


def test_a_rebuild_that_cannot_be_told_begins_anew(store: Store) -> None:
    store.rebuilding.begin(RebuildStage.WIPE)
    store.connection.client.hset(keys_of(store).rebuild, "stage", "\xff")
    assert store.rebuilding.resume() is None


@pytest.mark.parametrize(
    "value", ["[]", '{"token": "x", "pid": -1, "work": "w", "system": "s"}', "\xff" * 10_000, '{"token": 5}']
)
def test_a_lock_that_says_nonsense_is_somebody_elses(store: Store, value: str) -> None:
    store.connection.client.set(keys_of(store).trainer_lock, value)
    with pytest.raises(LockHeld, match="never expires: delete the key") as caught, store.trainer_lock.held(ttl_s=60):
        pass
    assert len(str(caught.value)) < 400


def test_names_that_are_no_text_are_passed_over(store: Store) -> None:
    two_users(store)
    prefix = keys_of(store).prefix.encode()
    store.connection.client.hset(prefix + b":{\xff}:history", "a", "1|1")
    store.connection.client.sadd(keys_of(store).aside, b"\xff")
    assert sorted(user for users in store.users.user_ids() for user in users) == ["u", "v"]
    assert len(store.aside.users()) == 1


def test_a_planted_name_among_those_aside_harms_nobody(shop: OfflineShop) -> None:
    whole = shop.histories()
    shop.store.connection.client.sadd(keys_of(shop.store).aside, "v", "nobody")
    make_again(shop.settings, shop.store, shop.data_dir, ProgressReporter(), before_write=lambda: None)
    assert shop.histories() == whole


def test_an_import_of_items_replaces_damaged_keys(store: Store) -> None:
    for key in (keys_of(store).titles, keys_of(store).unavailable):
        store.connection.client.set(key, "x")
    store.catalogue.write({"a": "A"}, ["b"])
    assert store.catalogue.titles(["a"]) == {"a": "A"}
    assert store.catalogue.hidden() == {"b"}
