"""A small shop with planted tastes, and an independent plain-numpy computation of its lists."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.redis import Store

TASTES, ITEMS_PER_TASTE, USERS_PER_TASTE = 4, 20, 25


def item_name(taste: int, number: int) -> str:
    return f"sku-{taste}-{number:02d}"


def write_history(path: Path, *, seed: int = 7) -> list[dict[str, Any]]:
    """Write a CSV history in which each user buys within one taste; return its rows."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for user in range(TASTES * USERS_PER_TASTE):
        taste = user % TASTES
        for number in rng.choice(ITEMS_PER_TASTE, size=8, replace=False).tolist():
            rows.append(
                {
                    "user_id": f"user-{user}",
                    "item_id": item_name(taste, number),
                    "quantity": int(rng.integers(1, 4)),
                    "timestamp": f"2026-10-{1 + len(rows) % 28:02d}T08:00:00Z",
                }
            )
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return rows


class LiveArtifact:
    """The live model as anyone could read it: files and JSON, nothing of the product's code."""

    def __init__(self, store: Store) -> None:
        client: Any = store.connection.client
        pointer = json.loads(client.get(store.pointer._keys.model))
        folder = Path(pointer["uri"])
        manifest = (folder / "manifest.json").read_bytes()
        assert hashlib.sha256(manifest).hexdigest() == pointer["manifest_sha256"]
        self.manifest = json.loads(manifest)
        self.version = pointer["version"]
        self.factors: NDArray[np.float64] = np.load(folder / "item_factors.npy").astype(np.float64)
        self.items: list[str] = pq.read_table(folder / "items.parquet")["item_id"].to_pylist()

    def scores(self, owned: dict[str, float]) -> NDArray[np.float64]:
        """Solve the user half-step densely and return the scores of all items."""
        n_items, n_factors = self.factors.shape
        preferences, confidences = np.zeros(n_items), np.ones(n_items)
        for item, quantity in owned.items():
            if item in self.items:
                row = self.items.index(item)
                preferences[row] = 1.0
                confidences[row] = 1.0 + self.manifest["alpha"] * np.log2(1.0 + quantity)
        weighted = self.factors.T * confidences
        ridge = self.manifest["regularization"] * np.eye(n_factors)
        return self.factors @ np.linalg.solve(weighted @ self.factors + ridge, weighted @ preferences)

    def check_list(self, published: dict[str, Any], owned: dict[str, float], n: int) -> None:
        """Assert that a list is exactly the best n items not owned, in order, with scores to 1e-4."""
        scores = self.scores(owned)
        expected = [
            (item, score)
            for score, item in sorted(zip((-scores).tolist(), self.items, strict=True))
            if item not in owned
        ][:n]
        assert [entry["item_id"] for entry in published["items"]] == [item for item, _ in expected]
        np.testing.assert_allclose(
            [entry["score"] for entry in published["items"]], [-score for _, score in expected], atol=1e-4
        )


def owned_by(store: Store, user: str) -> dict[str, float]:
    """Read a user's owned items straight from the hash of the contract."""
    client: Any = store.connection.client
    fields = client.hgetall(store.users._keys.history(user))
    quantities = {item.decode(): float(value.split(b"|")[0]) for item, value in fields.items()}
    return {item: quantity for item, quantity in quantities.items() if quantity > 0}


def event_json(user: str, item: str, **fields: Any) -> bytes:
    """Return a purchase as a producer would write it."""
    return json.dumps({"user_id": user, "item_id": item, **fields}).encode()


def list_of(store: Store, user: str) -> dict[str, Any] | None:
    """Read a user's list as an app does."""
    return store.users.lists([user])[0]
