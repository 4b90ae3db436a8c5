"""Is the product good at what it is for? `make quality`, with DATA= for UCI Online Retail; the table says what holds.

Complete Journey comes with the demo extra. Online Retail is a Parquet file of its clean lines with user_id, item_id,
quantity and timestamp. Everything goes the product's own way: recsys import, recsys tune, python -m trainer --once,
recsys evaluate, on what was bought before a cut; what came afterwards is only judged by.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.quality_document import write_document
from benchmarks.results import Measured, keep, print_table, report
from recsys.data.event_log import EventLog
from recsys.data.interactions import Interactions
from recsys.data.owned_items import Owned
from recsys.data.vocabulary import Vocabulary
from recsys.demo import purchases
from recsys.demo.services import redis_server
from recsys.evaluation.baselines import of_model, of_scores
from recsys.evaluation.compare import ALL, NEW
from recsys.evaluation.gate_record import Decision
from recsys.evaluation.metrics import intervals, user_metrics
from recsys.evaluation.split import EVERYBODY, SEGMENTS, RelevantItems, Split, split_by_time
from recsys.kafka.embedded import embedded_broker
from recsys.model.factor_model import FactorModel
from recsys.operations.evaluate import MODEL, Evaluation, evaluate_model
from recsys.training.fit import fit_model
from recsys.training.parameters import Parameters
from trainer.gate import LiveComparison, judge

TRIALS, SEEDS = 40, 20
DOCS = Path(__file__).parent.parent / "docs"
GATED = Parameters(
    factors=48, alpha=1.0, regularization=20.0, half_life_days=0, repeat_weight=0, iterations=10, seed=0,
    boost_window_days=30,
)  # fmt: skip
"""What models are fitted with where nothing is tuned."""
_WRONG_ALPHA = 100.0
_HOLDOUT_DAYS, _STREAMED_DAYS, _FOLDS = 7, 60, 5
_DAY_S = 24 * 3600


@dataclass(frozen=True)
class Shop:
    """A data set, and what is expected of it.

    Attributes
    ----------
    purchases : DataFrame
        user_id, item_id, quantity, timestamp.
    cut : str
        Day from which on purchases are judged by.
    new, everything : float
        Bars for NDCG@20.
    """

    name: str
    purchases: pd.DataFrame
    cut: str
    new: float
    everything: float


def complete_journey(*, least_buyers: int = 20) -> Shop:
    """Return Complete Journey, with the items that had so many buyers before December."""
    frame, _ = purchases.load()
    frame = frame[frame["quantity"] > 0][["household_id", "product_id", "quantity", "transaction_timestamp"]]
    frame = frame.set_axis(["user_id", "item_id", "quantity", "timestamp"], axis=1)
    before = frame[frame["timestamp"] < "2017-12-01"].drop_duplicates(["user_id", "item_id"])
    buyers = before["item_id"].value_counts()
    kept = frame[frame["item_id"].isin(buyers.index[buyers >= least_buyers])]
    return Shop("Complete Journey", kept, "2017-12-01", new=0.051, everything=0.378)


def online_retail(file: Path) -> Shop:
    """Return Online Retail from a file."""
    frame = pd.read_parquet(file, columns=["user_id", "item_id", "quantity", "timestamp"])
    return Shop("Online Retail", frame, "2011-11-09", new=0.135, everything=0.365)


def measure_lists(shop: Shop, *, trials: int) -> list[Measured]:
    """Import, tune, train and evaluate; return what was found."""
    with installation() as folder:
        shop.purchases[shop.purchases["timestamp"] < shop.cut].to_parquet(folder / "before.parquet", index=False)
        shop.purchases.to_parquet(folder / "all.parquet", index=False)
        run(folder, "recsys", "import", "before.parquet")
        run(folder, "recsys", "tune", "--trials", str(trials))
        run(folder, "trainer", "--once")
        found = Evaluation.model_validate_json(
            run(folder, "recsys", "evaluate", "--data", "all.parquet", "--since", shop.cut, "--json")
        )
        tuned = json.loads((folder / "data" / "tuned.json").read_text())
    case = f"{shop.name}, from {shop.cut}"

    def ndcg(name: str, column: str) -> float:
        score = found.score(name, EVERYBODY, column, 20)
        return 0.0 if score is None else score.ndcg.mean

    parameters = ", ".join(f"{name} {value:.3g}" for name, value in tuned["parameters"].items())
    print(f"tuned: {parameters}", flush=True)
    return [
        Measured("quality", case, "NDCG@20, new to the user", ndcg(MODEL, NEW), "", at_least=shop.new),
        Measured("quality", case, "the same, popular", ndcg("popular", NEW), ""),
        Measured("quality", case, "the same, item-kNN", ndcg("item-kNN", NEW), ""),
        Measured("quality", case, "NDCG@20, all items", ndcg(MODEL, ALL), "", at_least=shop.everything),
        Measured("quality", case, "the same, own frequency", ndcg("own frequency", ALL), ""),
    ]


@contextmanager
def installation() -> Iterator[Path]:
    """Yield an empty folder in which `run` finds Kafka and Redis."""
    before = dict(os.environ)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recsys-quality-")))
        topics = ("purchases", "purchases.dlq")
        environment: Mapping[str, str] = {
            "RECSYS_KAFKA__BOOTSTRAP_SERVERS": stack.enter_context(embedded_broker(*topics)),
            "RECSYS_REDIS__URL": stack.enter_context(redis_server(folder)),
            "RECSYS_DATA_DIR": str(folder / "data"),
        }
        os.environ.update(environment)
        try:
            yield folder
        finally:
            os.environ.clear()
            os.environ.update(before)


def run(folder: Path, *arguments: str) -> str:
    """Run `python -m …` and return what it printed."""
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def measure_gate(shop: Shop, *, seeds: int) -> list[Measured]:
    """Plant regressions, and models that are as good, with every seed; count what the gate says."""
    events = events_of(shop)
    newest_s = int(events.seconds.max())
    cut_s = newest_s - _HOLDOUT_DAYS * _DAY_S
    split = split_by_time(events, cut_s=cut_s)
    found: dict[str, list[bool]] = defaultdict(list)

    def passes(candidate: FactorModel, live: FactorModel, known: EventLog, judged: Split) -> bool:
        compared = LiveComparison("live", len(events), live)
        return (
            judge(judged, len(known), candidate, compared, include_purchased=False, tolerance=0.02).decision
            is Decision.PUBLISHED
        )

    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        before = events.where(events.seconds < cut_s)
        live = fit_model(before, replace(GATED, seed=seed), reference_s=cut_s).model
        equal = fit_model(before, replace(GATED, seed=seed + 1000), reference_s=cut_s).model
        found["equal, another seed: passes"].append(passes(equal, live, events, split))
        order = rng.permutation(len(events.item_ids))
        shuffled = replace(before, item_ids=[events.item_ids[place] for place in order.tolist()])
        model = fit_model(shuffled, replace(GATED, seed=seed), reference_s=cut_s).model
        found["items shuffled: rejected"].append(not passes(model, live, events, split))
        model = fit_model(before, replace(GATED, seed=seed, alpha=_WRONG_ALPHA), reference_s=cut_s).model
        found[f"alpha {_WRONG_ALPHA:g}: rejected"].append(not passes(model, live, events, split))
        half = events.where(rng.random(len(events)) < 0.5)
        of_half = split_by_time(half, cut_s=cut_s)
        model = fit_model(half.where(half.seconds < cut_s), replace(GATED, seed=seed), reference_s=cut_s).model
        found["half of the events missing: rejected"].append(not passes(model, live, half, of_half))
    case = f"{shop.name}, gate, {seeds} seeds"
    return [
        Measured("quality", case, what, sum(said), "seeds", at_least=seeds if "rejected" in what else 0.9 * seeds)
        for what, said in found.items()
    ]


def measure_newcomers(shop: Shop) -> list[Measured]:
    """Fold in users whom no model has seen, with one to five purchases, beside the popular list.

    Every user is left out of one of five fits. Their first purchases after the cut are their history, and what they
    bought later and did not own by then is what their lists should have held.
    """
    events = events_of(shop)
    cut_s = int(pd.Timestamp(shop.cut, tz="UTC").timestamp())
    values: dict[int, list[NDArray[np.float64]]] = defaultdict(list)
    for before, after in folds(events, cut_s):
        fitted = fit_model(before, GATED, reference_s=cut_s)
        for purchases_made in range(1, 6):
            _, owned, wanted = newcomers(after, fitted.model.items, purchases_made)
            buyers = fitted.buyers.astype(np.float64)
            lists = (
                of_model(fitted.model, owned, n=20, include_purchased=False),
                of_scores(buyers, owned, n=20, include_purchased=False),
            )
            values[purchases_made].append(np.column_stack([user_metrics(one, wanted, n=20).ndcg for one in lists]))
    case = f"{shop.name}, users whom no model has seen, NDCG@20 of items new to them"
    found = []
    for purchases_made, parts in values.items():
        ours, popular = intervals(np.concatenate(parts))
        what = f"{purchases_made} purchase{'s' if purchases_made > 1 else ''}, {ours.users:,} users"
        interval = f"({ours.low:.4f} to {ours.high:.4f}; popular {popular.low:.4f} to {popular.high:.4f})"
        found.append(Measured("quality", case, f"{what} {interval}", ours.mean, "", at_least=popular.mean))
        found.append(
            Measured(
                "quality",
                case,
                f"{what}: low end above the popular list's high end",
                ours.low - popular.high,
                "",
                at_least=0,
            )
        )
    return found


def folds(events: EventLog, cut_s: int) -> Iterator[tuple[EventLog, EventLog]]:
    """Yield the purchases before a cut without a fifth of the users, and those of this fifth after it."""
    for fold in range(_FOLDS):
        out = events.user_codes % _FOLDS == fold
        yield (
            events.where(~out & (events.seconds < cut_s)),
            events.where(out & (events.seconds >= cut_s) & (events.units > 0)),
        )


def newcomers(after: EventLog, items: Vocabulary, purchases_made: int) -> tuple[list[str], Owned, RelevantItems]:
    """Return users, what they own after their first purchases, and what they bought later and did not own by then.

    Left out is whoever bought nothing first, or later, that is among these items.
    """
    order = np.lexsort((after.seconds, after.user_codes))
    firsts = np.concatenate(([True], np.diff(after.user_codes[order]) != 0))
    starts = np.flatnonzero(firsts)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - starts[np.cumsum(firsts) - 1]
    rows = items.find(after.item_ids)[after.item_codes]
    history = after.where(rank < purchases_made).interactions()
    owned = history.owned.translated(items.find(history.items.ids))
    later = (rank >= purchases_made) & (rows >= 0)
    users = history.users.find(after.user_ids)[after.user_codes[later]]
    wanted = RelevantItems.of_pairs(users[users >= 0], rows[later][users >= 0], len(history.users), len(items)).without(
        owned
    )
    known = np.flatnonzero((owned.sizes > 0) & (wanted.sizes > 0))
    return [history.users.ids[row] for row in known.tolist()], owned.of(known), wanted.of(known)


def measure_streaming(shop: Shop, plot: Path) -> list[Measured]:
    """Compare, day by day over two months, lists that are refreshed at once with yesterday's.

    Judged by what those who bought something on a day buy in the week after it and did not own by then.
    """
    events = events_of(shop)
    last_s = int(events.seconds.max())
    first_s = last_s - _STREAMED_DAYS * _DAY_S
    before = events.where(events.seconds < first_s)
    model = fit_model(before, GATED, reference_s=first_s).model
    rows = model.items.find(events.item_ids)[events.item_codes]
    days: list[tuple[int, NDArray[np.int64], NDArray[np.float64]]] = []
    for day_s in range(first_s, last_s - _DAY_S, _DAY_S):
        today = (events.seconds >= day_s) & (events.seconds < day_s + _DAY_S) & (events.units > 0)
        later = (events.seconds >= day_s + _DAY_S) & (events.seconds < day_s + 8 * _DAY_S) & (events.units > 0)
        later &= rows >= 0
        now, yesterday = (events.where(events.seconds < end_s).interactions() for end_s in (day_s + _DAY_S, day_s))
        row_of = model.items.find(now.items.ids)
        owned_now = now.owned.translated(row_of)
        users = now.users.find(events.user_ids)
        wanted = RelevantItems.of_pairs(
            *_known(users[events.user_codes[later]], rows[later]), len(now.users), len(model.items)
        ).without(owned_now)
        owned_before = _aligned(yesterday, now, model)
        bought_today = np.zeros(len(now.users), np.bool_)
        of_today = users[events.user_codes[today]]
        bought_today[of_today[of_today >= 0]] = True
        chosen = np.flatnonzero(bought_today & (wanted.sizes > 0) & (owned_before.sizes > 0) & (owned_now.sizes > 0))
        if not len(chosen):
            continue
        hits = [
            user_metrics(of_model(model, owned.of(chosen), n=20, include_purchased=False), wanted.of(chosen), n=20).hit
            for owned in (owned_now, owned_before)
        ]
        days.append((day_s, owned_before.sizes[chosen].astype(np.int64), np.column_stack(hits)))
    _draw_streaming(shop.name, days, plot)
    case = f"{shop.name}, {_STREAMED_DAYS} days, hit rate@20 in the week after a basket"
    found = []
    sizes, hits = np.concatenate([day[1] for day in days]), np.concatenate([day[2] for day in days])
    for segment, (least, most) in SEGMENTS.items():
        of_segment = (sizes >= least) & (sizes <= (most or sizes.max()))
        if not of_segment.any():
            continue
        refreshed, stale = hits[of_segment].mean(axis=0)
        users = f"{of_segment.sum():,} users and days"
        bar = stale if segment == EVERYBODY else None  # the others may be a handful of users
        found.append(Measured("quality", case, f"{segment}, {users}: refreshed", refreshed, "", at_least=bar))
        found.append(Measured("quality", case, f"{segment}, {users}: yesterday's", stale, ""))
    return found


def _known(users: NDArray[np.integer], rows: NDArray[np.integer]) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    return users[users >= 0], rows[users >= 0]


def _aligned(earlier: Interactions, now: Interactions, model: FactorModel) -> Owned:
    """Return what users owned earlier, by the rows of a model, in the order of those of now."""
    owned = earlier.owned.translated(model.items.find(earlier.items.ids))
    places = earlier.users.find(now.users.ids)
    empty = len(owned)
    padded = Owned(np.append(owned.starts, owned.starts[-1]).astype(np.int32), owned.rows, owned.entries)
    return padded.of(np.where(places >= 0, places, empty))


def _draw_streaming(name: str, days: list[tuple[int, NDArray[np.int64], NDArray[np.float64]]], file: Path) -> None:
    from matplotlib.figure import Figure

    segments = {segment: bounds for segment, bounds in SEGMENTS.items() if segment != EVERYBODY}
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    for axes, (segment, (least, most)) in zip(
        figure.subplots(1, len(segments), sharey=True), segments.items(), strict=True
    ):
        for column, label in ((0, "refreshed at once"), (1, "yesterday's list")):
            points = []
            for at in range(len(days)):
                week = days[max(0, at - 6) : at + 1]
                sizes, hits = np.concatenate([day[1] for day in week]), np.concatenate([day[2] for day in week])
                of_segment = (sizes >= least) & (sizes <= (most or sizes.max()))
                points.append(hits[of_segment, column].mean() if of_segment.any() else np.nan)
            moments = pd.to_datetime([day[0] for day in days], unit="s")
            axes.plot(moments, points, label=label)
        axes.set_title(segment, fontsize=9)
        axes.tick_params(axis="x", labelrotation=45, labelsize=7)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("hit rate@20, mean of 7 days")
    figure.axes[0].legend(fontsize=8)
    figure.suptitle(name, fontsize=10)
    figure.savefig(file, dpi=110, metadata={"Software": None})


def measure_evaluation(*, n_users: int = 30_000, n_items: int = 40_000) -> list[Measured]:
    """Time what `recsys evaluate` does on a larger shop: a made-up one with Zipf's popularity."""
    rng = np.random.default_rng(0)
    n_events = 60 * n_users
    chances = 1 / np.arange(1, n_items + 1)
    events = EventLog(
        [f"user-{user}" for user in range(n_users)],
        rng.integers(0, n_users, n_events),
        [f"item-{item}" for item in range(n_items)],
        rng.choice(n_items, n_events, p=chances / chances.sum()),
        np.full(n_events, 10**6),
        rng.integers(0, 100 * _DAY_S, n_events),
    )
    cut_s = 80 * _DAY_S
    before = events.where(events.seconds < cut_s)
    model = fit_model(before, replace(GATED, iterations=2, factors=64), reference_s=cut_s - 1).model
    started = time.perf_counter()
    found = evaluate_model("made up", model, events, cut_s)
    seconds = time.perf_counter() - started
    case = f"recsys evaluate, {found.users:,} users, {found.items:,} items"
    return [Measured("quality", case, "model and four baselines, two columns, five segments", seconds, "s", at_most=60)]


