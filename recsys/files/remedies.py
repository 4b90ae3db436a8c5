"""What to do about what looks wrong with events, in the words of where they were read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from recsys.data.mapping import EventMapping
from recsys.data.mapping_file import CONTRACT, preset

_LONGEST_ID = 40
_LEAVE_OUT = "leave it out with --no-user {user}"


@dataclass(frozen=True, slots=True)
class Remedies:
    """What to do, or to ask oneself.

    Attributes
    ----------
    no_user : str
        About an id that may be no customer, which stands where ``{user}`` does.
    item : str
        About an item that most events have.
    unit : str
        About times in 1970.
    zone : str
        About times ahead of now.
    quantity : str
        About quantities that are all 1.
    looks_for_quantity : bool
        Whether a column or an expression says where quantities are. Else there may be none, with nothing wrong.
    """

    no_user: str
    item: str
    unit: str
    zone: str
    quantity: str
    looks_for_quantity: bool

    def about_user(self, user: str, share: float, of: str) -> str:
        """Return the sentence about a user with a large share of something, such as ``events``."""
        shown = repr(user[:_LONGEST_ID])
        return (
            f"user {shown} has {share:.0%} of the {of}; if this is no customer, {self.no_user.replace('{user}', shown)}"
        )

    def about_item(self, item: str, share: float) -> str:
        """Return the sentence about an item that most events have."""
        return f"item {item[:_LONGEST_ID]!r} has {share:.0%} of the events: {self.item}"


TOPIC: Final = Remedies(
    no_user="name it in RECSYS_EVENTS__NO_USER",
    item="do senders give the items' own ids?",
    unit="is RECSYS_EVENTS__TIMESTAMP_UNIT right?",
    zone="are the senders' clocks and zones right?",
    quantity="do senders give quantities?",
    looks_for_quantity=False,
)
"""Of events in the contract's own form: they may have quantities."""


def of_columns(*, looks_for_quantity: bool) -> Remedies:
    """Return the remedies for files whose columns are named by options."""
    return Remedies(
        no_user=_LEAVE_OUT,
        item="is --item-id-column right?",
        unit="are --timestamp-column, --timestamp-unit and --timestamp-format right?",
        zone="is --timezone right?",
        quantity="is --quantity-column right?",
        looks_for_quantity=looks_for_quantity,
    )


def of_mapping(described: Mapping[str, Any], *, in_files: bool) -> Remedies:
    """Return the remedies for what a mapping reads, be it files or a topic.

    Parameters
    ----------
    described : mapping
        `EventMapping.described`. That of the contract looks for all fields, and they may be absent all the same.
    in_files : bool
    """
    return Remedies(
        no_user=_LEAVE_OUT if in_files else TOPIC.no_user,
        item="is item_id of the mapping right?",
        unit="is timestamp_unit of the mapping right?",
        zone="is timezone of the mapping right?",
        quantity="is quantity of the mapping right?",
        looks_for_quantity="quantity" in described["fields"] and described != _contract(),
    )


@cache
def _contract() -> Mapping[str, Any]:
    return EventMapping.parse(preset(CONTRACT), name=CONTRACT).described
