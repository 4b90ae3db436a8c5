"""Scenario 13: damaged models are refused and the live one stays; a trainer killed anywhere is made good."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.storage.archive import Archive
from recsys.storage.files import Storage
from recsys.storage.models import ModelStore
from tests.faults.conftest import FULL, Report, rounds
from tests.faults.ledger import Ledger
from tests.services import Consumer, wait_until

pytestmark = pytest.mark.real_kafka


@dataclass(frozen=True, slots=True)
class Damage:
    """One way to damage a copy of the live model, and what the log must say then."""

    said: str
    do: Callable[[Path], object]
    pinned: bool = False
    """Whether the pointer carries the sha256 of the manifest as it is now."""


def flipped_byte(name: str) -> Damage:
    def do(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)

    return Damage(f"{name} is truncated or changed", do)


def truncated(name: str, said: str) -> Damage:
    return Damage(said, lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-7]))


def forged(name: str, change: Callable[[Any], Any], said: str) -> Damage:
    """Change an array, with every sha256 right."""

    def do(folder: Path) -> None:
        content = io.BytesIO()
        np.save(content, change(np.load(folder / name)))
        _pin(folder, name, content.getvalue())

    return Damage(said, do, pinned=True)


def replaced(name: str, change: Callable[[bytes], bytes], said: str) -> Damage:
    """Change the bytes of a file, with every sha256 right."""
    return Damage(said, lambda folder: _pin(folder, name, change((folder / name).read_bytes())), pinned=True)


def _pin(folder: Path, name: str, content: bytes) -> None:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"][name] |= {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    (folder / name).write_bytes(content)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _with_nan(array: Any) -> Any:
    array[len(array) // 2, -1] = np.nan
    return array


DAMAGES = [
    Damage("a file is missing", shutil.rmtree),
    Damage("a file is missing", lambda folder: (folder / "items.parquet").unlink()),
    truncated("item_factors.npy", "item_factors.npy is truncated or changed"),
    truncated("manifest.json", "manifest.json is not the published one"),
    flipped_byte("item_gram.npy"),
    flipped_byte("items.parquet"),
    forged("item_factors.npy", _with_nan, "item_factors holds NaN or infinity"),
    forged("item_gram.npy", _with_nan, "item_gram holds NaN or infinity"),
    forged("item_factors.npy", lambda array: array[:-1], "item_factors has shape (79, 8), not (80, 8)"),
    forged("item_gram.npy", lambda array: array[:-1, :-1], "item_gram has shape (7, 7), not (8, 8)"),
    forged("item_factors.npy", lambda array: array.astype(np.float64), "dtype float64, not float32"),
    replaced("item_factors.npy", lambda content: content[:-40], "item_factors has 2,520 bytes of numbers, not 2,560"),
    replaced("item_factors.npy", lambda _: pickle.dumps(print), "item_factors.npy: "),
    replaced("items.parquet", lambda content: content[:99] + content[100:], "items.parquet: "),
]

DAMAGED_POINTERS = {
    b'{"version": "v': "EOF while parsing a string",
    b"\xff\xfe": "expected value",
    b"null": "should be an object",
    b'{"version": "v", "sequence": 1.5}': "sequence: Input should be a valid integer",
    b'{"version": "v", "sequence": 9007199254740992}': "sequence: Input should be less than 9007199254740992",
    b'{"version": "v", "sequence": 9, "uri": "x", "manifest_sha256": "x"}': "published_at: Field required",
    b'{"version": "v", "sequence": 9, "uri": "x", "manifest_sha256": "x", "published_at": "soon"}': "isoformat",
}


class Pointing:
    """Moves the model pointer, as anyone who can write to Redis could."""

    def __init__(self, ledger: Ledger) -> None:
        self._client: Any = ledger.store.connection.client
        self._key = ledger.store.pointer._keys.model
        self._copies = ledger.shop.folder / "copies"
        self._copy_of: dict[bytes, Path] = {}
        self._live = json.loads(ledger.store.pointer.value())
        self._folder = Path(self._live["uri"])
        shutil.copytree(self._folder, self._copies / "0")
        self.version = str(self._live["version"])
        self.sequence = int(self._live["sequence"])
        self._made = 0

    def at_copy(self, damage: Damage | None = None) -> bytes:
        """Point at a copy of the live model, damaged or not, and return the pointer."""
        self._made += 1
        self.sequence += 1
        folder = self._copies / str(self._made)
        shutil.copytree(self._copies / "0", folder)
        pointer = {**self._live, "sequence": self.sequence}
        if damage is not None:
            damage.do(folder)
            if damage.pinned:
                pointer["manifest_sha256"] = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
        value = json.dumps(pointer).encode()
        self._copy_of[value] = folder
        self.at(value)
        return value

    def at(self, pointer: bytes) -> None:
        """Write a pointer as it is; the copy that was made for it takes the place of the live version's folder."""
        if copy := self._copy_of.get(pointer):
            shutil.rmtree(self._folder, ignore_errors=True)
            if copy.exists():
                shutil.copytree(copy, self._folder)
        self._client.set(self._key, pointer)