def events_of(shop: Shop) -> EventLog:
    """Return a shop's purchases as events."""
    frame = shop.purchases
    user_codes, users = frame["user_id"].astype(str).factorize()
    item_codes, items = frame["item_id"].astype(str).factorize()
    stamps = pd.to_datetime(frame["timestamp"], utc=True).dt.tz_localize(None).astype("datetime64[s]")
    units = (frame["quantity"] * 1e6).round().to_numpy(dtype=np.int64)
    return EventLog(list(users), user_codes, list(items), item_codes, units, stamps.astype(np.int64).to_numpy())


def main() -> int:
    """Measure everything, write docs/quality.md, and return 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=(__doc__ or "").replace("`", ""))
    parser.add_argument("--data", type=Path, help="Online Retail as a Parquet file")
    parser.add_argument("--trials", type=int, default=TRIALS, help="of recsys tune")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of the gate")
    options = parser.parse_args()
    shops = [complete_journey()]
    if options.data is None:
        print("Online Retail is left out: name its file with DATA=", flush=True)
    else:
        shops.append(online_retail(options.data))
    found: list[Measured] = []
    for shop in shops:
        slug = shop.name.lower().replace(" ", "-")
        print(f"\n{shop.name}: lists", flush=True)
        lists = measure_lists(shop, trials=options.trials)
        newcomers = measure_newcomers(shop)
        streaming = measure_streaming(shop, DOCS / f"quality-{slug}.png")
        for part in (lists, newcomers, streaming, measure_gate(shop, seeds=options.seeds)):
            print_table(part)
            found += part
    timed = measure_evaluation()
    print_table(timed)
    found += timed
    keep("quality", found)
    write_document(found)
    return report([one for one in found if one.holds is False])


if __name__ == "__main__":
    sys.exit(main())
