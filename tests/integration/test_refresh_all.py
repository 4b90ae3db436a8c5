"""Every list anew, in this process and spread over others, on a real Redis."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from recsys.errors import FullRefreshFailed
from recsys.lists import refresh_all as module
from recsys.lists.live_model import LoadedModel
from recsys.lists.refresh_all import refresh_all_users
from recsys.recommend.user_lists import RankedList
from recsys.redis import PlacedEvent, Store, open_store
from recsys.settings import Settings
from recsys.storage.artifact import ArtifactFolder, load_model
from recsys.storage.files import Storage
from recsys.storage.models import ModelStore
from tests.builders import item_ids, make_draft, make_event, make_model

USERS = [f"user-{number:03d}" for number in range(300)]
NOW = datetime(2026, 11, 22, 10, 15, tzinfo=UTC)


@dataclass
class Shop:
    """Users who own three items each, and a model."""

    settings: Settings
    store: Store
    live: LoadedModel
    models: int = 0

    def publish_model(self) -> None:
        """Publish a model that nobody has a list of yet."""
        self.models += 1
        model = make_model(seed=self.models)
        version, uri, digest = ModelStore(Storage(self.settings.data_dir)).save(
            make_draft(model), popular=RankedList(), archive={}, at=NOW
        )
        seen = self.store.pointer.value()
        pointer = self.store.pointer.move(version, uri, digest, seen=seen, at=NOW)
        assert pointer is not None
        self.live = LoadedModel(pointer, load_model(ArtifactFolder.at(uri), manifest_sha256=digest))

    def lists(self) -> list[Any]:
        """Return everyone's items, all from the live model."""
        found = self.store.users.lists(USERS)
        assert all(one is not None and one["model"] == self.live.stamp.version for one in found)
        return [one["items"] for one in found if one]


@pytest.fixture(params=["server", "cluster"])
def shop(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    on_cluster = request.param == "cluster"
    url = request.getfixturevalue("redis_cluster").url if on_cluster else request.getfixturevalue("redis_url")
    settings = Settings.model_validate(
        {
            "data_dir": str(tmp_path),
            "redis": {"url": url, "cluster": on_cluster, "prefix": f"recsys-{uuid.uuid4().hex[:8]}"},
            "trainer": {"refresh_batch": 8, "refresh_processes": 2},
        }
    )
    monkeypatch.setattr(module, "_FEW_USERS", 64)
    items = item_ids(40)
    with open_store(settings) as store:
        store.users.apply_without_reading(
            {
                user: [
                    PlacedEvent("import-x:0", place, make_event(user, items[(7 * number + place) % 40]), complete=True)
                    for place in range(3)
                ]
                for number, user in enumerate(USERS)
            }
        )
        shop = Shop(settings, store, None)  # type: ignore[arg-type]
        shop.publish_model()
        yield shop


def children() -> list[psutil.Process]:
    """Return the processes of a full refresh that are there."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # it has just been killed
            command = " ".join(child.cmdline())
            if "loky" in command and "resource_tracker" not in command:
                found.append(child)
    return found


def test_other_processes_write_the_lists_that_this_one_would(shop: Shop) -> None:
    advanced: list[int] = []
    assert refresh_all_users(shop.settings, shop.store, shop.live, advanced.append) == len(USERS)
    assert sum(advanced) == len(USERS)
    spread = shop.lists()
    shop.store.connection.run([(key, ("DEL", key)) for key in map(shop.store.users._keys.recs, USERS)])
    alone = shop.settings.model_copy(
        update={"trainer": shop.settings.trainer.model_copy(update={"refresh_processes": 1})}
    )
    assert refresh_all_users(alone, shop.store, shop.live, lambda _: None) == len(USERS)
    assert shop.lists() == spread
    assert not children()


def test_lists_that_are_current_are_left_alone(shop: Shop) -> None:
    refresh_all_users(shop.settings, shop.store, shop.live, lambda _: None)
    assert refresh_all_users(shop.settings, shop.store, shop.live, lambda _: None) == 0
    shop.publish_model()
    assert refresh_all_users(shop.settings, shop.store, shop.live, lambda _: None) == len(USERS)
    shop.lists()


@pytest.mark.parametrize("years", [90, *(pytest.param(years, marks=pytest.mark.slow) for years in (1, 3_000))])
def test_lists_of_a_sequence_that_lies_ahead_are_written_all_the_same_by_a_rebuild(shop: Shop, years: int) -> None:
    refresh_all_users(shop.settings, shop.store, shop.live, lambda users: None)
    before = shop.lists()
    keys, client = shop.store.users._keys, shop.store.connection.client
    for user in USERS[:3]:
        client.set(keys.recs(user), '{"items": []}')
        client.hset(keys.applied(user), "sequence", shop.live.stamp.sequence + years * 365 * 86_400)
    written = refresh_all_users(shop.settings, shop.store, shop.live, lambda users: None, also_current=True)
    assert written == len(USERS)
    assert shop.lists() == before


def test_a_full_refresh_whose_process_is_killed_fails_and_the_next_one_writes_the_rest(shop: Shop) -> None:
    def kill_one(_: int) -> None:
        for child in children():
            child.send_signal(signal.SIGKILL)

    with pytest.raises(FullRefreshFailed, match="killed"):
        refresh_all_users(shop.settings, shop.store, shop.live, kill_one)
    refresh_all_users(shop.settings, shop.store, shop.live, lambda _: None)
    shop.lists()
