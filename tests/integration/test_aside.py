"""Users of whom Redis has lost a part are noticed, set aside, and made again from the archive and the topic."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from recsys.data.event import EventType
from recsys.data.history import HistoryReplay
from recsys.errors import RebuildWouldLoseData, RedisError
from recsys.operations import make_again as making
from recsys.operations.amend import Amended, amend
from recsys.operations.make_again import make_again
from recsys.redis import PlacedEvent, PublishOutcome, Store, open_store
from recsys.redis.aside import Adoption
from recsys.runtime import fail_points
from recsys.runtime.logs import GrowingIntervals
from recsys.runtime.progress import ProgressReporter
from recsys.settings import Settings
from tests.builders import make_event
from tests.integration.test_users import MODEL, NOW, a_list, event, placed
from tests.lists import write_lists
from tests.offline import OfflineShop, archive_stream, offline_shop, rows
from tests.secured import secured_redis
from trainer.aside import AsideUsers
from trainer.metrics import TrainerMetrics

Damage = Callable[[Any, Any], object]
KEY_LOSSES: dict[str, Damage] = {
    "the history": lambda client, keys: client.delete(keys.history("u")),
    "the bookkeeping": lambda client, keys: client.delete(keys.applied("u")),
    "the ids": lambda client, keys: client.delete(keys.seen("u")),
    "history and ids": lambda client, keys: client.delete(keys.history("u"), keys.seen("u")),
    "bookkeeping and ids": lambda client, keys: client.delete(keys.applied("u"), keys.seen("u")),
    "history and bookkeeping": lambda client, keys: client.delete(keys.history("u"), keys.applied("u")),
}
LOSSES: dict[str, Damage] = KEY_LOSSES | {
    "an item": lambda client, keys: client.hdel(keys.history("u"), "a"),
    "the revision": lambda client, keys: client.hdel(keys.applied("u"), "revision"),
    "a low-water mark": lambda client, keys: client.hdel(
        keys.applied("u"), *(name for name in client.hkeys(keys.applied("u")) if name.startswith(b"import"))
    ),
}


@pytest.fixture
def shop(broker: str, redis_url: str, tmp_path: Path) -> Iterator[OfflineShop]:
    """User u has purchases in a file, in the archived stream, and in the topic beyond it; so has v."""
    with offline_shop(broker, redis_url, tmp_path) as shop:
        shop.publish([make_event("u", "a"), make_event("v", "a")])
        archive_stream(shop)
        shop.import_(rows("u,b,2,2026-01-01T10:00:00Z,", "v,b,1,2026-01-01T10:00:00Z,"))
        shop.publish([make_event("u", "c"), make_event("u", "c", event_id="e"), make_event("v", "c")])
        assert shop.histories() == {"u": {"a": 1, "b": 2, "c": 2}, "v": {"a": 1, "b": 1, "c": 1}}
        yield shop


def damage(store: Store, how: Damage) -> None:
    how(store.connection.client, store.users._keys)


def made_again(shop: OfflineShop) -> int:
    return make_again(shop.settings, shop.store, shop.data_dir, ProgressReporter(), before_write=lambda: None)


def amended(shop: OfflineShop, *, may_lose: bool = True) -> Amended:
    with shop.store.trainer_lock.held(ttl_s=60) as lock:
        segments = shop.data_dir.archive.segments()
        return amend(
            shop.settings, shop.store, shop.data_dir, segments, lock, ProgressReporter(), may_lose=may_lose
        )  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES)
def test_whoever_lost_a_part_is_set_aside_with_the_next_event_and_made_again(shop: OfflineShop, loss: str) -> None:
    whole = shop.histories()
    damage(shop.store, LOSSES[loss])
    shop.publish([make_event("u", "d"), make_event("v", "d")])
    assert shop.store.aside.users() == ["u"]
    state = shop.store.users.read(["u"])["u"]
    assert (state.aside, state.applied, shop.store.users.lists(["u"])) == (True, 0, [None])
    assert "d" not in shop.histories().get("u", {}), "events are passed over"
    assert made_again(shop) == 1
    assert shop.store.aside.users() == []
    assert shop.histories() == {user: history | {"d": 1} for user, history in whole.items()}
    assert shop.store.users.read(["u"])["u"].revision > state.revision
    shop.publish([make_event("u", "d"), make_event("u", "c", event_id="e")])
    assert shop.histories()["u"] == whole["u"] | {"d": 2}, "what was made again goes on, and knows its ids"
    assert not list(shop.store.connection.client.scan_iter(f"{shop.settings.redis.prefix}:*anew"))


@pytest.mark.parametrize("loss", LOSSES)
def test_reading_tells_a_loss_that_a_list_would_show(shop: OfflineShop, loss: str) -> None:
    damage(shop.store, LOSSES[loss])
    told = loss not in ("the ids", "a low-water mark", "history and bookkeeping")
    assert shop.store.users.read(["u"])["u"].aside == told
    assert not shop.store.users.read(["v"])["v"].aside
    shop.store.users.set_aside(["u", "v"], if_damaged=True)
    assert shop.store.aside.users() == ["u"]


def test_whoever_was_made_again_and_has_no_list_yet_is_made_again_once_more(
    shop: OfflineShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trainer that ends before it has written their lists leaves them to the next one."""
    whole = shop.histories()
    shop.store.users.set_aside(["u"])
    monkeypatch.setitem(fail_points._armed, "adopted", fail_points._Armed("raise", 1))
    with pytest.raises(fail_points.FailPointReached):
        made_again(shop)
    assert (shop.histories(), shop.store.aside.users()) == (whole, ["u"])
    assert made_again(shop) == 1
    assert (shop.histories(), shop.store.aside.users()) == (whole, [])


