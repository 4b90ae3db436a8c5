from __future__ import annotations

import math
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.event_log import EventLog
from recsys.evaluation.baselines import baselines
from recsys.evaluation.compare import ALL, NEW, compare
from recsys.evaluation.metrics import NOBODY, coverage, intervals, novelty, user_metrics
from recsys.evaluation.split import EVERYBODY, NEWCOMERS, RelevantItems, Split, split_by_time
from recsys.training.engine import InMemoryEngine
from tests.builders import NOON_S
from tests.shops import habitual_shop

HOUR_S, DAY_S = 3600, 86_400
Purchase = tuple[str, str, int, int]
"""User, item, units in millionths, seconds."""


def log(purchases: list[Purchase]) -> EventLog:
    users = sorted({user for user, *_ in purchases}, reverse=True)
    items = sorted({item for _, item, *_ in purchases}, reverse=True)
    return EventLog(
        users,
        np.array([users.index(user) for user, *_ in purchases], np.int32),
        items,
        np.array([items.index(item) for _, item, *_ in purchases], np.int32),
        np.array([units for _, _, units, _ in purchases], np.int64),
        np.array([second for *_, second in purchases], np.int64),
    )


def bought(split: Split, wanted: RelevantItems) -> list[set[str]]:
    found: list[set[str]] = [set() for _ in range(split.n_users)]
    for key in wanted.keys.tolist():
        user, row = divmod(key, wanted.n_items)
        found[user].add(split.items.ids[row])
    assert [len(items) for items in found] == wanted.sizes.tolist()
    return found


def owned_by(split: Split) -> list[set[str]]:
    bounds = split.owned.starts.tolist()
    return [{split.items.ids[row] for row in split.owned.rows[first:last].tolist()} for first, last in pairwise(bounds)]


ONE = 10**6
purchases = st.lists(
    st.tuples(
        st.sampled_from("uvwxyz"),
        st.sampled_from("abcdef"),
        st.sampled_from([ONE, 2 * ONE, -ONE]),
        st.integers(0, 20).map(lambda half_hours: half_hours * 1800),
    ),
    min_size=1,
    max_size=40,
)


@given(purchases, st.integers(0, 21).map(lambda half_hours: half_hours * 1800))
@settings(deadline=None)
def test_a_split_knows_at_the_cut_what_had_been_bought_and_asks_for_what_came_after(
    made: list[Purchase], cut_s: int
) -> None:
    split = split_by_time(log(made), cut_s=cut_s)

    def owned_of(chosen: list[Purchase]) -> dict[str, set[str]]:
        totals: dict[tuple[str, str], int] = defaultdict(int)
        for user, item, units, _ in chosen:
            totals[user, item] += units
        owned: dict[str, set[str]] = defaultdict(set)
        for (user, item), units in totals.items():
            if units > 0:
                owned[user].add(item)
        return owned

    before = [one for one in made if one[3] < cut_s]
    after = [one for one in made if one[3] >= cut_s and one[2] > 0]
    known_users = {user for user, *_ in before}
    catalogue = set().union(*owned_of(before).values())
    first_s = {user: min(second for other, _, _, second in after if other == user) for user, *_ in after}
    first_hour = [one for one in after if one[0] not in known_users and one[3] < first_s[one[0]] + HOUR_S]
    histories = owned_of(before + first_hour)
    expected = set()
    for user in {user for user, *_ in made}:
        owned = histories[user] & catalogue
        later = {item for other, item, _, second in after if other == user} & catalogue
        if user not in known_users:
            later = {
                item
                for other, item, _, second in after
                if other == user and second >= first_s[user] + HOUR_S and item in catalogue
            }
        if owned and later:
            expected.add((user in known_users, frozenset(owned), frozenset(later), frozenset(later - owned)))
    found = zip(
        (~split.newcomers).tolist(), owned_by(split), bought(split, split.everything), bought(split, split.new),
        strict=True,
    )  # fmt: skip
    assert {(old, frozenset(o), frozenset(e), frozenset(n)) for old, o, e, n in found} == expected
    assert list(split.items.ids) == sorted(catalogue)


