"""The demo's parts that need no server: dates, samples, titles, hit rates, stories."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pandas as pd
import pytest

from recsys.demo import purchases
from recsys.demo.hit_rates import HitRates, OwnLists, Shown, shown_from, shown_from_popular
from recsys.demo.purchases import Basket, baskets, owned_products, year_until
from recsys.demo.stories import Stories, Story
from recsys.demo.titles import plain, title, with_titles

PRODUCTS = pd.DataFrame(
    {
        "product_id": [1, 2, 3],
        "department": ["GROCERY", "GROCERY", "PRODUCE"],
        "product_category": ["FLUID MILK PRODUCTS", "FLUID MILK PRODUCTS", None],
        "product_type": ["FLUID MILK WHITE ONLY", "FLUID MILK WHITE ONLY", None],
        "package_size": ["1 GA", "1 GA", "40 LB"],
    }
)


def transactions(households: int) -> pd.DataFrame:
    """Return a purchase of each household in each part of the year, the last one with quantity 0 as well."""
    rows = [
        (household, f"{moment:%m%d}{household}", product, quantity, 2.0, moment)
        for household in range(1, households + 1)
        for moment, product, quantity in (
            (pd.Timestamp("2017-05-05 10:00"), 1, 1),
            (pd.Timestamp("2017-12-31 20:00"), 2, 4),
            (pd.Timestamp("2017-12-31 20:00"), 3, 0),
        )
    ]
    columns = ["household_id", "basket_id", "product_id", "quantity", "sales_value", "transaction_timestamp"]
    return pd.DataFrame(rows, columns=columns)


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    frame = transactions(50)
    monkeypatch.setattr(purchases, "load", lambda: (frame, PRODUCTS))
    return frame


@pytest.mark.parametrize(
    ("now", "newest"),
    [
        (datetime(2026, 3, 4, 20, 0, tzinfo=UTC), "2026-03-04 20:00"),
        (datetime(2026, 3, 4, 19, 59, tzinfo=UTC), "2026-03-03 20:00"),
        (datetime(2024, 2, 29, 23, 0, tzinfo=UTC), "2024-02-29 20:00"),
    ],
)
def test_year_ends_within_the_last_day_and_never_in_the_future(data: pd.DataFrame, now: datetime, newest: str) -> None:
    year = year_until(now)
    assert year.live["transaction_timestamp"].max() == pd.Timestamp(newest)
    between = pd.Timestamp("2017-12-31 20:00") - pd.Timestamp("2017-05-05 10:00")
    assert year.history["transaction_timestamp"].max() == pd.Timestamp(newest) - between


def test_every_seventh_household_of_the_last_month_has_no_history(data: pd.DataFrame) -> None:
    year = year_until(datetime(2026, 1, 1, tzinfo=UTC))
    assert year.newcomers == {"4", "11", "18", "25", "32", "39", "46"}
    assert owned_products(year.history).keys() == {str(one) for one in range(1, 51)} - year.newcomers
    assert year.live["household_id"].nunique() == 50


def test_sample_is_the_same_each_time_and_has_the_household_of_the_readme(data: pd.DataFrame) -> None:
    first, second = (year_until(datetime(2026, 1, 1, tzinfo=UTC), households=10) for _ in range(2))
    assert first.households == 10
    assert first.live.equals(second.live)
    assert "42" in owned_products(first.history)
    assert year_until(datetime(2026, 1, 1, tzinfo=UTC), households=500).households == 50


def test_basket_has_a_record_for_each_line_and_the_items_of_valid_ones() -> None:
    (basket,) = [one for one in baskets(transactions(1)) if len(one.records) == 2]
    assert basket.items == ["2"]
    sold, empty = map(orjson.loads, basket.records)
    assert (sold["user_id"], sold["item_id"], sold["quantity"], sold["price"]) == ("1", "2", 4, 0.5)
    assert (empty["item_id"], empty["quantity"]) == ("3", 0)
    assert "price" not in empty


def test_every_product_that_was_sold_has_a_title_of_its_own() -> None:
    items = with_titles(PRODUCTS, pd.Series([2, 2, 1, 3, 99])).set_index("item_id")
    assert dict(items["title"]) == {
        "2": "Milk, 1 gallon", "1": "Milk, 1 gallon #2", "3": "Produce", "99": "Unnamed product"
    }  # fmt: skip
    assert items["category"]["99"] == "Other"


def test_titles_are_in_words() -> None:
    assert plain("FRZN SS PREMIUM ENTREES/DNRS/N") == "Frozen single-serve premium entrees/dinners/n"
    assert plain("PREP FD: SIDE DISHES (HOT)") == "Prepared food: side dishes"
    assert plain("SFT DRNK SNGL SRV BTL CARB (EX") == "Soft drink single serve bottle carb"
    assert title("LEAN", "BEEF", "MEAT", "") == "Lean (beef)"
    assert title("STRAWBERRIES", "BERRIES", "PRODUCE", "16 OZ") == "Strawberries"


def test_app_shows_what_to_buy_again_and_new_products_or_the_popular_ones() -> None:
    popular = shown_from_popular([str(number) for number in range(20)], {"0", "3"})
    assert popular.any == [str(number) for number in range(10)]
    assert popular.new == ["1", "2", "4", "5", "6", "7", "8", "9", "10", "11"]
    own = OwnLists(new=[f"n{number}" for number in range(50)], again=[f"a{number}" for number in range(7)])
    shown = shown_from(own, popular)
    assert shown.any == ["a0", "a1", "a2", "a3", "a4", "n0", "n1", "n2", "n3", "n4"]
    assert shown.new == [f"n{number}" for number in range(10)]
    assert shown_from(OwnLists(), popular) is popular


def test_hit_is_a_basket_that_holds_a_product_shown() -> None:
    rates = HitRates()
    shown = {"own": Shown(any=["a", "b"], new=["c"]), "popular": Shown(any=["x"], new=["x"])}
    rates.count({"a", "c"}, {"a"}, shown)
    rates.count({"a"}, {"a"}, shown)
    rates.count({"x", "y"}, set(), shown)
    assert (rates.baskets, rates.baskets_with_new) == (3, 2)
    assert (rates.any["own"], rates.new["own"]) == (2, 1)
    assert (rates.any["popular"], rates.new["popular"]) == (1, 1)


def story(known_items: int, before: list[str], after: list[str]) -> Story:
    return Story("7", known_items, ["a", "b"], OwnLists(before), OwnLists(after), 1.0)


def test_one_household_of_each_kind_is_told_of_whose_list_changes() -> None:
    stories = Stories()
    popular, basket = OwnLists(["a", "b", "c"]), Basket("7", ["a", "d"])
    assert stories.may_use(basket, 50, popular)
    assert not stories.may_use(Basket("7", ["d", "e"]), 50, popular), "nothing of it is shown"
    assert stories.may_use(Basket("7", ["d", "e"]), 0, popular), "a new household"
    assert not stories.takes(story(50, ["a"], ["a"]), progress=0.9), "the list is as before"
    assert not stories.takes(story(50, ["a"], ["x"]), progress=0.0), "there will be better ones"
    assert stories.takes(story(50, ["a"], ["x", "y", "z"]), progress=0.0)
    assert not stories.may_use(basket, 60, popular), "one of this kind is enough"
    assert stories.takes(story(500, ["a"], ["x"]), progress=0.5)