def test_whoever_is_set_aside_again_meanwhile_stays_on_the_set(shop: OfflineShop) -> None:
    shop.store.users.set_aside(["u", "v"])
    shop.store.aside.begin(["u", "v"])
    assert shop.store.aside.adopt(shop.store.aside.states(["u", "v"])) == dict.fromkeys("uv", Adoption.DONE)
    shop.store.users.set_aside(["v"])
    shop.store.aside.leave(["u", "v"])
    assert shop.store.aside.users() == ["v"]


def test_no_list_from_before_is_written_for_whoever_is_set_aside(store: Store) -> None:
    state = store.users.apply({"u": [placed(0, event())]})["u"]
    store.connection.client.delete(store.users._keys.applied("u"))
    store.users.set_aside(["u"], if_damaged=True)
    outcomes = write_lists(store.users, {"u": state.revision}, [a_list("b")], MODEL, at=NOW)
    assert outcomes == [PublishOutcome.REVISION_MOVED]


@pytest.mark.parametrize("later", [event("b"), event("a", quantity=3)], ids=["another item", "the same item"])
def test_what_an_older_version_wrote_is_no_damage(store: Store, later: Any) -> None:
    """It raises the revision, and knows nothing of what the keys vouch for."""
    store.users.apply({"u": [placed(0, event())]})
    client, keys = store.connection.client, store.users._keys
    client.hset(keys.history("u"), "by-an-older-version", "1|0")
    client.hincrby(keys.applied("u"), "revision", 1)
    state = store.users.apply({"u": [placed(1, later)]})["u"]
    assert not state.aside
    assert "by-an-older-version" in state.history.entries


def test_a_forgotten_user_whose_bookkeeping_has_expired_is_no_damage(store: Store) -> None:
    store.users.apply({"u": [placed(0, event()), placed(1, make_event("u", None, type_=EventType.FORGET))]})
    store.connection.client.delete(store.users._keys.applied("u"))
    assert not store.users.apply({"u": [placed(2, event())]})["u"].aside


@pytest.mark.parametrize("value", ["", "x|1", "1|x", "1", "|"])
def test_a_damaged_value_sets_its_user_aside_and_nobody_else(store: Store, value: str) -> None:
    store.users.apply({user: [placed(0, event("a"))] for user in "uv"})
    store.connection.client.hset(store.users._keys.history("u"), "a", value)
    states = store.users.apply({user: [placed(1, event("a"))] for user in "uv"})
    assert [states[user].aside for user in "uv"] == [True, False]
    assert states["v"].history.entries["a"].units == 2_000_000


def test_what_is_made_anew_waits_for_what_is_passed_over_meanwhile(store: Store) -> None:
    first, second = placed(0, event("a")), placed(1, event("b"))
    store.users.apply({"u": [first]})
    store.users.set_aside(["u"])
    store.aside.begin(["u"])
    seen = store.aside.states(["u"])
    store.aside.apply({"u": [first]})
    store.users.apply({"u": [second]})  # a consumer
    assert store.aside.adopt(seen) == {"u": Adoption.MOVED}
    seen = store.aside.states(["u"])
    store.aside.apply({"u": [first, second]})
    assert store.aside.adopt(seen) == {"u": Adoption.DONE}
    assert set(store.users.read(["u"])["u"].history.entries) == {"a", "b"}
    assert store.aside.adopt(seen) == {"u": Adoption.NOT_ASIDE}, "a repeated call changes nothing"
    assert set(store.users.read(["u"])["u"].history.entries) == {"a", "b"}