def test_segments_are_by_what_was_owned_and_newcomers_are_apart() -> None:
    made = [("few", "a", ONE, 0), *((("many", f"i{k}", ONE, 0)) for k in range(21))]
    made += [("few", "i3", ONE, DAY_S), ("many", "a", ONE, DAY_S), ("many", "i0", ONE, DAY_S)]
    made += [("late", "a", ONE, DAY_S), ("late", "i1", ONE, DAY_S + 60), ("late", "i2", ONE, 3 * DAY_S)]
    split = split_by_time(log(made), cut_s=DAY_S)
    sizes = split.owned.sizes
    assert sorted(sizes.tolist()) == [1, 2, 21]
    assert sizes[split.segment("1–5 items")].tolist() == [1]
    assert sizes[split.segment("21+ items")].tolist() == [21]
    assert not split.segment("6–20 items").any()
    assert sizes[split.segment(NEWCOMERS)].tolist() == [2]
    assert sorted(sizes[split.segment("all users")].tolist()) == [1, 21]


def test_what_comes_after_the_end_is_not_asked_for() -> None:
    made = [("u", "a", ONE, 0), ("v", "b", ONE, 0), ("u", "b", ONE, DAY_S), ("v", "a", ONE, 9 * DAY_S)]
    assert split_by_time(log(made), cut_s=DAY_S).n_users == 2
    assert split_by_time(log(made), cut_s=DAY_S, end_s=2 * DAY_S).n_users == 1


@given(st.integers(1, 8), st.integers(1, 30), st.integers(1, 25), st.integers(0, 2**32))
@settings(deadline=None)
def test_metrics_are_those_of_the_definitions(n_users: int, n_items: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lists = np.full((n_users, n), -1)
    for user in range(n_users):
        length = int(rng.integers(0, min(n, n_items) + 1))
        lists[user, :length] = rng.choice(n_items, length, replace=False)
    truth = [set(np.flatnonzero(rng.random(n_items) < 0.2).tolist()) for _ in range(n_users)]
    pairs = [(user, row) for user, rows in enumerate(truth) for row in rows for _ in range(2)]
    users, rows = np.array(pairs, np.int64).reshape(-1, 2).T
    wanted = RelevantItems.of_pairs(users, rows, n_users, n_items)
    found = user_metrics(lists, wanted, n=n)
    assert found.users.tolist() == [user for user in range(n_users) if truth[user]]
    for place, user in enumerate(found.users.tolist()):
        listed = [row for row in lists[user].tolist() if row >= 0]
        hits = [row in truth[user] for row in listed]
        best = min(n, len(truth[user]))
        gain = sum(1 / math.log2(at + 2) for at, hit in enumerate(hits) if hit)
        ideal = sum(1 / math.log2(at + 2) for at in range(best))
        assert found.recall[place] == pytest.approx(sum(hits) / best)
        assert found.ndcg[place] == pytest.approx(gain / ideal)
        assert found.hit[place] == float(any(hits))
    listed_rows = lists[lists >= 0]
    assert coverage(lists, n=n, n_items=n_items) == pytest.approx(len(set(listed_rows.tolist())) / n_items)
    buyers = rng.integers(1, 50, n_items)
    surprise = [-math.log2(buyers[row] / 50) for row in listed_rows.tolist()]
    assert novelty(lists, buyers, n=n, n_users=50) == pytest.approx(np.mean(surprise) if surprise else 0.0)


def test_an_interval_holds_the_mean_and_is_as_wide_as_the_theory_says() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 10_000)
    (found,) = intervals(values[:, None])
    assert found.low < found.mean < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * 2.0 / 100, rel=0.15)
    assert [found] == intervals(values[:, None])
    assert found.users == 10_000


def test_only_what_counts_is_in_an_interval() -> None:
    values = np.array([[1.0, 5.0], [3.0, 7.0], [100.0, 9.0]])
    counted = np.array([[True, False], [True, False], [False, False]])
    first, nobody = intervals(values, counted)
    assert (first.mean, first.users) == (2.0, 2)
    assert 1.0 <= first.low <= first.high <= 3.0
    assert nobody == NOBODY
    assert NOBODY.users == 0


