"""Households whose lists are watched: what they bought, and what their lists were before and after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from recsys.demo.hit_rates import OwnLists
from recsys.demo.purchases import Basket

NEW_SHOWN: Final = 5
AGAIN_SHOWN: Final = 3
_PRODUCTS: Final = range(2, 11)
"""Baskets of so many products are told of."""
_KINDS: Final = (range(1), range(1, 200), range(200, 1_000_000))
"""Households by the number of products that they have bought: one of each kind is told of."""
_CHANGES: Final = 3
"""Of the products shown afterwards, so many were not shown before."""
_LATE: Final = 0.1
"""From this share of the replay on, any change is enough."""


@dataclass(frozen=True, slots=True)
class Story:
    """One household's basket, and its lists before and after.

    Attributes
    ----------
    known_items : int
        Products that it had bought before.
    before : OwnLists
        The popular list if it had none of its own.
    latency_ms : float
        From publishing the basket to seeing the new list in Redis.
    """

    household: str
    known_items: int
    bought: list[str]
    before: OwnLists
    after: OwnLists
    latency_ms: float

    @property
    def changes(self) -> int:
        """Products shown afterwards that were not shown before."""
        new = set(self.after.new[:NEW_SHOWN]).difference(self.before.new[:NEW_SHOWN])
        again = set(self.after.again[:AGAIN_SHOWN]).difference(self.before.again[:AGAIN_SHOWN])
        return len(new) + len(again)


class Stories:
    """Chooses one household of each kind whose lists change visibly: a new one, a young one, an old one."""

    def __init__(self) -> None:
        self._missing = list(_KINDS)

    def may_use(self, basket: Basket, known_items: int, lists: OwnLists) -> bool:
        """Say whether to watch this basket: the household is new, or buys a product of its list, which then leaves it.

        Parameters
        ----------
        known_items : int
            Products that the household has bought before.
        lists : OwnLists
            Its lists now, or the popular one.
        """
        return (
            any(known_items in kind for kind in self._missing)
            and len(set(basket.items)) in _PRODUCTS
            and (known_items == 0 or not set(basket.items).isdisjoint(lists.new[:NEW_SHOWN]))
        )

    def takes(self, story: Story, progress: float) -> bool:
        """Say whether to tell this story; ``progress`` is the share of the replay that is done."""
        if story.changes < (_CHANGES if progress < _LATE else 1):
            return False
        self._missing = [kind for kind in self._missing if story.known_items not in kind]
        return True
