"""A shop with an API: purchases, imported items, a model, and keys of every role."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx

from recsys.client import Client
from tests.prepared import once_a_run
from tests.services import NO_AUTHORITIES, Api, Shop
from tests.shops import ITEMS_PER_TASTE, N_ITEMS, habitual_shop, write_parquet

KEYS = {
    "read": "read-key-read-key-read-key",
    "write": "write-key-write-key-write",
    "operate": "operate-key-operate-key-operate",
}
EXPIRED_KEY = "expired-key-expired-key-expired"
KEY_SETTING = {
    "RECSYS_API__KEYS": ",".join(
        [*(f"{role}er:{role}:{key}" for role, key in KEYS.items()), f"former:operate@2026-01-31:{EXPIRED_KEY}"]
    )
}
PATIENT = {**KEY_SETTING, "RECSYS_API__REDIS_TIMEOUT_MS": "5000"}
"""For what must not depend on how busy the machine is."""
SOLD_OUT = "item-007"
N_USERS = 120


def category_of(item_id: str) -> str:
    return f"Taste {int(item_id.removeprefix('item-')) // ITEMS_PER_TASTE}"


def prepare(shop: Shop, *, n_users: int = N_USERS) -> None:
    """Import purchases and items, and make a first model."""
    once_a_run(shop, f"api-{n_users}", partial(_prepare, shop, n_users))


def _prepare(shop: Shop, n_users: int) -> None:
    write_parquet(habitual_shop(seed=0, n_users=n_users), shop.folder / "history.parquet")
    ids = [f"item-{number:03d}" for number in range(N_ITEMS)]
    lines = [f"{item},Title of {item},{category_of(item)},{str(item != SOLD_OUT).lower()}" for item in ids]
    (shop.folder / "items.csv").write_text("\n".join(["item_id,title,category,available", *lines]) + "\n")
    shop.recsys("import", "history.parquet")
    shop.recsys("items", "import", "items.csv")
    shop.run("trainer", "--once")


@dataclass(frozen=True)
class Asked:
    """An API, asked with a key of a role."""

    api: Api
    key: str = ""

    def __call__(self, path: str, method: str = "GET", **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        headers |= options.pop("headers", {})
        return httpx.request(
            method, f"{self.api.url}{path}", headers=headers, timeout=240, verify=NO_AUTHORITIES, **options
        )

    def json(self, path: str, method: str = "GET", **options: Any) -> Any:
        response = self(path, method, **options)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        return response.json()

    def client(self) -> Client:
        return Client(self.api.url, key=self.key)


def asked_by(api: Api, role: str) -> Asked:
    """Ask with a key of a role."""
    return Asked(api, KEYS[role])