def test_what_an_older_version_applies_meanwhile_is_not_overwritten(store: Store) -> None:
    store.users.apply({"u": [placed(0, event("a"))]})
    store.users.set_aside(["u"])
    store.aside.begin(["u"])
    seen = store.aside.states(["u"])
    store.connection.client.hincrby(store.users._keys.applied("u"), "revision", 1)
    assert store.aside.adopt(seen) == {"u": Adoption.MOVED}


def test_what_was_made_anew_and_lost_is_not_adopted(store: Store) -> None:
    store.users.apply({"u": [placed(0, event("a"))]})
    store.users.set_aside(["u"])
    store.aside.begin(["u"])
    store.aside.apply({"u": [placed(0, event("a"))]})
    store.connection.client.delete(*store.users._keys.anew().of_user("u")[:2])
    assert store.aside.adopt(store.aside.states(["u"])) == {"u": Adoption.LOST}
    assert store.users.read(["u"])["u"].aside


def test_whoever_loses_the_rest_while_set_aside_is_made_again_all_the_same(shop: OfflineShop) -> None:
    whole = shop.histories()
    damage(shop.store, LOSSES["the history"])
    shop.publish([make_event("u", "d")])
    damage(shop.store, KEY_LOSSES["bookkeeping and ids"])
    shop.publish([make_event("u", "e")])
    assert shop.histories()["u"] == {"e": 1}, "as if u were new"
    assert made_again(shop) == 1
    assert shop.histories()["u"] == whole["u"] | {"d": 1, "e": 1}


def test_a_user_without_any_event_left_is_nobody(store: Store) -> None:
    store.users.apply({"u": [placed(0, event("a"))]})
    store.users.set_aside(["u"])
    store.aside.begin(["u"])
    assert store.aside.adopt(store.aside.states(["u"])) == {"u": Adoption.DONE}
    state = store.users.apply({"u": [placed(5, event("b"))]})["u"]
    assert (state.aside, set(state.history.entries)) == (False, {"b"})


def test_many_events_without_ids_are_made_again_exactly(store: Store) -> None:
    """More than ids are remembered: the low-water marks count, too."""
    events = [placed(offset, event(f"i{offset % 3}")) for offset in range(40)]
    for one in events:
        store.users.apply({"u": [one]})
    whole = store.users.read(["u"])["u"].history.entries
    store.users.set_aside(["u"])
    store.aside.begin(["u"])
    store.aside.apply({"u": events})
    assert store.aside.adopt(store.aside.states(["u"])) == {"u": Adoption.DONE}
    assert store.users.apply({"u": events})["u"].history.entries == whole


@pytest.mark.parametrize("loss", [*LOSSES, "everything", "a value", "an item of nobody's", "nothing"])
def test_comparing_with_the_archive_brings_everybody_back(shop: OfflineShop, loss: str) -> None:
    whole = shop.histories()
    others: dict[str, Damage] = {
        "everything": lambda client, keys: client.delete(*keys.of_user("u")),
        "a value": lambda client, keys: client.hset(keys.history("u"), "a", "7|0"),
        "an item of nobody's": lambda client, keys: client.hset(keys.history("u"), "z", "1|0"),
        "nothing": lambda client, keys: None,
    }
    damage(shop.store, (LOSSES | others)[loss])
    done = amended(shop)
    assert shop.histories() == whole
    assert (done.compared, done.left) == (2, 0)
    if loss == "nothing":
        assert (done.applied, done.made_again) == (0, 0)
    shop.publish([make_event("u", "c", event_id="e"), make_event("u", "d")])
    assert shop.histories()["u"] == whole["u"] | {"d": 1}


def test_whoever_lost_everything_and_bought_much_since_is_made_again(shop: OfflineShop) -> None:
    """The ids of the newest events push the mark over older ones, which then look known."""
    whole = shop.histories()
    damage(shop.store, lambda client, keys: client.delete(*keys.of_user("u")))
    shop.publish([make_event("u", "d") for _ in range(shop.settings.history.max_event_ids + 20)])
    done = amended(shop)
    assert done.made_again == 1
    assert shop.histories()["u"] == whole["u"] | {"d": shop.settings.history.max_event_ids + 20}


