"""What the HTTP API takes and returns: the API writes it, `recsys.client` reads it.

What operators ask for is in `recsys.operator_schemas`, and can be imported from here as well.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from recsys.data.event import NO_CONTROL_CHARACTERS
from recsys.operator_schemas import ForgetAccepted as ForgetAccepted
from recsys.operator_schemas import HiddenItem as HiddenItem
from recsys.operator_schemas import Models as Models
from recsys.operator_schemas import ModelSummary as ModelSummary
from recsys.operator_schemas import Retrain as Retrain
from recsys.operator_schemas import RetrainRequest as RetrainRequest
from recsys.operator_schemas import RetrainState as RetrainState
from recsys.operator_schemas import RollbackAccepted as RollbackAccepted
from recsys.operator_schemas import RoundSummary as RoundSummary

MOST_USERS = 1_000
MOST_PURCHASES = 1_000
MOST_BASKET_ITEMS = 1_000
MOST_EXCLUDED = 200
MOST_ITEMS = 1_000
"""Items of one list."""
LARGEST_INTEGER = 2**53 - 1
"""Of an id: a larger one must be a text, for many programs read numbers of JSON as floating point (RFC 8259, 6)."""
NAMES_A_PROBLEM = "urn:recsys:problem:"

_LIST_ITEMS = [{"item_id": "sku-9", "score": 0.83121, "title": "Green tea", "category": "Drinks"}]
_LIST = {"model": "20261122T101500Z-1a2b3c", "generated_at": "2026-11-22T10:15:02.113Z", "items": _LIST_ITEMS}
_OWNED_ITEM = {
    "item_id": "sku-9",
    "quantity": 3,
    "purchases": 2,
    "first_event": "2026-10-01T09:30:00Z",
    "newest_event": "2026-11-22T10:11:12Z",
    "title": "Green tea",
    "category": "Drinks",
}


def _whole(value: object) -> object:
    """Read 10.0 as 10: JSON has one kind of numbers."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _id_text(value: object) -> object:
    """Read an integer as its decimal digits, as events do, if all that read JSON agree on which it is."""
    number = _whole(value)
    is_id = isinstance(number, int) and not isinstance(number, bool) and abs(number) <= LARGEST_INTEGER
    return str(number) if is_id else value


_Text = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=256, pattern=NO_CONTROL_CHARACTERS)]
_Integer = Annotated[int, Field(ge=-LARGEST_INTEGER, le=LARGEST_INTEGER)]
Id = Annotated[_Text, BeforeValidator(_id_text, json_schema_input_type=_Text | _Integer)]
"""Of a user or an item, in a body: a text, or an integer that is read as its decimal digits."""
Count = Annotated[int, Field(strict=True, ge=1, le=MOST_ITEMS), BeforeValidator(_whole)]
Quantity = Annotated[float, Field(strict=True, gt=0, le=1e6, allow_inf_nan=False)]


def _example(**fields: Any) -> ConfigDict:
    """Return the configuration of a schema with an example."""
    return ConfigDict(use_attribute_docstrings=True, protected_namespaces=(), json_schema_extra={"examples": [fields]})


class Source(StrEnum):
    """Source of a list."""

    PERSONAL = "personal"
    POPULAR = "popular"
    """The popular list: the user has no own list."""


class ListedItem(BaseModel):
    """One item of a list."""

    model_config = _example(**_LIST_ITEMS[0])

    item_id: str
    score: float
    """Score; comparable only within one list."""
    title: str | None = None
    """Null unless items were imported."""
    category: str | None = None
    """Null unless items were imported."""


class Recommendations(BaseModel):
    """Recommendations for a user."""

    model_config = _example(user_id="42", source="personal", stale=False, revision=17, **_LIST)

    user_id: str
    source: Source
    stale: bool = False
    """True if Redis does not answer: this is the last known popular list."""
    model: str
    """Version of the model behind the list."""
    revision: int | None = None
    """Revision of the user's history that the list follows from; only for a personal list."""
    generated_at: str
    """RFC 3339, UTC."""
    items: list[ListedItem]
    """Best first; fewer than requested if there are no more."""


class BulkRequest(BaseModel):
    """Users whose lists are requested."""

    model_config = _example(user_ids=["42", "43"], n=10)

    user_ids: Annotated[list[Id], Field(min_length=1, max_length=MOST_USERS)]
    """Ids of up to 1,000 users; an id may occur more than once."""
    n: Count = 10
    """Items per list."""


class BulkRecommendations(BaseModel):
    """The lists of many users."""

    model_config = _example(results=[{"user_id": "42", "source": "personal", "stale": False, "revision": 17, **_LIST}])

    results: list[Recommendations]
    """One per requested id, in that order."""


class BasketItem(BaseModel):
    """One line of a basket."""

    model_config = _example(item_id="sku-9", quantity=2)

    item_id: Id
    quantity: Quantity = 1.0


class BasketRequest(BaseModel):
    """A basket that is not bought yet."""

    model_config = _example(items=[{"item_id": "sku-9", "quantity": 2}], user_id="42", n=10)

    items: Annotated[list[BasketItem], Field(min_length=1, max_length=MOST_BASKET_ITEMS)]
    user_id: Id | None = None
    """User whose history counts as well; leave it out for a visitor."""
    n: Count = 10
    """Number of items of the list."""


