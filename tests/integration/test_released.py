"""What earlier releases left on disk and in Redis, see tests/released/make.py, is read by this one."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from recsys.evaluation.gate_record import CANDIDATE, LIVE, Decision
from recsys.kafka.embedded import embedded_broker
from recsys.operations.model_versions import kept_models
from recsys.operations.rollback import previous_version, roll_back
from recsys.operations.verify import verify
from recsys.redis import ModelPointer, Store, calls_by_user, open_store
from recsys.redis.async_reader import ReadStore, UserList, open_read_store
from recsys.runtime.clock import now
from recsys.runtime.progress import ProgressReporter
from recsys.settings import Settings, load_settings
from recsys.storage.artifact import ArtifactFolder, load_model, load_popularity
from recsys.storage.data_dir import DataDir, open_data_dir
from recsys.storage.segments import IMPORT_PREFIX, events_of
from tests.preloaded import run_module
from tests.services import RedisServer

RELEASED = Path(__file__).parent.parent / "released"
QUANTITY = 1_000_000
Histories = dict[str, dict[str, list[int]]]


@dataclass(frozen=True)
class Released:
    """An installation as a release has left it, opened by the code of today.

    Attributes
    ----------
    data : Path
        A copy of the data_dir.
    redis : Any
        redis-py's own client, for the keys that apps and operators know.
    expected : dict
        What must be found, as counted from the purchases themselves.
    """

    data: Path
    redis: Any
    settings: Settings
    store: Store
    expected: dict[str, Any]

    @property
    def data_dir(self) -> DataDir:
        return open_data_dir(self.settings)

    @property
    def live(self) -> str:
        """The version that was live."""
        return self.with_role("live")

    def with_role(self, wanted: str) -> str:
        (version,) = [version for version, role in self.expected["models"].items() if role == wanted]
        return str(version)

    def pointer(self) -> ModelPointer:
        pointer = self.store.pointer.read()
        assert pointer is not None
        return pointer

    def raw(self, key: str) -> bytes:
        """Return a key that apps read."""
        value = self.redis.get(f"recsys:{key}")
        assert value, key
        return bytes(value)

    def ensure_right(self, *, model: str) -> None:
        """Fail unless everyone's history and lists are what archive and model say."""
        outcome = verify(self.settings, self.store, self.data_dir, ProgressReporter(), sample=None, with_stream=False)
        assert outcome.differences == []
        assert (outcome.users, outcome.lists) == (self.expected["users"], self.expected["users"])
        assert outcome.model == model


@pytest.fixture(params=sorted(path.parent.name for path in RELEASED.glob("*/dump.rdb")))
def released(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Released]:
    folder = RELEASED / request.param
    data = tmp_path / "data"
    shutil.copytree(folder / "data", data)
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    server = RedisServer(tmp_path)
    shutil.copy(folder / "dump.rdb", server.folder)
    for name in [name for name in os.environ if name.startswith("RECSYS_")]:
        monkeypatch.delenv(name)
    environment = {**expected["settings"], "RECSYS_DATA_DIR": str(data), "RECSYS_REDIS__URL": server.url}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    try:
        server.start()
        _move_pointer(server.client, data)
        with open_store(settings) as store:
            yield Released(data, server.client, settings, store, expected)
    finally:
        server.kill()


def _move_pointer(client: Any, data: Path) -> None:
    """Let the pointer name the copy: it holds an absolute path, which an operator who moves a data_dir changes so."""
    pointer = json.loads(client.get("recsys:model"))
    pointer["uri"] = f"{data}/models/{pointer['version']}"
    client.set("recsys:model", json.dumps(pointer))


def test_there_is_a_release_to_read() -> None:
    assert (RELEASED / "before-rooms" / "dump.rdb").is_file()