def test_a_large_archive_is_compared_in_parts(shop: OfflineShop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.operations.amend._EVENTS_AT_ONCE", 2)
    whole = shop.histories()
    damage(shop.store, LOSSES["the history"])
    done = amended(shop)
    assert (done.compared, done.made_again) == (2, 1)
    assert shop.histories() == whole


def test_nobody_is_made_again_from_an_archive_that_lacks_purchases(
    shop: OfflineShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(shop.store, LOSSES["an item"])
    before = shop.histories()
    done = amended(shop, may_lose=False)
    assert (done.left, done.made_again) == (1, 0)
    assert shop.histories() == before, "what Redis has is left alone"
    shop.publish([make_event("u", "d")])
    monkeypatch.setattr(making, "all_losses", lambda *_: ["offsets 0 to 7 are gone"])
    with pytest.raises(RebuildWouldLoseData, match=r"offsets 0 to 7 are gone"):
        made_again(shop)
    assert shop.store.aside.users() == ["u"]


def test_the_trainer_makes_them_again_and_says_what_stands_in_the_way(
    shop: OfflineShop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = shop.histories()
    metrics = TrainerMetrics()
    aside = AsideUsers(shop.settings, shop.store, shop.data_dir, metrics)
    damage(shop.store, LOSSES["the history"])
    shop.store.users.set_aside(["u"], if_damaged=True)
    now_s = 0.0

    def all_losses(*_: object) -> list[str]:
        nonlocal now_s
        now_s += 300  # a try takes longer than the interval, which begins when it has failed
        return ["offsets 0 to 7 are gone"]

    aside._tries = GrowingIntervals(clock=lambda: now_s)
    with monkeypatch.context() as patched, caplog.at_level(logging.ERROR):
        patched.setattr(making, "all_losses", all_losses)
        for _ in range(5):
            aside.look()
    said = [record.getMessage() for record in caplog.records if record.name == "trainer.aside"]
    assert len(said) == 1, "once, until it is tried again"
    assert "offsets 0 to 7 are gone" in said[0]
    assert "recsys rebuild --accept-loss" in said[0]
    assert metrics.registry.get_sample_value("recsys_trainer_users_aside") == 1
    aside._tries.begin_anew()  # as if the time had come
    aside.look()
    assert shop.histories() == whole
    aside.look()
    assert metrics.registry.get_sample_value("recsys_trainer_users_aside") == 0


def test_a_wipe_finds_whoever_has_any_key_left(store: Store) -> None:
    store.users.apply({user: [placed(0, event())] for user in ("u", "v", "w}:history")})
    client, keys = store.connection.client, store.users._keys
    client.delete(keys.history("u"), keys.seen("u"))
    client.delete(keys.history("v"), keys.applied("v"))
    found = [user for users in store.users.user_ids(with_any_key=True) for user in users]
    assert sorted(found) == ["u", "v", "w}:history"]
    assert [user for users in store.users.user_ids() for user in users] == ["w}:history"]


def test_passed_over_events_are_counted_in_no_history(store: Store) -> None:
    store.users.apply({"u": [placed(0, event("a"))]})
    store.users.set_aside(["u"])
    events: dict[str, list[PlacedEvent]] = {"u": [placed(offset, event("b")) for offset in (1, 2)]}
    assert store.users.apply_without_reading(events) == (0, 0)


@pytest.mark.parametrize("command", ["hset", "set", "hdel", "persist", "expire", "del", "evalsha"])
def test_a_right_that_is_taken_away_in_between_neither_loses_nor_doubles(command: str) -> None:
    """A script that is refused half-way leaves what it wrote; the batch is tried until the right is back."""
    with secured_redis() as server:
        rules = ["resetkeys", "resetchannels", "~recsys:*", "+@all"]
        server.set_user("consumer", *rules)
        settings = Settings.model_validate(
            {
                "redis": {"url": server.url_of("consumer"), "prefix": "recsys"},
                "history": {"max_items": 3, "max_event_ids": 4},
            }
        )
        before = [placed(offset, event(f"i{offset % 3}", at=offset)) for offset in range(10)]
        after = [placed(offset, event(f"i{offset % 5}", at=offset)) for offset in range(10, 16)]
        with open_store(settings) as store:
            store.users.apply({"u": before})
            server.set_user("consumer", *rules, f"-{command}")
            for _ in range(3):
                with suppress(RedisError):
                    store.users.apply({"u": after})
            server.set_user("consumer", *rules)
            state = store.users.apply({"u": after})["u"]
            if state.aside:
                store.aside.begin(["u"])
                store.aside.apply({"u": [*before, *after]})
                assert store.aside.adopt(store.aside.states(["u"])) == {"u": Adoption.DONE}
                state = store.users.apply({"u": after})["u"]
            replay = HistoryReplay(3)
            replay.apply(one.event for one in [*before, *after])
            assert state.history.entries == replay.entries
