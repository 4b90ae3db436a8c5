"""What a record that is no event looks like: the reason in the dead letters should lead to the mistake."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

WHERE_TO_READ: Final = "see Records in other forms in docs/contract.md"
_REGISTRY_HEADER_BYTES = 5
_MAGIC_BYTES = (b"\x00", b"\x01")
"""Before the id of a schema, or its GUID."""
_GZIP = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_OTHER_NAMES = ("userId", "itemId", "customer_id", "customerId", "product_id", "productId", "sku")
_WORDS_OF_A_TYPE = ("event_type", "event_name", "event", "action")
_NOT_PURCHASES = frozenset(
    """
    view views viewed page_view pageview product_view product_viewed view_item view_item_list view_product view_cart
    detail impression click clicked select_item search searched cart add_to_cart addtocart cart_add product_added
    remove_from_cart removefromcart product_removed wishlist add_to_wishlist favorite like rating review
    begin_checkout checkout checkout_started add_payment_info add_shipping_info abandoned_cart cart_abandoned
    refund refunded order_refunded cancel cancelled canceled order_cancelled order_canceled
    delete deleted order_deleted
    """.split()
)
"""What a field that names the kind of an event says of events that are no purchases, as systems of shops write it."""


def of_bytes(value: bytes) -> str:
    """Say what bytes that are not JSON look like, or nothing."""
    if value[:1] == b"\x00" and len(value) > _REGISTRY_HEADER_BYTES:
        schema_id = int.from_bytes(value[1:_REGISTRY_HEADER_BYTES], "big")
        return (
            f"it looks like the wire format of a schema registry (magic byte 0, schema id {schema_id}): "
            f"set RECSYS_EVENTS__FORMAT, or send plain JSON; {WHERE_TO_READ}"
        )
    if value.startswith(_GZIP):
        return f"it looks like gzip: compress with compression.type of the producer instead; {WHERE_TO_READ}"
    if value.startswith(_BYTE_ORDER_MARK):
        return "it begins with a byte order mark: send UTF-8 without one"
    return ""


def without_magic_byte(value: bytes) -> str:
    """Say what bytes look like that shall be in the wire format of a schema registry and are not, or nothing."""
    if value[:1] in _MAGIC_BYTES:
        return ""
    if value.lstrip()[:1] in (b"{", b"["):
        return "it looks like plain JSON: set RECSYS_EVENTS__FORMAT to json if all records of the topic are such"
    return (
        "it does not begin with the magic byte of a schema registry: is RECSYS_EVENTS__FORMAT that of the topic? "
        "json reads plain JSON"
    )


def of_json(content: object) -> str:
    """Say what JSON that is no event looks like, or nothing."""
    hint = _of_object(content) if isinstance(content, Mapping) else _of_other(content)
    return f"it looks like {hint}; {WHERE_TO_READ}" if hint else ""


def other_meaning(fields: Mapping[str, Any]) -> str:
    """Say why fields that would be a valid purchase are none, or nothing: a deleted row, a product that was viewed."""
    deleted = fields.get("__deleted")
    if deleted is True or (isinstance(deleted, str) and deleted.lower() == "true") or fields.get("__op") == "d":
        return f"it is a row that was deleted (Debezium), not a purchase; {WHERE_TO_READ}"
    if fields.get("type") is None:
        for name in _WORDS_OF_A_TYPE:
            word = fields.get(name)
            if isinstance(word, str) and re.sub(r"[\s.-]+", "_", word.strip().lower()) in _NOT_PURCHASES:
                return f"{name} is {word!r}, which is no purchase: send purchases, or type return or forget"
    return ""


def _of_object(fields: Mapping[str, Any]) -> str:
    payload = fields.get("payload")
    if "schema" in fields and "payload" in fields:
        if isinstance(payload, Mapping) and _is_change(payload):
            return "a Debezium envelope inside Kafka Connect's schema and payload: the row is in payload.after"
        return "Kafka Connect's JSON with schema: the event is in payload"
    if _is_change(fields):
        return "a Debezium envelope: the row is in after"
    if "specversion" in fields:
        return "a CloudEvents envelope: the event is in data"
    if {"line_items", "lines", "order_lines", "orderLines"} & fields.keys():
        return "a whole order: each of its lines must be an event of its own"
    if isinstance(fields.get("events"), list):
        if "client_id" in fields or "app_instance_id" in fields:
            return "a request of Google Analytics 4: the mapping google-analytics-4-purchase reads its purchases"
        return "a batch: each of its events must be a record of its own"
    if isinstance(fields.get("items"), list):
        return "an event with several items: each of them must be an event of its own"
    if isinstance(fields.get("properties"), Mapping):
        return "a Segment event: its products are in properties"
    for name in ("payload", "data", "after", "event", "message", "body", "record", "value", "detail"):
        if isinstance(fields.get(name), Mapping | list):
            return f"an envelope: the event may be in {name}"
    if others := [name for name in _OTHER_NAMES if name in fields]:
        return f"an event with other names of fields ({', '.join(others)}): they must be user_id and item_id"
    return ""


def _is_change(fields: Mapping[str, Any]) -> bool:
    return "op" in fields and ("after" in fields or "before" in fields)


def _of_other(content: object) -> str:
    if isinstance(content, list):
        return "a list of events: each must be a record of its own"
    if isinstance(content, str) and content.lstrip().startswith("{"):
        return "JSON inside a JSON string: it was encoded twice"
    return ""