def test_models_are_loaded_and_known_for_what_they_are(released: Released) -> None:
    models = released.data_dir.models
    pointer = released.pointer()
    assert pointer.version == released.live
    kept = kept_models(released.data_dir, live=pointer.version)
    assert {version: role for version, role, _ in kept} == released.expected["models"]
    live = load_model(ArtifactFolder.at(pointer.uri), manifest_sha256=pointer.manifest_sha256)
    assert live.version == pointer.version
    assert live.boosts is not None
    assert live.stored_index is not None
    best = orjson.loads(released.raw("popular"))["items"][0]
    assert load_popularity(ArtifactFolder.at(pointer.uri))[live.items.rows[best["item_id"]]] == pytest.approx(
        best["score"]
    )
    for version in models.versions():
        uri, manifest_sha256 = models.address(version)
        assert load_model(ArtifactFolder.at(uri), manifest_sha256=manifest_sha256).version == version
        assert models.manifest(version).counts["items"] == len(live.items)


def test_the_live_model_is_judged_by_its_fit_before_the_hold_out(released: Released) -> None:
    models = released.data_dir.models
    uri, manifest_sha256 = models.address(released.live)
    live = load_model(ArtifactFolder.at(uri), manifest_sha256=manifest_sha256)
    judged = models.model_for_holdout(released.live, cut_s=live.reference_s - 1)
    assert judged is not None
    assert judged.version == f"{released.live}/before-holdout"
    assert judged.reference_s < live.reference_s


