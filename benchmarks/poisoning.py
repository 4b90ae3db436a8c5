"""How far can bots push an item, and at what cost? `make poisoning`, with DATA= for UCI Online Retail as well.

Bots buy an item that nobody knows, on the last day or on each of ten days. Measured is what becomes of it: the share of
the customers' lists that hold it among the first ten, and its place in the popular list. Once with the bounds of one
user's influence (`recsys.model.influence`), once without them. The last table has what honest rounds look like to the
last look before a model is published (`trainer.last_look`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.document import DOCS
from benchmarks.document import replace as replace_text
from benchmarks.quality import GATED, Shop, complete_journey, events_of, online_retail
from benchmarks.results import Measured, keep, print_table, report
from recsys.data.event_log import EventLog
from recsys.evaluation.baselines import lists_of
from recsys.model.influence import BOUNDED, UNBOUNDED
from recsys.recommend.item_lists import popular_items
from recsys.training.engine import InMemoryEngine
from recsys.training.fit import Fitted, fit_model
from trainer.last_look import MOST_FILLED, USERS, Change, Shown, change, reasons_against

PUSHED: Final = "an item that nobody knows"
EFFECTS: Final = ("lists that hold it in the first 10", "place in the popular list")
PLOT: Final = DOCS / "poisoning.png"
DOCUMENT: Final = DOCS / "quality.md"
_BEGIN, _END = "<!-- poisoning: written by make poisoning -->\n", "<!-- end of poisoning -->"
_DAY_S = 24 * 3600
_ROUNDS_DAYS = (84, 56, 28, 21, 14, 7, 0)
"""Before the end of the data: when honest rounds were. Some are a month apart, some a week."""


@dataclass(frozen=True, slots=True)
class Attack:
    """What bots do.

    Attributes
    ----------
    name : str
    accounts, purchases : int
        Purchases are those of each account.
    days : int
        On how many days they buy.
    mimics : bool
        Whether they buy the item once, and otherwise what others buy; else they buy nothing but the item.
    """

    name: str
    accounts: int
    purchases: int
    days: int = 1
    mimics: bool = False

    @property
    def cost(self) -> str:
        """What it takes."""
        accounts = f"{self.accounts:,} account{'s' if self.accounts > 1 else ''}"
        days = "one day" if self.days == 1 else f"{self.days} days"
        return f"{accounts}, {self.purchases:,} purchases each, {days}"


ONE, MANY, ALIKE, PATIENT = "one account", "the item alone", "like customers", "like customers, ten days"
ATTACKS: Final = (
    *(Attack(ONE, 1, purchases) for purchases in (100, 10_000)),
    *(Attack(MANY, accounts, 100) for accounts in (10, 100, 1_000)),
    *(Attack(ALIKE, accounts, 100, mimics=True) for accounts in (10, 100, 1_000)),
    *(Attack(PATIENT, accounts, 100, days=10, mimics=True) for accounts in (10, 100, 1_000)),
)
REQUIRED: Final = (ATTACKS[1], ATTACKS[3], ATTACKS[6])
"""One bot with 10,000 purchases and 100 with 100 each must push nothing into lists."""
_MOST_REACHED: Final = 0.005


def attacked(events: EventLog, attack: Attack, *, seed: int = 0) -> EventLog:
    """Return the events with those of the bots."""
    rng, n = np.random.default_rng(seed), attack.accounts * attack.purchases
    newest_s = int(events.seconds.max())
    items = np.zeros(n, np.int32)
    if attack.mimics:
        items = 1 + events.item_codes[rng.integers(0, len(events), n)].astype(np.int32)
        items[:: attack.purchases] = 0
    bots = EventLog(
        [f"bot-{bot}" for bot in range(attack.accounts)],
        np.repeat(np.arange(attack.accounts), attack.purchases).astype(np.int32),
        [PUSHED, *events.item_ids],
        items,
        np.full(n, 10**6),
        newest_s - rng.integers(0, attack.days, n) * _DAY_S - rng.integers(0, _DAY_S // 2, n),
    )
    return events.joined(bots)


def effect(fitted: Fitted, events: EventLog) -> tuple[float, float]:
    """Return the share of the customers' lists that hold the item in the first ten, and its place among popular ones.

    An item that is not in the model comes last.
    """
    items = fitted.model.items
    row = items.rows.get(PUSHED)
    if row is None:
        return 0.0, float(len(items) + 1)
    place = popular_items(items, fitted.popularity, n=len(items)).item_ids.index(PUSHED) + 1
    interactions = events.interactions()
    lists = lists_of(fitted.model, interactions.items, interactions.owned, n=10, include_purchased=False)
    customers = np.array([not user.startswith("bot-") for user in interactions.users.ids])
    return float((lists[customers] == row).any(axis=1).mean()), float(place)


def measure_attacks(shop: Shop) -> Iterator[tuple[Attack, str, tuple[float, float]]]:
    """Yield what each attack does, without bounds and with them.

    The learned weights are those of before: the gate has judged them on purchases that the bots' came after.
    """
    events = events_of(shop)
    reference_s = int(events.seconds.max())
    for name, bounds, parameters in (
        ("unbounded", UNBOUNDED, replace(GATED, min_buyers=0.0)),
        ("bounded", BOUNDED, GATED),
    ):
        weights = fit_model(events, parameters, reference_s=reference_s, bounds=bounds).weights
        for attack in ATTACKS:
            poisoned = attacked(events, attack)
            fitted = fit_model(poisoned, parameters, reference_s=reference_s, weights=weights, bounds=bounds)
            yield attack, name, effect(fitted, poisoned)


def as_measured(shop: Shop, attack: Attack, name: str, found: tuple[float, float]) -> list[Measured]:
    """Return numbers with the bars that they must clear."""
    case = f"{shop.name}, {name}: {attack.name}"
    guarded = name == "bounded" and attack in REQUIRED
    reached, place = found
    return [
        Measured(
            "poisoning", case, f"{attack.cost}: {EFFECTS[0]}", reached, "", at_most=_MOST_REACHED if guarded else None
        ),
        Measured("poisoning", case, f"{attack.cost}: {EFFECTS[1]}", place, "th", at_least=51 if guarded else None),
    ]


def measure_honest_rounds(shop: Shop) -> list[Measured]:
    """Compare models of honest rounds, weeks and a month apart, as the trainer does before it publishes one."""
    events = events_of(shop)
    newest_s, weights = int(events.seconds.max()), None
    sample = InMemoryEngine(events).sample(USERS, seed=0)
    fits: list[Fitted] = []
    for days in _ROUNDS_DAYS:
        reference_s = newest_s - days * _DAY_S
        fitted = fit_model(events.where(events.seconds <= reference_s), GATED, reference_s=reference_s, weights=weights)
        weights = fitted.weights
        fits.append(fitted)
    changes: list[Change] = []
    refused = 0
    for earlier, later in pairwise(fits):
        before, after = (Shown(one.model, one.popularity) for one in (earlier, later))
        for include_purchased in (False, True):
            changes.append(change(before, after, sample, include_purchased=include_purchased))
            refused += bool(reasons_against(changes[-1], before, after))
    case = f"{shop.name}, {len(fits) - 1} honest rounds, a week to a month apart"
    return [
        Measured("poisoning", case, "refused", refused, "rounds", at_most=0),
        Measured("poisoning", case, "most lists that one item newly fills", max(one.filled for one in changes), "",
                 at_most=MOST_FILLED),
        Measured("poisoning", case, "fewest first places that stay", min(one.kept for one in changes), ""),
        Measured("poisoning", case, "most newly popular items of 10", max(one.newly_popular for one in changes), ""),
    ]  # fmt: skip


def draw(found: dict[str, list[tuple[Attack, str, tuple[float, float]]]], file: Path) -> None:
    """Draw the effect against the cost, for each shop."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2 * len(found)), layout="constrained")
    axes = figure.subplots(len(found), 2, squeeze=False)
    colours = {ONE: "C3", MANY: "C1", ALIKE: "C0", PATIENT: "C2"}
    for row, (shop, attacks) in enumerate(found.items()):
        for column, label in enumerate(EFFECTS):
            panel = axes[row, column]
            for kind, colour in colours.items():
                for bounds, style in (("unbounded", ":"), ("bounded", "-")):
                    points = [
                        (attack.accounts * attack.purchases, values[column] * (100 if column == 0 else 1))
                        for attack, name, values in attacks
                        if (attack.name, name) == (kind, bounds)
                    ]
                    panel.plot(*zip(*points, strict=True), style, color=colour, marker="o", label=f"{kind}, {bounds}")
            panel.set(xscale="log", xlabel="purchases by bots (but for one account: 100 each)", title=shop)
            panel.set_ylabel(f"% of {label}" if column == 0 else label)
            panel.grid(alpha=0.3)
        axes[row, 1].set_yscale("log")
        axes[row, 1].invert_yaxis()
    axes[0, 0].legend(fontsize=7)
    figure.savefig(file, dpi=110, metadata={"Software": None})


