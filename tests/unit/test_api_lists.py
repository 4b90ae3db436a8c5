from __future__ import annotations

import orjson
from hypothesis import given
from hypothesis import strategies as st

from api.lists import Listed, ListFilter, parse_start
from recsys.storage.catalogue import Item

CATALOGUE = {"a": Item("Apple", "Fruit"), "b": Item("", "Fruit"), "c": Item("Car", "", available=False)}


def listed(*names: str) -> list[Listed]:
    return [{"item_id": name, "score": 1.0} for name in names]


def names(items: list[Listed]) -> str:
    return "".join(item["item_id"] for item in items)


def test_what_is_hidden_or_excluded_makes_room_for_what_follows() -> None:
    assert names(ListFilter({"a"}, {}).apply(listed(*"abcd"), 2)) == "bc"
    assert names(ListFilter({"a"}, {}, excluded={"c"}).apply(listed(*"abcd"), 2)) == "bd"
    assert names(ListFilter((), {}).apply(listed(*"abcd"), 9)) == "abcd"


def test_only_items_of_the_category_are_shown() -> None:
    assert names(ListFilter((), CATALOGUE, "Fruit").apply(listed(*"cbxa"), 9)) == "ba"
    assert names(ListFilter((), CATALOGUE, "").apply(listed(*"abx"), 9)) == "x"
    assert names(ListFilter((), {}, "Fruit").apply(listed(*"ab"), 9)) == ""


def test_titles_and_categories_are_added_where_they_are_known() -> None:
    found = ListFilter((), CATALOGUE).apply(listed(*"abcx"), 9)
    assert [sorted(item.keys() - {"item_id", "score"}) for item in found] == [
        ["category", "title"],
        ["category"],
        ["title"],
        [],
    ]


@given(
    st.text(max_size=20),
    st.lists(st.tuples(st.text(min_size=1, max_size=20), st.floats(-9, 9)), max_size=8),
    st.integers(1, 9),
)
def test_the_first_items_of_a_cached_list_are_those_of_the_whole(
    user: str, items: list[tuple[str, float]], most: int
) -> None:
    tricky = [*items, ('},{"item_id":"x', 1.0), ('"}]}', 0.5)]
    listing = [{"item_id": item, "score": score} for item, score in tricky]
    whole = {"user_id": user + '},{"item_id":', "revision": 3, "items": listing}
    assert parse_start(orjson.dumps(whole), most) == {**whole, "items": listing[:most]}


def test_a_list_in_another_layout_is_parsed_whole() -> None:
    text = b'{"items": [{"score": 1, "item_id": "a"}, {"score": 0, "item_id": "b"}]}'
    assert len(parse_start(text, 1)["items"]) == 2
