"""Imports of orders: each line counts once, however often, in whatever form, and wherever an import was interrupted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from recsys.errors import InputFileError
from recsys.files import event_file
from recsys.operations.undo_import import imports
from recsys.runtime import fail_points
from tests.offline import OfflineShop, offline_shop
from tests.unit.test_orders_in_files import COUNT, ORDERS, csv_text, line, order

WITHOUT_IDS = ORDERS.replace('event_id = ["value.id", "number"]', "")


@pytest.fixture
def shop(broker: str, redis_url: str, tmp_path: Path) -> Iterator[OfflineShop]:
    with offline_shop(broker, redis_url, tmp_path) as shop:
        yield shop


def text(*orders: object) -> str:
    return "".join(f"{json.dumps(one)}\n" for one in orders)


ONE = order(1, line("tea"), line("mug", 3), line("tea", 1), customer="u")
TWO = order(2, line("pot", 1), customer="v")


def test_all_lines_of_an_order_count_and_once(shop: OfflineShop) -> None:
    first = shop.import_orders(text(ONE, TWO), ORDERS)
    assert (first.new, first.rows.rows, first.rows.read) == (4, 2, 4)
    assert shop.histories() == {"u": {"tea": 3, "mug": 3}, "v": {"pot": 1}}
    assert shop.import_orders(text(ONE, TWO), ORDERS).new == 0
    (record,) = imports(shop.data_dir)
    assert (record.read, record.new, record.known) == (4, 4, 0)
    shop.ensure_verified()


@pytest.mark.parametrize("mapping", [ORDERS, WITHOUT_IDS])
def test_lines_are_known_from_any_other_file(shop: OfflineShop, mapping: str) -> None:
    shop.import_orders(text(ONE, TWO), mapping)
    three = order(3, line("tea"), customer="v")
    as_csv = shop.import_orders(csv_text(TWO, three, ONE), mapping, name="orders.csv")
    assert (as_csv.new, as_csv.known) == (1, 4)
    assert shop.histories() == {"u": {"tea": 3, "mug": 3}, "v": {"pot": 1, "tea": 2}}
    shop.ensure_verified()


def test_equal_lines_without_ids_are_different_purchases(shop: OfflineShop) -> None:
    twice = order(1, line("tea"), line("tea"), customer="u")
    assert shop.import_orders(text(twice), WITHOUT_IDS).new == 2
    outcome = shop.import_orders(text(order(1, line("tea"), line("tea"), line("tea"), customer="u")), WITHOUT_IDS)
    assert (outcome.new, outcome.known) == (1, 2)
    assert shop.histories() == {"u": {"tea": 6}}
    shop.ensure_verified()


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_an_interrupted_import_of_orders_is_completed(
    shop: OfflineShop, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(event_file, "_BATCH_LINES", batch)
    orders = [order(n, *(line(f"i{m}", 1) for m in range(4)), customer=f"u{n % 2}") for n in range(6)]
    monkeypatch.setitem(fail_points._armed, "in-import", fail_points._Armed("raise", 2 if batch < 100 else 1))
    with pytest.raises(fail_points.FailPointReached):
        shop.import_orders(text(*orders), ORDERS)
    outcome = shop.import_orders(text(*orders), ORDERS)
    assert outcome.new + outcome.known == 24
    assert shop.histories() == {f"u{n}": {f"i{m}": 3 for m in range(4)} for n in range(2)}
    assert not shop.data_dir.archive.gaps()
    shop.ensure_verified()


def test_a_mended_order_is_the_only_new_one(shop: OfflineShop) -> None:
    broken = order(3, line("tea"), line(None), customer="w")
    assert shop.import_orders(text(ONE, broken), ORDERS).rows.rejected == 2
    assert "w" not in shop.histories(), "the whole order waits"
    rejected = (shop.folder / "rejects.csv").read_text()
    assert shop.import_orders(rejected.replace("null", '"mug"'), ORDERS, name="mended.jsonl").new == 2
    assert shop.histories()["w"] == {"tea": 2, "mug": 2}
    shop.ensure_verified()


def test_good_lines_that_counted_are_known_once_the_order_is_mended(shop: OfflineShop) -> None:
    broken = order(3, line("tea"), line(None), line("pot"), customer="w")
    outcome = shop.import_orders(text(broken), COUNT)
    assert (outcome.new, outcome.rows.rejected, outcome.rows.rejected_rows) == (2, 1, 1)
    rejected = (shop.folder / "rejects.csv").read_text()
    mended = shop.import_orders(rejected.replace("null", '"mug"'), COUNT, name="mended.jsonl")
    assert (mended.new, mended.known) == (1, 2)
    assert shop.histories()["w"] == {"tea": 2, "pot": 2, "mug": 2}
    shop.ensure_verified()


def test_another_mapping_of_the_same_file_is_refused_and_an_import_of_orders_is_taken_back(shop: OfflineShop) -> None:
    outcome = shop.import_orders(text(ONE, TWO), ORDERS)
    with pytest.raises(InputFileError, match=r"imported on .* with other options \(mapping: "):
        shop.import_orders(text(ONE, TWO), WITHOUT_IDS)
    assert shop.undo(outcome.id) == (4, 2)
    assert shop.histories() == {}
    assert shop.import_orders(text(ONE, TWO), WITHOUT_IDS).new == 4
    shop.ensure_verified()


def test_more_lines_than_ids_are_remembered_count_once(shop: OfflineShop) -> None:
    large = order(1, *(line(f"i{n}", 1) for n in range(1_001)), customer="u")
    assert shop.import_orders(text(large), ORDERS).new == 1_001
    assert shop.import_orders(text(TWO, large), ORDERS, name="again.jsonl").known == 1_001
    assert sum(shop.histories()["u"].values()) == len(shop.histories()["u"])
    shop.ensure_verified()