def write_document(found: list[Measured]) -> None:
    """Replace the tables in docs/quality.md."""
    by_place = {(one.case, one.what): one for one in found}
    lines = [
        "| attack | lists, unbounded | bounded | popular place, unbounded | bounded | |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for shop in dict.fromkeys(one.case.partition(",")[0] for one in found):
        lines.append(f"| **{shop}** | | | | | |")
        for attack in ATTACKS:
            cells = [
                by_place[f"{shop}, {bounds}: {attack.name}", f"{attack.cost}: {effect}"]
                for effect in EFFECTS
                for bounds in ("unbounded", "bounded")
            ]
            shown = [f"{one.value:.1%}" for one in cells[:2]] + [f"{one.value:,.0f}" for one in cells[2:]]
            verdicts = {one.holds for one in cells} - {None}
            verdict = "" if not verdicts else "holds" if verdicts == {True} else "**missed**"
            lines.append(f"| {attack.name}: {attack.cost} | {' | '.join(shown)} | {verdict} |")
    lines += ["", "| honest rounds | | measured | bar |", "|---|---|---:|---|"]
    for one in (one for one in found if "honest" in one.case):
        lines.append(f"| {one.case} | {one.what} | {one.value:.3g} {one.unit} | {one.bar} |")
    replace_text(DOCUMENT, _BEGIN, _END, "\n".join(lines) + "\n")


def main() -> int:
    """Measure, draw, write docs/quality.md, and return 1 if a bar is missed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.poisoning", description=(__doc__ or "").replace("`", "")
    )
    parser.add_argument("--data", type=Path, help="Online Retail as a Parquet file")
    options = parser.parse_args()
    found: list[Measured] = []
    drawn: dict[str, list[tuple[Attack, str, tuple[float, float]]]] = {}
    for shop in [complete_journey()] + ([online_retail(options.data)] if options.data else []):
        drawn[shop.name] = list(measure_attacks(shop))
        parts = [as_measured(shop, *one) for one in drawn[shop.name]] + [measure_honest_rounds(shop)]
        of_shop = [one for part in parts for one in part]
        print_table(of_shop)
        found += of_shop
    draw(drawn, PLOT)
    keep("poisoning", found)
    write_document(found)
    return report([one for one in found if one.holds is False])


if __name__ == "__main__":
    sys.exit(main())
