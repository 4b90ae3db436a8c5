"""Builders and independent holdout models that several tests share."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys.data.epoch import LAST_MS
from recsys.data.event import Event, EventType
from recsys.data.history import Entry, History
from recsys.data.vocabulary import Vocabulary
from recsys.model.boosts import NO_WEIGHTS, BoostWeights
from recsys.model.factor_model import FactorModel
from recsys.storage.artifact import Draft

NOON_MS = 1_795_348_800_000
"""2026-11-22T12:00:00Z."""
NOON_S = NOON_MS // 1000


def make_event(
    user_id: str = "u",
    item_id: str | None = "a",
    quantity: float = 1.0,
    *,
    type_: EventType = EventType.PURCHASE,
    timestamp: int = NOON_MS,
    event_id: str | None = None,
    price: float | None = None,
) -> Event:
    return Event(
        user_id=user_id,
        item_id=item_id,
        quantity=quantity,
        type=type_,
        timestamp=timestamp,
        event_id=event_id,
        price=price,
    )


def make_return(user_id: str = "u", item_id: str = "a", quantity: float = 1.0, **other: str) -> Event:
    return make_event(user_id, item_id, quantity, type_=EventType.RETURN, event_id=other.get("event_id"))


def make_forget(user_id: str = "u", *, timestamp: int = NOON_MS) -> Event:
    return make_event(user_id, None, type_=EventType.FORGET, timestamp=timestamp)


def make_history(quantities: Mapping[str, float]) -> History:
    return History.of({item: Entry(round(quantity * 1e6), NOON_S, NOON_S, 1) for item, quantity in quantities.items()})


def item_ids(n_items: int) -> list[str]:
    return [f"item-{row:04d}" for row in range(n_items)]


def make_model(
    n_items: int = 40, factors: int = 6, *, seed: int = 0, alpha: float = 2.0, regularization: float = 3.0
) -> FactorModel:
    item_factors = np.random.default_rng(seed).normal(0.0, 0.5, (n_items, factors)).astype(np.float32)
    return FactorModel(
        version="20261122T101500Z-1a2b3c",
        items=Vocabulary(item_ids(n_items)),
        item_factors=item_factors,
        item_gram=dense_gram(item_factors),
        alpha=alpha,
        regularization=regularization,
    )


def make_draft(model: FactorModel, *, weights: BoostWeights = NO_WEIGHTS) -> Draft:
    return Draft(
        model,
        np.arange(len(model.items), dtype=np.int64),
        np.arange(len(model.items)) / 2,
        parameters={"iterations": 15, "seed": 7},
        counts={"users": 3, "items": len(model.items), "events": 99, "pairs": 50},
        weights=weights,
    )


def dense_gram(item_factors: NDArray[np.float32]) -> NDArray[np.float32]:
    """YᵀY as a sum of outer products."""
    wide = item_factors.astype(np.float64)
    total = sum((np.outer(row, row) for row in wide), np.zeros((wide.shape[1], wide.shape[1])))
    return np.asarray(total, dtype=np.float32)


def dense_user_factors(
    item_factors: NDArray[np.float32], confidences: Mapping[int, float], regularization: float
) -> NDArray[np.float64]:
    """Minimize Σ_i c_i (p_i − x·y_i)² + λ‖x‖² for one user, over all items, with the full diagonal matrix C."""
    wide = item_factors.astype(np.float64)
    weights, preferences = np.ones(len(wide)), np.zeros(len(wide))
    for row, confidence in confidences.items():
        weights[row], preferences[row] = confidence, 1.0
    left = wide.T @ np.diag(weights) @ wide + regularization * np.eye(wide.shape[1])
    return np.asarray(np.linalg.solve(left, wide.T @ np.diag(weights) @ preferences), dtype=np.float64)


def best_rows(scores: Sequence[float], excluded: set[int], n: int) -> list[int]:
    """Sort everything: best first, equal scores by row."""
    return sorted((row for row in range(len(scores)) if row not in excluded), key=lambda row: (-scores[row], row))[:n]


def texts(max_size: int) -> st.SearchStrategy[str]:
    """Text without control characters and lone surrogates."""
    return st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=max_size)


@st.composite
def events(draw: st.DrawFn) -> Event:
    """Any valid event."""
    type_ = draw(st.sampled_from(EventType))
    return make_event(
        draw(texts(256)),
        None if type_ is EventType.FORGET else draw(texts(256)),
        1.0 if type_ is EventType.FORGET else draw(st.floats(0.0, 1e6, exclude_min=True)),
        type_=type_,
        timestamp=draw(st.integers(0, LAST_MS)),
        event_id=draw(st.none() | texts(128)),
        price=draw(st.none() | st.floats(0.0, allow_infinity=False)),
    )


def give_to_another_user(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a file belong to another user than this process: in fact where that may be done, else in its view."""
    another = os.geteuid() + 4242
    if os.geteuid() == 0:
        os.chown(path, another, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: another)