class BasketRecommendations(BaseModel):
    """What goes with a basket; computed on request, nothing is stored."""

    model_config = _example(source="personal", unknown_items=[], **_LIST)

    source: Source
    """`popular` if the model knows no item of the basket and of the user's history."""
    model: str
    generated_at: str
    unknown_items: list[str]
    """Items of the basket that the model does not know; they have no effect."""
    items: list[ListedItem]


class SimilarItems(BaseModel):
    """The items most similar to an item."""

    model_config = _example(item_id="sku-7", **_LIST)

    item_id: str
    model: str | None = None
    """Null if the item has no list."""
    generated_at: str | None = None
    items: list[ListedItem]


class PopularItems(BaseModel):
    """The popular items."""

    model_config = _example(category="Drinks", **_LIST)

    category: str | None = None
    model: str | None = None
    """Null if there is nothing to list."""
    generated_at: str | None = None
    items: list[ListedItem]


class AgainItems(BaseModel):
    """What a user is likely to buy again."""

    model_config = _example(user_id="42", revision=17, **_LIST)

    user_id: str
    model: str | None = None
    """Null if the user has no such list."""
    revision: int | None = None
    generated_at: str | None = None
    items: list[ListedItem]


class OwnedItem(BaseModel):
    """A user's purchases of one item."""

    model_config = _example(**_OWNED_ITEM)

    item_id: str
    quantity: float
    """Net quantity: purchases minus returns."""
    purchases: int
    first_event: str
    newest_event: str
    title: str | None = None
    category: str | None = None


class UserHistory(BaseModel):
    """The items that a user owns."""

    model_config = _example(user_id="42", total=1, items=[_OWNED_ITEM])

    user_id: str
    total: int
    """Number of items that the user owns."""
    items: list[OwnedItem]
    """The items bought last come first; as many as requested."""


class Contribution(BaseModel):
    """What one owned item adds to a score."""

    model_config = _example(item_id="sku-7", contribution=0.31, title="Tea pot", category="Kitchen")

    item_id: str
    contribution: float
    title: str | None = None
    category: str | None = None


class ScoreExplanation(BaseModel):
    """Why an item has its score for a user (Hu et al. 2008, section 5).

    The contributions + others + demand + habit = score.
    """

    model_config = _example(
        user_id="42",
        item_id="sku-9",
        title="Green tea",
        category="Drinks",
        model="20261122T101500Z-1a2b3c",
        score=0.83,
        demand=0.12,
        habit=0.0,
        owned=False,
        hidden=False,
        contributions=[{"item_id": "sku-7", "contribution": 0.6}],
        others=0.11,
        other_items=4,
    )

    user_id: str
    item_id: str
    title: str | None = None
    category: str | None = None
    model: str
    score: float
    """Score of this item for the user's current history."""
    demand: float
    """What the item's recent demand adds."""
    habit: float
    """What the user's habit of buying this item adds."""
    owned: bool
    """Whether the user owns it; then it is in no list, unless `ranking.include_purchased` is true."""
    hidden: bool
    """Whether it is hidden or not available, and therefore in no list."""
    contributions: list[Contribution]
    """Contribution of each owned item that the model knows, the largest first; with `top`, only so many."""
    others: float = 0.0
    """What the owned items that `top` leaves out add together."""
    other_items: int = 0
    """How many these are."""


class BrokenRule(BaseModel):
    """One field of a request, or of an event, that breaks a rule."""

    model_config = _example(field="body.user_ids.0", message="must not contain control characters")

    field: str
    """Place of the field: `body`, `query`, `path` or `header`, then the path to it; for an event, only the field."""
    message: str


class EventStatus(StrEnum):
    """Result of an event."""

    ACCEPTED = "accepted"
    """Kafka has it, on all replicas."""
    REJECTED = "rejected"
    """It breaks a rule and was not sent; sending it again will not help."""
    FAILED = "failed"
    """Kafka did not confirm it; send it again, with the same event_id or Idempotency-Key."""


class EventResult(BaseModel):
    """Result of one event."""

    model_config = _example(status="accepted", event_id="order-123:sku-9", errors=[])

    status: EventStatus
    event_id: str | None = None
    """Id by which a copy is recognized; null if a copy would count again."""
    errors: list[BrokenRule] = []


class PurchasesAccepted(BaseModel):
    """Results of the posted events."""

    model_config = _example(
        accepted=1, rejected=0, results=[{"status": "accepted", "event_id": "order-123:sku-9", "errors": []}]
    )

    accepted: int
    rejected: int
    results: list[EventResult]
    """One per event, in order."""


class Health(BaseModel):
    """Whether the service can serve, and what is missing."""

    model_config = _example(ready=True, missing=[], model="20261122T101500Z-1a2b3c")

    ready: bool
    missing: list[str]
    model: str
    """Version of the loaded model; empty if there is none."""


class Problem(BaseModel):
    """A problem (RFC 9457)."""

    MEDIA_TYPE: ClassVar = "application/problem+json"
    model_config = ConfigDict(
        extra="allow",
        use_attribute_docstrings=True,
        json_schema_extra={
            "examples": [
                {
                    "type": f"{NAMES_A_PROBLEM}unknown-item",
                    "title": "There is no such item",
                    "status": 404,
                    "detail": "neither the model nor the catalogue knows item 'sku-0'",
                }
            ]
        },
    )

    type: str
    """Kind of the problem; it never changes."""
    title: str
    status: int
    detail: str
    errors: list[BrokenRule] = []
    """Every field that breaks a rule."""
