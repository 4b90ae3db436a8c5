from __future__ import annotations

from api.lists import Listed, Shown
from recsys.catalogue import Item

CATALOGUE = {"a": Item("Apple", "Fruit"), "b": Item("", "Fruit"), "c": Item("Car", "", available=False)}


def listed(*names: str) -> list[Listed]:
    return [{"item_id": name, "score": 1.0} for name in names]


def names(items: list[Listed]) -> str:
    return "".join(item["item_id"] for item in items)


def test_what_is_hidden_or_excluded_makes_room_for_what_follows() -> None:
    assert names(Shown({"a"}, {}).of(listed(*"abcd"), 2)) == "bc"
    assert names(Shown({"a"}, {}, excluded={"c"}).of(listed(*"abcd"), 2)) == "bd"
    assert names(Shown((), {}).of(listed(*"abcd"), 9)) == "abcd"


def test_only_items_of_the_category_are_shown() -> None:
    assert names(Shown((), CATALOGUE, "Fruit").of(listed(*"cbxa"), 9)) == "ba"
    assert names(Shown((), CATALOGUE, "").of(listed(*"abx"), 9)) == "x"
    assert names(Shown((), {}, "Fruit").of(listed(*"ab"), 9)) == ""


def test_titles_and_categories_are_added_where_they_are_known() -> None:
    found = Shown((), CATALOGUE).of(listed(*"abcx"), 9)
    assert [sorted(item.keys() - {"item_id", "score"}) for item in found] == [
        ["category", "title"],
        ["category"],
        ["title"],
        [],
    ]