def test_damaged_model_is_refused_and_the_live_one_stays(ledger: Ledger, report: Report) -> None:
    store, pointing = ledger.store, Pointing(ledger)
    consumer = ledger.shop.start_consumer(RECSYS_CONSUMER__MODEL_POLL_S="0.1")
    consumer.await_assigned()
    refused = 0

    def await_refused(said: str) -> None:
        nonlocal refused
        refused += 1
        wait_until(lambda: consumer.metrics()["models_refused_total"] == refused, f"the metric counts {said!r}")
        line = [line for line in consumer.said().splitlines() if "model refused: " in line][-1]
        assert said in line
        assert f"(the live model stays: {pointing.version})" in line
        sales = ledger.sales(10)
        ledger.send(sales)
        ledger.flush()
        ledger.await_counted()
        users = sorted({sale.user_id for sale in sales if not sale.item_id.startswith("unknown-")})

        def listed() -> bool:
            states = store.users.read(users)
            return all(
                found is not None and (found["model"], found["revision"]) == (pointing.version, states[user].revision)
                for user, found in zip(users, store.users.lists(users), strict=True)
            )

        wait_until(listed, "lists go on with the live model")

    def await_taken(*members: Consumer) -> None:
        def taken() -> bool:
            return all(member.metrics()["model_sequence"] == pointing.sequence for member in members)

        wait_until(taken, "the good one is taken")

    for pointer, said in DAMAGED_POINTERS.items():
        pointing.at(pointer)
        await_refused(said)
    for damage in DAMAGES:
        pointer = pointing.at_copy(damage)
        await_refused(damage.said)
    late = ledger.shop.start_consumer(RECSYS_CONSUMER__MODEL_POLL_S="0.1")  # with no live model of its own
    wait_until(lambda: "model refused: " in late.said(), "the other consumer refuses it, too")
    late.await_assigned()
    pointing.at_copy()
    await_taken(consumer, late)
    pointing.at(pointer)  # the same one again
    await_refused(DAMAGES[-1].said)
    pointing.at_copy()
    await_taken(consumer, late)
    recovery_s = ledger.await_counted()
    tally = ledger.check()
    for member in (consumer, late):
        assert "Traceback" not in member.said()
        assert member.stop() == 0
    report(13, "damaged models and pointers", tally, faults=refused, recovery_s=recovery_s)


@pytest.mark.slow
def test_trainer_killed_anywhere_is_made_good_by_the_next_round(ledger: Ledger, report: Report) -> None:
    shop, store = ledger.shop, ledger.store
    client: Any = store.connection.client
    shop.environment |= {
        "RECSYS_TRAINER__LOCK_TTL_S": "3",
        "RECSYS_TRAINER__REFRESH_BATCH": "10",
        "RECSYS_TRAINER__KEEP_VERSIONS": "1000",
    }
    storage = Storage(shop.environment["RECSYS_DATA_DIR"])
    archive, models = Archive(storage), ModelStore(storage)
    (first,) = models.versions()
    consumer = shop.start_consumer()

    def half_written() -> list[Path]:
        return list(Path(storage.root).rglob("*.tmp"))

    def live_version() -> str:
        pointer = store.pointer.read()
        assert pointer is not None
        return pointer.version

    def users_behind() -> list[str]:
        users = [user for batch in store.users.user_ids() for user in batch]
        lists = zip(users, store.users.lists(users), strict=True)
        return [user for user, found in lists if found is not None and found["model"] != live_version()]

    # What each leaves behind, so that there is something to make good.
    left_behind: dict[str, Callable[[], object]] = {
        "in-segment": half_written,
        "in-model": half_written,
        "before-pointer": lambda: models.versions()[-1] > live_version(),
        "in-full-refresh": users_behind,
    }

    def make_good() -> None:
        trainer = shop.start_trainer()  # its next scheduled round would be in an hour
        trainer.await_saying("round done")
        assert half_written() == []
        assert archive.gaps() == []
        assert models.versions()[-1] == live_version()
        assert trainer.stop() == 0

    count = rounds(1, 5)
    for number in range(count):
        for point, behind in left_behind.items():
            ledger.publish(60)
            with ledger.load(50):
                kill = f"{point}=kill@{1 + number % 3}"
                killed = shop.start_trainer(RECSYS_TEST_FAIL_POINTS=kill, RECSYS_TRAINER__INTERVAL_S="0.1")
                killed.await_killed()
                assert behind(), f"{point} leaves nothing behind"
                if point != "in-full-refresh":
                    client.delete(store.trainer._keys.trainer_lock)  # as if its time had passed
                if FULL or point == "in-full-refresh":  # else the next one starts with what this one left
                    make_good()
        wait_until(lambda: users_behind() == [], "no user is left on an old list")
    logs = "".join(log.read_text() for log in shop.folder.glob("trainer-*.log"))
    assert models.versions() == sorted({first, *re.findall(r"model (\S+) is live: ", logs)}), "only what was live"
    recovery_s = ledger.await_counted()
    tally = ledger.check()
    assert consumer.stop() == 0
    report(13, "trainer killed at every step", tally, faults=4 * count, recovery_s=recovery_s)
