"""The last look at a model before it goes live.

The gate judges a candidate that has not seen the hold-out, so it says nothing of what came in since. What is published
is looked at here: beside what was live before, may it really take its place?
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import Interactions
from recsys.errors import DataDirError, InvalidModel
from recsys.evaluation.baselines import lists_of
from recsys.evaluation.gate_record import Decision, GateRecord
from recsys.logger import logger
from recsys.model.factor_model import FactorModel
from recsys.recommend.item_lists import by_popularity
from recsys.settings import Settings
from recsys.storage.models import ModelStore
from recsys.training.engine import Engine
from recsys.training.fit import Fitted

log = logger(__name__)
USERS: Final = 1_000
"""How many are drawn."""
PLACES: Final = 10
MOST_FILLED: Final = 0.7
LEAST_KEPT: Final = 0.05
MOST_NEWLY_POPULAR: Final = 5
"""Bounds; docs/quality.md has what honest rounds come to."""
KNOWN_AS_POPULAR: Final = 100
LEAST_ITEMS: Final = 10 * PLACES
LEAST_USERS: Final = 50
"""With fewer items every list holds much of the catalogue, and with fewer users shares mean little."""


@dataclass(frozen=True, eq=False)
class Shown:
    """A model, and what decides its popular list.

    Attributes
    ----------
    model : FactorModel
    popularity : float64, (n_items,)
    """

    model: FactorModel
    popularity: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Change:
    """How far lists differ from those before.

    Attributes
    ----------
    users : int
        Who have a list of both models.
    filled : float
        Share of the lists whose first places one item newly holds: the item of which there are most. Items that were
        among the most popular ones before do not count.
    item : str
        That item.
    kept : float
        Share of the first places that hold what they held before, in any order.
    newly_popular : int
        First places of the popular list whose items were not among the most popular ones before.
    """

    users: int
    filled: float
    item: str
    kept: float
    newly_popular: int


def _shown_before(models: ModelStore, live: str, candidate: Fitted | None) -> Shown | None:
    """Return the live model, or what was judged if that cannot be loaded; None before the first model."""
    if not live:
        return None
    try:
        _, manifest_sha256 = models.address(live)
        return Shown(
            models.load(live, manifest_sha256=manifest_sha256), models.popularity(live, manifest_sha256=manifest_sha256)
        )
    except (InvalidModel, DataDirError, FileNotFoundError) as error:
        beside = "nothing" if candidate is None else "the model that the gate has judged"
        log.warning(
            "live_model_unreadable",
            "the live model cannot be read, so lists of the new one are compared with those of {beside}: {error}",
            beside=beside,
            error=error,
        )
    return None if candidate is None else Shown(candidate.model, candidate.popularity)


def refused(gate: GateRecord, reasons: list[str]) -> GateRecord:
    """Return the gate's record with these reasons against publishing."""
    return gate.model_copy(update={"decision": Decision.REJECTED, "reasons": [*gate.reasons, *reasons]})


def look(
    models: ModelStore,
    live: str,
    candidate: Fitted | None,
    fitted: Fitted,
    engine: Engine,
    settings: Settings,
    *,
    hidden: Collection[str],
) -> list[str]:
    """Say why a model may not take the place of the live version; empty if it may.

    Parameters
    ----------
    live : str
        Empty if there is none.
    candidate : Fitted or None
        What the gate has judged.
    fitted : Fitted
        What would be published.
    hidden : collection of str
        Items that are in no list, whatever the model.
    """
    before = _shown_before(models, live, candidate)
    if before is None:
        return []
    after = Shown(fitted.model, fitted.popularity)
    sample = engine.sample(USERS, seed=settings.model.seed)
    found = change(before, after, sample, include_purchased=settings.ranking.include_purchased, hidden=hidden)
    log.info(
        "lists_compared",
        "of the first {places} places of {users} lists {kept_percent:.0f}% stay; {filled_percent:.1f}% of the "
        "lists newly hold item {item}",
        places=PLACES,
        users=found.users,
        kept_percent=100 * found.kept,
        filled_percent=100 * found.filled,
        item=found.item,
    )
    return reasons_against(found, before, after)


def change(
    before: Shown,
    after: Shown,
    sample: Interactions,
    *,
    include_purchased: bool,
    hidden: Collection[str] = frozenset(),
) -> Change:
    """Compare the first places of the same users' lists, and of the popular list.

    Parameters
    ----------
    before, after : Shown
    sample : Interactions
        What some users own.
    include_purchased : bool
        Whether lists hold owned items, as they are published.
    hidden : collection of str
        Items that are in no list, neither before nor after.
    """
    items = after.model.items
    row_of = items.find(before.model.items.ids)
    earlier, later = (
        lists_of(
            shown.model,
            sample.items,
            sample.owned,
            n=PLACES,
            include_purchased=include_purchased,
            hidden=_rows(shown, hidden),
        )
        for shown in (before, after)
    )
    both = (earlier >= 0).any(axis=1) & (later >= 0).any(axis=1)
    earlier, later = np.where(earlier >= 0, row_of[earlier], -1)[both], later[both]
    new = (later >= 0) & ~(later[:, :, None] == earlier[:, None, :]).any(axis=2)
    known = row_of[_best(before, KNOWN_AS_POPULAR, hidden)]
    filling = later[new & ~np.isin(later, known)]
    counts = np.bincount(filling, minlength=len(items))
    most, users = int(np.argmax(counts)), len(later)
    listed = int((later >= 0).sum())
    popular = _best(after, PLACES, hidden)
    return Change(
        users=users,
        filled=float(counts[most] / users) if users else 0.0,
        item=items.ids[most],
        kept=float(1 - new.sum() / listed) if listed else 1.0,
        newly_popular=int((~np.isin(popular, known)).sum()),
    )


def reasons_against(found: Change, before: Shown, after: Shown) -> list[str]:
    """Say why a model may not take the other's place; empty if it may."""
    if min(len(before.model.items), len(after.model.items)) < LEAST_ITEMS or found.users < LEAST_USERS:
        return []
    reasons = []
    if found.filled > MOST_FILLED:
        reasons.append(
            f"item {found.item} would newly be among the first {PLACES} of {found.filled:.0%} of the lists "
            f"({MOST_FILLED:.0%} is the most): who bought it?"
        )
    if found.kept < LEAST_KEPT:
        reasons.append(f"only {found.kept:.1%} of the first {PLACES} of the lists would stay ({LEAST_KEPT:.0%} must)")
    if found.newly_popular > MOST_NEWLY_POPULAR:
        reasons.append(
            f"{found.newly_popular} of the {PLACES} most popular items would be ones that were not among the "
            f"{KNOWN_AS_POPULAR} most popular before ({MOST_NEWLY_POPULAR} may)"
        )
    return reasons


def _rows(shown: Shown, hidden: Collection[str]) -> NDArray[np.int64]:
    rows = shown.model.items.find(hidden)
    return rows[rows >= 0]


def _best(shown: Shown, n: int, hidden: Collection[str]) -> NDArray[np.int64]:
    """Return the rows of the first items of the popular list."""
    rows = by_popularity(shown.popularity)
    return rows[~np.isin(rows, _rows(shown, hidden))][:n]
