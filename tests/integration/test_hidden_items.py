"""What operators hide leaves the lists that all users share, and lives on when Redis is emptied."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from recsys.errors import DataDirError
from recsys.lists.item_lists import write_popular_lists, write_similar_lists
from recsys.lists.live_model import LoadedModel
from recsys.operations.hidden_items import HiddenItems
from recsys.recommend.user_lists import RankedList
from recsys.redis import Store, open_store
from recsys.settings import Settings
from recsys.storage.artifact import ArtifactFolder, load_model, load_popularity
from recsys.storage.catalogue import Catalogue, Item
from recsys.storage.data_dir import DataDir, open_data_dir
from tests.builders import item_ids, make_draft, make_model
from trainer.hidden import HiddenFollower

NOW = datetime(2026, 11, 22, 10, 15, tzinfo=UTC)
ITEMS = item_ids(40)


@dataclass
class Shop:
    """A Redis, a folder, and a live model."""

    settings: Settings
    store: Store
    data_dir: DataDir
    live: LoadedModel

    def publish_model(self, seed: int) -> None:
        version, uri, digest = self.data_dir.models.save(
            make_draft(make_model(seed=seed)), popular=RankedList(), archive={}, at=NOW
        )
        pointer = self.store.pointer.move(version, uri, digest, seen=self.store.pointer.value(), at=NOW)
        assert pointer is not None
        self.live = LoadedModel(pointer, load_model(ArtifactFolder.at(uri), manifest_sha256=digest))

    def write_lists(self) -> None:
        """Do what a round does."""
        hidden = self.store.catalogue.hidden()
        popularity = load_popularity(ArtifactFolder.at(self.live.pointer.uri))
        write_popular_lists(
            self.settings, self.store, self.data_dir, self.live, popularity, hidden=hidden, clock=lambda: NOW
        )
        write_similar_lists(
            self.settings, self.store, self.live, hidden=hidden, clock=lambda: NOW, advance=lambda _: None
        )

    def lists(self) -> list[Any]:
        """Return all lists that users share, without their times."""
        lists = self.store.item_lists
        found = [lists.popular(), lists.popular("hats"), *lists.similar_many(ITEMS)]
        return [None if one is None else (one["model"], one["items"]) for one in found]

    def follower(self) -> HiddenFollower:
        return HiddenFollower(self.settings, self.store, self.data_dir)

    def sadd(self, *items: str) -> None:
        """Hide items as an operator does with redis-cli."""
        self.store.connection.client.sadd(f"{self.settings.redis.prefix}:hidden", *items)

    def srem(self, *items: str) -> None:
        self.store.connection.client.srem(f"{self.settings.redis.prefix}:hidden", *items)

    def flush(self) -> None:
        """Lose every key of this shop."""
        client = self.store.connection.client
        for key in client.scan_iter(f"{self.settings.redis.prefix}:*"):
            client.delete(key)


@pytest.fixture(params=["server", "cluster"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    on_cluster = request.param == "cluster"
    url = request.getfixturevalue("redis_cluster").url if on_cluster else request.getfixturevalue("redis_url")
    settings = Settings.model_validate(
        {
            "data_dir": str(tmp_path),
            "redis": {"url": url, "cluster": on_cluster, "prefix": f"recsys-{uuid.uuid4().hex[:8]}"},
            "ranking": {"n": 10, "similar_n": 5},
            "trainer": {"refresh_batch": 8},
        }
    )
    data_dir = open_data_dir(settings)
    data_dir.catalogue.write(Catalogue({item: Item(category="hats") for item in ITEMS[::2]}))
    with open_store(settings) as store:
        shop = Shop(settings, store, data_dir, None)  # type: ignore[arg-type]
        shop.publish_model(0)
        shop.write_lists()
        yield shop


def test_lists_follow_as_if_they_had_been_written_with_these_items_hidden(shop: Shop) -> None:
    follower = shop.follower()
    follower.look()
    before = shop.lists()
    for change, items in (("hide", ITEMS[-3:]), ("hide", ITEMS[:2]), ("show", ITEMS[-2:]), ("show", [*ITEMS])):
        (shop.sadd if change == "hide" else shop.srem)(*items)
        follower.look()
        followed = shop.lists()
        shop.write_lists()
        assert followed == shop.lists()
    assert shop.lists() == before


def test_only_lists_that_change_are_written_again(shop: Shop) -> None:
    follower = shop.follower()
    shop.sadd("nobody")
    follower.look()
    written = {item: shop.store.item_lists.similar(item) for item in ITEMS}
    hidden = ITEMS[7]
    shop.sadd(hidden)
    follower.look()
    for item, before in written.items():
        assert before is not None
        after = shop.store.item_lists.similar(item)
        assert after is not None
        held = any(entry["item_id"] == hidden for entry in before["items"])
        assert (after["generated_at"] != before["generated_at"]) == held


def test_what_was_hidden_while_no_trainer_ran_is_followed_at_its_start(shop: Shop) -> None:
    shop.sadd(*ITEMS[-3:])
    shop.follower().look()
    followed = shop.lists()
    shop.write_lists()
    assert followed == shop.lists()


@pytest.mark.parametrize("is_at_work", [True, False], ids=["round at work", "round just done"])
def test_what_is_hidden_during_a_round_leaves_its_lists_once_it_is_done(shop: Shop, is_at_work: bool) -> None:
    follower = shop.follower()
    shop.sadd(ITEMS[1])
    follower.look()
    with shop.store.trainer_lock.held(ttl_s=60) if is_at_work else nullcontext():
        shop.publish_model(1)
        shop.write_lists()  # by the round, which has not seen what follows
        shop.sadd(ITEMS[-1])
        follower.look()
    popular = shop.store.item_lists.popular()
    assert popular is not None
    assert ITEMS[-1] not in [entry["item_id"] for entry in popular["items"]], "at once"
    follower.look()
    followed = shop.lists()
    shop.write_lists()
    assert followed == shop.lists()


def test_an_emptied_redis_changes_no_copy_and_what_was_hidden_is_hidden_again(shop: Shop) -> None:
    items = HiddenItems(shop.store, shop.data_dir)
    shop.sadd("a", "b")
    items.keep()
    shop.srem("b")
    shop.sadd("c")
    items.keep()
    copy = shop.data_dir.hidden.read()
    assert copy is not None
    assert copy.items == {"a", "c"}
    shop.flush()
    shop.sadd("d")  # by an operator, who does not know yet
    HiddenItems(shop.store, shop.data_dir).restore()  # recsys rebuild
    assert shop.store.catalogue.hidden() == {"a", "c", "d"}
    items.keep()
    copy = shop.data_dir.hidden.read()
    assert copy is not None
    assert copy.items == {"a", "c", "d"}
    shop.flush()
    items.keep()  # a trainer that has been running all the time
    assert shop.store.catalogue.hidden() == {"a", "c", "d"}


def test_showing_the_last_one_again_is_kept(shop: Shop) -> None:
    items = HiddenItems(shop.store, shop.data_dir)
    shop.sadd("a")
    items.keep()
    shop.srem("a")
    items.keep()
    HiddenItems(shop.store, shop.data_dir).restore()
    assert shop.store.catalogue.hidden() == frozenset()
    shop.flush()
    HiddenItems(shop.store, shop.data_dir).keep()
    assert shop.store.catalogue.hidden() == frozenset()


def test_without_anything_hidden_nothing_is_kept(shop: Shop) -> None:
    HiddenItems(shop.store, shop.data_dir).keep()
    assert shop.data_dir.hidden.read() is None


def test_a_damaged_copy_is_one_clear_error(shop: Shop) -> None:
    shop.data_dir.storage.write_file("hidden.json", b"{")
    with pytest.raises(DataDirError, match=r"hidden.json is damaged; remove it, and it is made again from Redis"):
        HiddenItems(shop.store, shop.data_dir).keep()
