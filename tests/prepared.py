"""Shops that many tests start from: made once a run, by the real commands, and copied for each test."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recsys.redis import open_store
from tests.planted import write_history
from tests.services import Shop
from tests.shared_servers import SharedServers

_OF_EACH_SHOP = {
    "RECSYS_DATA_DIR", "RECSYS_KAFKA__BOOTSTRAP_SERVERS", "RECSYS_KAFKA__GROUP_ID", "RECSYS_KAFKA__LIBRDKAFKA",
    "RECSYS_KAFKA__TOPIC", "RECSYS_REDIS__PREFIX", "RECSYS_REDIS__URL",
}  # fmt: skip
"""Settings that an import and a first model do not depend on."""


def train_planted(shop: Shop) -> None:
    """Import the history of `tests.planted`, and make a first model."""

    def train() -> None:
        write_history(shop.folder / "history.csv")
        shop.recsys("import", "history.csv")
        shop.run("trainer", "--once")

    once_a_run(shop, "planted", train)


def once_a_run(shop: Shop, name: str, prepare: Callable[[], object]) -> None:
    """Prepare a new shop: the first of this run with this name and these settings by ``prepare``, others as its copy.

    What is copied are the shop's files and all that it has in Redis. Its topics must still be empty. One shop of a run
    is prepared after the other: the first time, the first of them compiles for all.
    """
    shared = SharedServers.of_this_run()
    if shared is None or not Path(shop.environment["RECSYS_DATA_DIR"]).is_relative_to(shop.folder):
        prepare()
        return
    settings = {k: v for k, v in shop.environment.items() if k.startswith("RECSYS_") and k not in _OF_EACH_SHOP}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    original = shared.folder / f"shop-{name}-{digest}"
    with shared.alone("prepare"):
        if not original.exists():
            prepare()
            _save(shop, original)
            return
    _restore(shop, original)


def _save(shop: Shop, original: Path) -> None:
    unfinished = original.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of one who was interrupted
    shutil.copytree(shop.folder, unfinished / "files")
    prefix = _prefix(shop)
    with open_store(shop.settings()) as store:
        client: Any = store.connection.client
        names = client.scan_iter(match=b"%s*" % prefix, count=1000)
        kept = [(name.removeprefix(prefix), client.dump(name), max(0, client.pttl(name))) for name in names]
    (unfinished / "redis.pickle").write_bytes(pickle.dumps((shop.environment["RECSYS_DATA_DIR"], kept)))
    unfinished.rename(original)


def _restore(shop: Shop, original: Path) -> None:
    shutil.copytree(original / "files", shop.folder, dirs_exist_ok=True)
    data_dir, kept = pickle.loads((original / "redis.pickle").read_bytes())  # noqa: S301 - written above
    prefix = _prefix(shop)
    with open_store(shop.settings()) as store:
        client: Any = store.connection.client
        for name, value, left_ms in kept:
            client.restore(prefix + name, left_ms, value)
        pointer = client.get(prefix + b"model").decode()
        assert data_dir in pointer
        client.set(prefix + b"model", pointer.replace(data_dir, shop.environment["RECSYS_DATA_DIR"]))


def _prefix(shop: Shop) -> bytes:
    return f"{shop.environment['RECSYS_REDIS__PREFIX']}:".encode()