def test_the_archive_holds_every_event_once(released: Released) -> None:
    archive = released.data_dir.archive
    segments = archive.segments()
    assert len({segment.round for segment in segments}) > 2
    assert any(segment.source.startswith(IMPORT_PREFIX) for segment in segments)
    assert archive.gaps() == []
    events = archive.events()
    assert len(events) == released.expected["events"]
    found: Histories = {user: {} for user in released.expected["histories"]}
    rows = zip(events.user_codes, events.item_codes, events.units, events.seconds, strict=True)
    for user, item, units, second in rows:
        if (name := events.user_ids[user]) in found:
            quantity, newest_s = found[name].get(events.item_ids[item], [0, 0])
            found[name][events.item_ids[item]] = [quantity + int(units) // QUANTITY, max(newest_s, int(second))]
    assert found == released.expected["histories"]


def test_histories_are_read_from_redis(released: Released) -> None:
    states = released.store.users.read(released.expected["histories"])
    found: Histories = {
        user: {item: [entry.units // QUANTITY, entry.newest_s] for item, entry in state.history.entries.items()}
        for user, state in states.items()
    }
    assert found == released.expected["histories"]


def test_every_history_and_list_is_what_archive_and_model_say(released: Released) -> None:
    released.ensure_right(model=released.live)


def test_events_that_were_applied_are_recognized(released: Released) -> None:
    applied = duplicates = 0
    for segment in released.data_dir.archive.segments():
        source, rows = f"{segment.source}:{segment.partition}", events_of(released.data_dir.archive.read(segment))
        for call in calls_by_user(source, rows, complete=segment.source.startswith(IMPORT_PREFIX)):
            new, known = released.store.users.apply_without_reading(call)
            applied += new
            duplicates += known
    assert applied == 0
    assert duplicates >= released.expected["events"]


def test_the_place_in_the_stream_is_known(released: Released) -> None:
    archived = {
        f"{source}:{partition}": offset
        for source, offsets in released.data_dir.archive.positions().items()
        for partition, offset in offsets.items()
        if not source.startswith(IMPORT_PREFIX)
    }
    assert len(archived) > 1
    assert released.store.applied_offsets.everything() == archived


def test_the_api_reads_what_apps_read(released: Released) -> None:
    users = sorted(released.expected["histories"])
    bought = [user for user in users if released.expected["histories"][user]]

    async def asked() -> tuple[list[UserList], list[bytes | None], list[bytes | None]]:
        async with open_read_store(released.settings.redis, timeout_s=60) as reader:
            return await _read(reader, users, bought)

    lists, again, items = asyncio.run(asked())
    assert [cached.content is not None for cached in lists] == [user in bought for user in users]
    for user, cached in zip(users, lists, strict=True):
        if cached.content is not None:
            assert cached.content == released.raw(f"{{{user}}}:recs")
            assert orjson.loads(cached.content)["revision"] == cached.revision > 0
    assert again == [released.raw(f"{{{user}}}:again") for user in bought]
    assert items == [released.raw(key) for key in ("popular", "popular:Taste 1", "item:{item-20}:similar")]


async def _read(
    reader: ReadStore, users: list[str], bought: list[str]
) -> tuple[list[UserList], list[bytes | None], list[bytes | None]]:
    return (
        await reader.user_lists(users),
        [await reader.again(user) for user in bought],
        [await reader.popular(), await reader.popular("Taste 1"), await reader.similar("item-20")],
    )


def test_hidden_items_and_the_catalogue_are_known(released: Released) -> None:
    titles = released.expected["titles"]
    catalogue = released.data_dir.catalogue.read()
    assert released.store.catalogue.hidden() == set(released.expected["hidden"])
    assert catalogue.unavailable() < set(released.expected["hidden"])
    assert titles.items() <= catalogue.titles().items()
    assert set(catalogue.categories().values()) == {"Taste 0", "Taste 1", "Taste 2"}
    assert released.store.catalogue.titles(list(titles)) == titles
    assert released.store.catalogue.stamp() == released.raw("catalogue")


def test_rounds_and_tuned_parameters_are_known(released: Released) -> None:
    records = list(released.data_dir.rounds.newest_first())
    told = [(record.kind, record.state, record.published) for record in records]
    assert told == [
        ("retrain", "rejected", False),
        ("retrain", "succeeded", True),
        ("rollback", "succeeded", True),
        ("retrain", "succeeded", True),
        ("retrain", "succeeded", True),
    ]
    assert [record.version for record in records[:2]] == [released.with_role("rejected"), released.live]
    rejected = records[0].gate
    assert rejected is not None
    assert rejected.decision is Decision.REJECTED
    assert rejected.live == released.live
    assert all(rejected.score(name, rejected.column) is not None for name in (CANDIDATE, LIVE))
    assert released.store.trainer.status()["version"] == records[0].version
    assert released.store.trainer.outcome()["version"] == records[0].version
    assert released.store.trainer.rounds() == 4
    tuned = released.data_dir.tuned.read()
    assert tuned is not None
    assert tuned.trials == 2
    live, fitted = (
        released.data_dir.models.manifest(released.live),
        released.data_dir.tuned.parameters(released.settings),
    )
    assert (fitted.alpha, fitted.half_life_days) == (live.alpha, live.half_life_days)
    assert (fitted.factors, fitted.repeat_weight) == (live.factors, live.repeat_weight)
    assert fitted.alpha == tuned.parameters["alpha"]


def test_the_model_before_is_made_live_again(released: Released) -> None:
    version = previous_version(released.data_dir, live=released.live)
    assert version == released.with_role("previous")
    with released.store.trainer_lock.held(ttl_s=60) as lock:
        done = roll_back(
            released.settings,
            released.store,
            released.data_dir,
            lock,
            ProgressReporter(),
            version,
            live_before=released.live,
            clock=now,
        )
    assert done.written.lists == released.expected["users"]
    released.ensure_right(model=version)


def test_the_next_round_compares_its_candidate_with_the_live_model(released: Released) -> None:
    with embedded_broker(released.settings.kafka.topic) as address:
        environment = {**os.environ, "RECSYS_KAFKA__BOOTSTRAP_SERVERS": address, "RECSYS_TRAINER__NICENESS": "0"}
        done = run_module("trainer", ["--once"], environment=environment, folder=Path.cwd(), timeout_s=240)
    assert done.returncode == 0, done.stderr
    record = next(released.data_dir.rounds.newest_first())
    assert record.live_before == released.live
    assert record.gate is not None
    assert record.gate.difference is not None
    assert record.counts["events"] == released.expected["events"]
    kept = kept_models(released.data_dir, live=record.version)
    assert Counter(role for _, role, _ in kept) == {"live": 1, "previous": 1, "rejected": 1}
    released.ensure_right(model=record.version)