def test_columns_share_their_resamples() -> None:
    values = np.random.default_rng(0).normal(size=(5_000, 1))
    one, two = intervals(np.column_stack((values, values + 1)))
    assert (two.low - one.low, two.high - one.high) == pytest.approx((1, 1), abs=1e-3)


def test_a_comparison_judges_every_column_length_and_segment() -> None:
    shop = habitual_shop(seed=0, n_users=80)
    cut_s = NOON_S - 20 * DAY_S
    split = split_by_time(shop, cut_s=cut_s)
    calls: list[None] = []
    scores = compare(split, baselines(split, shop, n=20), on_recommender=lambda: calls.append(None))
    assert len(calls) == 4
    found = {(score.recommender, score.column, score.n, score.segment): score for score in scores}
    assert len(found) == len(scores) == (3 * 2 + 1) * 2 * 5  # own frequency lists nothing new
    best = found["own frequency", "all", 10, "all users"]
    lists = baselines(split, shop, n=20)["own frequency"](True)
    assert lists is not None
    by_hand = user_metrics(lists, split.everything, n=10)
    old = ~split.newcomers[by_hand.users]
    assert best.ndcg.mean == pytest.approx(by_hand.ndcg[old].mean())
    assert best.hit_rate.mean == pytest.approx(by_hand.hit[old].mean())
    assert best.ndcg.users == old.sum()
    assert best.ndcg.low < best.ndcg.mean < best.ndcg.high
    assert best.ndcg.mean > 2 * found["popular", "all", 10, "all users"].ndcg.mean  # it is a shop of habits


def test_the_lead_is_that_of_the_same_users() -> None:
    shop = habitual_shop(seed=0, n_users=80)
    split = split_by_time(shop, cut_s=NOON_S - 20 * DAY_S)
    made = baselines(split, shop, n=20)
    scores = compare(split, {**made, "again": made["popular"]}, lengths=(20,), judged="popular")
    for row in scores:
        if row.recommender == "popular" or (row.recommender, row.column) == ("own frequency", NEW):
            assert row.lead is None
            continue
        lists, ours = made.get(row.recommender, made["popular"])(row.column == ALL), made["popular"](row.column == ALL)
        assert lists is not None
        assert ours is not None
        wanted = split.new if row.column == NEW else split.everything
        kept = split.segment(row.segment)[np.flatnonzero(wanted.sizes)]
        difference = (user_metrics(ours, wanted, n=20).ndcg - user_metrics(lists, wanted, n=20).ndcg)[kept]
        (alone,) = intervals(difference[:, None])
        assert row.lead is not None
        assert row.lead.users == row.ndcg.users == len(difference)
        assert row.lead.mean == pytest.approx(alone.mean)
        if row.recommender == "again":
            assert (row.lead.low, row.lead.mean, row.lead.high) == (0, 0, 0)
        elif row.segment == EVERYBODY:
            assert (row.lead.high - row.lead.low) == pytest.approx(alone.high - alone.low, rel=0.25)
    assert all(row.lead is None for row in compare(split, {"popular": made["popular"]}, lengths=(20,)))


def test_a_comparison_of_nobody_has_no_numbers() -> None:
    split = split_by_time(log([("u", "a", ONE, NOON_S)]), cut_s=NOON_S)
    assert all(score.ndcg.users == 0 for score in compare(split, {"none": lambda _: np.empty((0, 20), np.int64)}))


def test_nothing_known_before_the_cut_leaves_nobody_to_judge() -> None:
    split = split_by_time(log([("u", "a", ONE, NOON_S)]), cut_s=NOON_S)
    assert split.n_users == 0
    assert len(split.items) == 0
    assert not user_metrics(np.empty((0, 5), np.int64), split.new, n=5).users.size


def test_an_engine_leaves_out_what_lies_in_the_future() -> None:
    events = EventLog(
        ["u", "v"],
        np.array([0, 1, 0, 1], np.int32),
        ["a"],
        np.zeros(4, np.int32),
        np.full(4, 10**6),
        np.array([10, 10, 20, 10**11]),
    )
    split = InMemoryEngine(events).split(15, end_s=21)
    assert split.n_users == 1
    assert split.everything.sizes.tolist() == [1]
    assert InMemoryEngine(events).split(15, end_s=10**12).n_users == 2
