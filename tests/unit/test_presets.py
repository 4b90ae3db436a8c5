"""Presets: records in the form that their vendors document, and exactly the events that these become."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, Message

from recsys.data.event import Event, EventOfLine, EventReading, EventType
from recsys.data.mapping_file import presets
from recsys.kafka.decoder import MappedDecoder, PassedOver
from recsys.kafka.readings import load_mapping
from tests.builders import NOON_MS

LARGE = 2**53 + 1
"""An id that a float cannot hold."""
MONEY = {
    "shop_money": {"amount": "199.00", "currency_code": "USD"},
    "presentment_money": {"amount": "173.30", "currency_code": "EUR"},
}
IPOD: dict[str, Any] = {
    "id": 866550311766439020,
    "admin_graphql_api_id": "gid://shopify/LineItem/866550311766439020",
    "attributed_staffs": [],
    "current_quantity": 1,
    "fulfillable_quantity": 1,
    "fulfillment_service": "manual",
    "fulfillment_status": None,
    "gift_card": False,
    "grams": 567,
    "name": "IPod Nano - 8GB",
    "price": "199.00",
    "price_set": MONEY,
    "product_exists": True,
    "product_id": 632910392,
    "properties": [{"name": "engraving", "value": "Für Oma"}],
    "quantity": 1,
    "requires_shipping": True,
    "sku": "IPOD2008PINK",
    "taxable": True,
    "title": "IPod Nano - 8GB",
    "total_discount": "0.00",
    "total_discount_set": MONEY,
    "variant_id": 808950810,
    "variant_inventory_management": "shopify",
    "variant_title": None,
    "vendor": None,
    "tax_lines": [{"channel_liable": None, "price": "25.81", "price_set": MONEY, "rate": 0.13, "title": "HST"}],
    "duties": [],
    "discount_allocations": [],
}
TIP = {**IPOD, "id": 3, "product_id": None, "variant_id": None, "sku": None, "title": "Tip", "name": "Tip", "tip": {}}
SHOPIFY_ORDER: dict[str, Any] = {
    "id": 820982911946154508,
    "admin_graphql_api_id": "gid://shopify/Order/820982911946154508",
    "app_id": None,
    "browser_ip": "192.0.2.7",
    "buyer_accepts_marketing": True,
    "cancel_reason": None,
    "cancelled_at": None,
    "cart_token": None,
    "client_details": None,
    "closed_at": None,
    "confirmed": True,
    "contact_email": "jon@example.com",
    "created_at": "2026-11-22T05:58:00-05:00",
    "currency": "USD",
    "current_subtotal_price": "398.00",
    "customer_locale": "en",
    "discount_codes": [],
    "email": "jon@example.com",
    "financial_status": "paid",
    "fulfillment_status": None,
    "landing_site": None,
    "name": "#9999",
    "note": None,
    "note_attributes": [],
    "number": 234,
    "order_number": 1234,
    "payment_gateway_names": ["visa", "bogus"],
    "processed_at": "2026-11-22T05:59:00-05:00",
    "source_name": "web",
    "subtotal_price": "388.00",
    "tags": "tag1, tag2",
    "test": False,
    "total_price": "408.00",
    "total_tip_received": "5.00",
    "updated_at": "2026-11-22T05:59:00-05:00",
    "user_id": None,
    "billing_address": {"first_name": "Steve", "zip": "40003", "latitude": 37.77, "country_code": "US"},
    "customer": {
        "id": LARGE,
        "email": "jon@example.com",
        "created_at": None,
        "state": "disabled",
        "note": None,
        "tags": "",
        "default_address": {"id": 715243470612851245, "customer_id": LARGE, "default": True},
    },
    "discount_applications": [],
    "fulfillments": [],
    "line_items": [
        IPOD,
        {
            **IPOD,
            "id": 141249953214522974,
            "variant_id": None,
            "quantity": 3,
            "current_quantity": 3,
            "price": "0.00",
            "sku": "",
        },
        {**IPOD, "id": 2, "quantity": 0, "current_quantity": 0},
        TIP,
        {**IPOD, "id": 4, "variant_id": None, "product_id": None, "sku": "TILL-7"},
    ],
    "payment_terms": None,
    "refunds": [],
    "shipping_lines": [{"id": 271878346596884015, "title": "Generic Shipping", "price": "10.00", "carrier": None}],
    "tax_lines": [],
}
SHOPIFY_TIME = NOON_MS - 3_660_000
SHOPIFY_REFUND: dict[str, Any] = {
    "id": 890088186047892319,
    "order_id": 820982911946154508,
    "created_at": "2026-11-22T05:59:00-05:00",
    "note": "Things were damaged",
    "user_id": 548380009,
    "processed_at": "2026-11-22T05:59:00-05:00",
    "restock": False,
    "duties": [],
    "total_duties_set": MONEY,
    "return": None,
    "refund_shipping_lines": [],
    "admin_graphql_api_id": "gid://shopify/Refund/890088186047892319",
    "refund_line_items": [
        {
            "id": 487817672276298627,
            "line_item_id": IPOD["id"],
            "location_id": None,
            "quantity": 2,
            "restock_type": "no_restock",
            "subtotal": 398.0,
            "subtotal_set": MONEY,
            "total_tax": 0.0,
            "total_tax_set": MONEY,
            "line_item": {**IPOD, "quantity": 5},
        }
    ],
    "transactions": [
        {"id": 245135271310201194, "amount": "398.00", "gateway": "bogus", "kind": "refund", "test": True}
    ],
    "order_adjustments": [],
    "customer_id": LARGE,
}
WOO_LINE: dict[str, Any] = {
    "id": 315,
    "name": "Woo Single #1",
    "product_id": 93,
    "variation_id": 0,
    "quantity": 2,
    "tax_class": "",
    "subtotal": "6.00",
    "subtotal_tax": "0.45",
    "total": "6.00",
    "total_tax": "0.45",
    "taxes": [{"id": 75, "total": "0.45", "subtotal": "0.45"}],
    "meta_data": [{"id": 2095, "key": "pa_color", "value": "black"}],
    "sku": "",
    "price": 3.0000000001,
    "image": {"id": "", "src": ""},
    "parent_name": None,
}
WOO_ORDER: dict[str, Any] = {
    "id": 727,
    "parent_id": 0,
    "number": "727",
    "order_key": "wc_order_58d2d042d1d",
    "created_via": "rest-api",
    "version": "3.0.0",
    "status": "processing",
    "currency": "USD",
    "date_created": "2026-11-22T12:28:02",
    "date_created_gmt": "2026-11-22T11:28:02",
    "date_modified": "2026-11-22T12:28:08",
    "date_modified_gmt": "2026-11-22T11:28:08",
    "discount_total": "0.00",
    "shipping_total": "10.00",
    "total": "29.35",
    "total_tax": "1.35",
    "prices_include_tax": False,
    "customer_id": 26,
    "customer_ip_address": "",
    "customer_user_agent": "",
    "customer_note": "",
    "billing": {"first_name": "John", "last_name": "Doe", "email": "john.doe@example.com", "phone": "(555) 555-5555"},
    "shipping": {"first_name": "John", "last_name": "Doe", "country": "US"},
    "payment_method": "bacs",
    "payment_method_title": "Direct Bank Transfer",
    "transaction_id": "",
    "date_paid": "2026-11-22T12:59:00",
    "date_paid_gmt": "2026-11-22T11:59:00",
    "date_completed": None,
    "date_completed_gmt": None,
    "cart_hash": "",
    "meta_data": [{"id": 13106, "key": "_download_permissions_granted", "value": "yes"}],
    "line_items": [
        WOO_LINE,
        {**WOO_LINE, "id": 316, "product_id": 22, "variation_id": 23, "quantity": 1, "price": "12.00"},
        {**WOO_LINE, "id": 317, "product_id": 0},
    ],
    "tax_lines": [],
    "shipping_lines": [{"id": 317, "method_title": "Flat Rate", "method_id": "flat_rate", "total": "10.00"}],
    "fee_lines": [{"id": 318, "name": "Gift wrap", "total": "2.00"}],
    "coupon_lines": [],
    "refunds": [],
    "_links": {"self": [{"href": "https://shop.example/wp-json/wc/v3/orders/727"}]},
}
GA4_ITEMS: list[dict[str, Any]] = [
    {
        "item_id": "SKU_12345",
        "item_name": "Stan and Friends Tee",
        "affiliation": "Google Merchandise Store",
        "coupon": "SUMMER_FUN",
        "discount": 2.22,
        "index": 0,
        "item_brand": "Google",
        "item_category": "Apparel",
        "item_list_id": "related_products",
        "item_variant": "green",
        "location_id": "ChIJIQBpAG2ahYAR_6128GcTUEo",
        "price": 10.01,
        "quantity": 3,
    },
    {"item_id": "SKU_12345", "item_name": "Stan and Friends Tee", "item_variant": "blue", "price": "10.01"},
    {"item_name": "Gift wrap", "quantity": 1},
    {"price": 2.0, "quantity": 1},
]
GA4_PARAMS: dict[str, Any] = {
    "currency": "USD",
    "transaction_id": "T_12345",
    "value": 30.03,
    "coupon": "SUMMER_FUN",
    "shipping": 3.33,
    "tax": 1.11,
    "session_id": "1749000000",
    "engagement_time_msec": 100,
    "items": GA4_ITEMS,
}
GA4_REQUEST: dict[str, Any] = {
    "client_id": "1234567.7654321",
    "user_id": "u-7",
    "timestamp_micros": (NOON_MS - 60_000) * 1000,
    "user_properties": {"customer_tier": {"value": "premium"}},
    "consent": {"ad_user_data": "GRANTED", "ad_personalization": "DENIED"},
    "events": [{"name": "page_view", "params": {}}, {"name": "purchase", "params": GA4_PARAMS}],
}
GA4_ROW: dict[str, Any] = {
    "event_date": "20261122",
    "event_timestamp": str((NOON_MS - 60_000) * 1000),
    "event_name": "purchase",
    "event_params": [{"key": "transaction_id", "value": {"string_value": "T_12345", "int_value": None}}],
    "user_id": "u-7",
    "user_pseudo_id": "1234567.7654321",
    "ecommerce": {"total_item_quantity": 4, "purchase_revenue": 30.03, "transaction_id": "T_12345"},
    "items": [
        {**GA4_ITEMS[0], "item_list_index": "(not set)"},
        {**GA4_ITEMS[1], "quantity": None, "coupon": "(not set)"},
        {**GA4_ITEMS[2], "item_id": "(not set)"},
        {"item_id": "(not set)", "item_name": "(not set)", "price": None, "quantity": None},
    ],
}
SEGMENT_CALL: dict[str, Any] = {
    "anonymousId": "23adfd82-aa0f-45a7-a756-24f2a7a4c895",
    "channel": "browser",
    "context": {"library": {"name": "analytics.js", "version": "2.11.1"}, "ip": "203.0.113.9", "page": {"url": "/"}},
    "event": "Order Completed",
    "integrations": {"All": True},
    "messageId": "ajs-next-1795348740000-0f1e2d3c",
    "originalTimestamp": "2026-11-22T11:59:00.100Z",
    "receivedAt": "2026-11-22T11:59:01.000Z",
    "sentAt": "2026-11-22T11:59:00.900Z",
    "timestamp": "2026-11-22T11:59:00.000Z",
    "type": "track",
    "userId": "AiUGstSDIg",
    "version": 2,
    "properties": {
        "checkout_id": "fksdjfsdjfisjf9sdfjsd9f",
        "order_id": "50314b8e9bcf000000000000",
        "affiliation": "Google Store",
        "total": 27.5,
        "subtotal": 22.5,
        "revenue": 25.0,
        "shipping": 3,
        "tax": 2,
        "discount": 2.5,
        "coupon": "hasbros",
        "currency": "USD",
        "products": [
            {
                "product_id": "507f1f77bcf86cd799439011",
                "sku": "45790-32",
                "name": "Monopoly: 3rd Edition",
                "price": 19,
                "quantity": 1,
                "category": "Games",
                "url": "https://www.example.com/product/path",
                "image_url": "https:///www.example.com/product/path.jpg",
            },
            {"product_id": None, "sku": "46493-32", "name": "Uno Card Game", "price": "3.00", "quantity": 2},
            {"product_id": "507f1f77bcf86cd799439011", "sku": "45790-33", "variant": "red", "quantity": 0},
        ],
    },
}
ROW: dict[str, Any] = {
    "id": LARGE,
    "order_id": 10_001,
    "user_id": 1_004,
    "item_id": "sku-9",
    "quantity": 2,
    "price": "19.90",
    "created_at": (NOON_MS - 60_000) * 1000,
    "note": None,
}
OF_ROW = [
    Event(
        user_id="1004", item_id="sku-9", quantity=2, price=19.9, timestamp=NOON_MS - 60_000, event_id=str(LARGE)
    )
]  # fmt: skip
CHANGE: dict[str, Any] = {
    "before": None,
    "after": ROW,
    "source": {
        "version": "3.3.1.Final",
        "connector": "postgresql",
        "name": "shop",
        "ts_ms": NOON_MS - 1_000,
        "snapshot": "false",
        "db": "shop",
        "sequence": '["24023119","24023128"]',
        "schema": "public",
        "table": "order_lines",
        "txId": 555,
        "lsn": 24023128,
        "xmin": None,
    },
    "transaction": None,
    "op": "c",
    "ts_ms": NOON_MS,
    "ts_us": NOON_MS * 1000,
    "ts_ns": NOON_MS * 1_000_000,
}
SNAPSHOT = {**CHANGE, "op": "r", "source": {**CHANGE["source"], "snapshot": "first"}}
SCHEMA = {
    "type": "struct",
    "fields": [{"type": "int64", "optional": False, "field": "id"}],
    "optional": False,
    "name": "shop.public.order_lines.Envelope",
}


def record(value: Any, **parts: Any) -> Message:
    raw = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
    return Message(topic="t", partition=0, offset=5, value=raw, timestamp=(TIMESTAMP_CREATE_TIME, NOON_MS), **parts)


def decoder(name: str, *, is_wrapped: bool = False) -> MappedDecoder:
    return MappedDecoder(load_mapping(name), EventReading(), is_wrapped=is_wrapped)


def events(name: str, value: Any) -> list[Event]:
    return list(decoder(name).events(record(value)))


def passed_over(name: str, value: Any) -> PassedOver:
    """What is left out of a record that holds no event and is not malformed."""
    used = decoder(name)
    assert list(used.events(record(value))) == []
    return used.passed_over


def test_every_preset_is_tried_here() -> None:
    assert presets() == sorted(
        [
            "contract", "shopify-orders-and-refunds", "shopify-orders-paid", "shopify-refunds-create",
            "woocommerce-orders", "google-analytics-4-purchase", "segment-order-completed", "debezium",
            "debezium-unwrapped", "kafka-connect",
        ]
    )  # fmt: skip


def test_contract() -> None:
    value = {"event_id": "e:1", "type": "return", "user_id": 42, "item_id": "a", "quantity": 1.5, "price": 3, "more": 1}
    assert events("contract", value) == [
        Event(
            user_id="42", item_id="a", type=EventType.RETURN, quantity=1.5, price=3, event_id="e:1", timestamp=NOON_MS
        )
    ]  # fmt: skip


def test_shopify_orders_paid() -> None:
    order = "order:820982911946154508"
    common: dict[str, Any] = {"user_id": str(LARGE), "timestamp": SHOPIFY_TIME}
    assert events("shopify-orders-paid", SHOPIFY_ORDER) == [
        EventOfLine(
            **common, item_id="808950810", quantity=1, price=199, event_id=f"{order}:866550311766439020", line=1
        ),
        EventOfLine(**common, item_id="632910392", quantity=3, price=0, event_id=f"{order}:141249953214522974", line=2),
        EventOfLine(**common, item_id="TILL-7", quantity=1, price=199, event_id=f"{order}:4", line=5),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "left_out"),
    [
        ({"customer": None}, PassedOver(no_user=5)),
        ({"financial_status": "pending"}, PassedOver(records=1)),
        ({"test": True}, PassedOver(records=1)),
        ({"test": "true"}, PassedOver(records=1)),
        ({"test": "TRUE"}, PassedOver(records=1)),
        ({"cancelled_at": "2026-11-22T06:30:00-05:00", "cancel_reason": "customer"}, PassedOver(records=1)),
        ({"line_items": [{**IPOD, "current_quantity": 0}]}, PassedOver(lines=1)),
        ({"line_items": []}, PassedOver(records=1)),
        ({"line_items": [TIP]}, PassedOver(lines=1)),
    ],
)
def test_shopify_orders_that_do_not_count(changed: dict[str, Any], left_out: PassedOver) -> None:
    assert passed_over("shopify-orders-paid", {**SHOPIFY_ORDER, **changed}) == left_out


def test_a_shopify_order_that_is_updated_has_the_ids_that_it_had() -> None:
    more = {**IPOD, "id": 5, "variant_id": 39072856}
    updated = {
        **SHOPIFY_ORDER,
        "financial_status": "partially_refunded",
        "updated_at": "2026-11-22T06:30:00-05:00",
        "line_items": [{**IPOD, "current_quantity": 0}, more],
        "refunds": [SHOPIFY_REFUND],
    }
    first, again = events("shopify-orders-paid", SHOPIFY_ORDER), events("shopify-orders-paid", updated)
    assert again[0] == first[0]
    assert [event.event_id for event in again[1:]] == [
        "order:820982911946154508:5", "refund:890088186047892319:487817672276298627",
    ]  # fmt: skip


BOTH = "shopify-orders-and-refunds"


@pytest.mark.parametrize("name", ["shopify-orders-paid", BOTH])
def test_a_shopify_order_that_names_its_refunds_is_counted_and_taken_back_with_the_ids_of_the_topic(name: str) -> None:
    """So a refund is taken back once, be it in an export of history, in the topic, or in both, whatever comes first."""
    bought = {**IPOD, "quantity": 5, "current_quantity": 3}
    inside = {name: value for name, value in SHOPIFY_REFUND.items() if name != "customer_id"}
    money = {**inside, "id": 1, "refund_line_items": [], "processed_at": "2026-11-22T05:30:00-05:00"}
    as_paid = {**SHOPIFY_ORDER, "line_items": [{**bought, "current_quantity": 5}]}
    exported = {**as_paid, "financial_status": "partially_refunded", "line_items": [bought], "refunds": [money, inside]}
    (refund,) = events(BOTH, SHOPIFY_REFUND)
    (paid,) = events(name, as_paid)
    purchase, taken_back = events(name, exported)
    assert (paid.quantity, purchase) == (5, paid)
    assert taken_back.model_dump(exclude={"line"}) == refund.model_dump(exclude={"line"})
    assert isinstance(taken_back, EventOfLine)
    assert taken_back.line == 2
    cancelled = {**exported, "financial_status": "refunded", "cancelled_at": "2026-11-22T06:30:00-05:00"}
    assert events(name, cancelled) == [purchase, taken_back]
    (left,) = events(name, {**exported, "refunds": [money]})
    assert (left.quantity, left.event_id) == (3, paid.event_id), "what is left, where nothing says what was taken back"


def test_shopify_refunds_create() -> None:
    expected = EventOfLine(
        user_id=str(LARGE),
        item_id="808950810",
        type=EventType.RETURN,
        quantity=2,
        price=199,
        timestamp=SHOPIFY_TIME,
        event_id="refund:890088186047892319:487817672276298627",
        line=1,
    )
    assert events("shopify-refunds-create", SHOPIFY_REFUND) == [expected]
    by_order = {**SHOPIFY_REFUND, "customer_id": None, "order": {"customer": {"id": LARGE}}}
    assert events("shopify-refunds-create", by_order) == [expected]
    money_alone = {
        **SHOPIFY_REFUND,
        "refund_line_items": [],
        "order_adjustments": [{"id": 4221763620, "amount": "-8.00", "kind": "shipping_refund"}],
    }
    assert passed_over("shopify-refunds-create", money_alone) == PassedOver(records=1)
    as_it_comes = {name: value for name, value in SHOPIFY_REFUND.items() if name != "customer_id"}
    assert passed_over("shopify-refunds-create", as_it_comes) == PassedOver(no_user=1)


def test_shopify_orders_and_refunds_in_one_topic() -> None:
    both = "shopify-orders-and-refunds"
    assert events(both, SHOPIFY_ORDER) == events("shopify-orders-paid", SHOPIFY_ORDER) != []
    assert events(both, SHOPIFY_REFUND) == events("shopify-refunds-create", SHOPIFY_REFUND) != []
    for value in ({**SHOPIFY_ORDER, "test": True}, {**SHOPIFY_REFUND, "refund_line_items": []}):
        assert passed_over(both, value) == PassedOver(records=1)


def test_woocommerce_orders() -> None:
    paid = NOON_MS - 60_000
    expected = [
        EventOfLine(
            user_id="26", item_id="93", quantity=2, price=3.0000000001, timestamp=paid, event_id="727:315", line=1
        ),
        EventOfLine(user_id="26", item_id="23", quantity=1, price=12, timestamp=paid, event_id="727:316", line=2),
    ]  # fmt: skip
    assert events("woocommerce-orders", WOO_ORDER) == expected
    completed = {**WOO_ORDER, "status": "completed", "date_completed_gmt": "2026-11-22T12:00:00"}
    assert events("woocommerce-orders", completed) == expected
    unpaid = {**WOO_ORDER, "date_paid": None, "date_paid_gmt": None}
    assert {event.timestamp for event in events("woocommerce-orders", unpaid)} == {NOON_MS - 31 * 60_000 - 58_000}


@pytest.mark.parametrize(
    ("value", "left_out"),
    [
        *[({**WOO_ORDER, "status": status}, PassedOver(records=1)) for status in (
            "pending", "on-hold", "cancelled", "refunded", "failed", "trash", "checkout-draft", "auto-draft"
        )],
        ({**WOO_ORDER, "customer_id": 0}, PassedOver(no_user=3)),
        ({**WOO_ORDER, "customer_id": "0"}, PassedOver(no_user=3)),
        ({**WOO_ORDER, "line_items": [{**WOO_LINE, "product_id": "0", "variation_id": "0"}]}, PassedOver(lines=1)),
        ({**WOO_ORDER, "line_items": []}, PassedOver(records=1)),
        ({"id": 727}, PassedOver(records=1)),
        ({"webhook_id": 142}, PassedOver(records=1)),
    ],
)  # fmt: skip
def test_woocommerce_orders_that_do_not_count(value: Any, left_out: PassedOver) -> None:
    assert passed_over("woocommerce-orders", value) == left_out


def test_numbers_of_woocommerce_as_text_as_exports_write_them() -> None:
    lines = [
        {name: str(value) if isinstance(value, int | float) else value for name, value in line.items()}
        for line in WOO_ORDER["line_items"]
    ]
    as_text = {**WOO_ORDER, "id": "727", "customer_id": "26", "line_items": lines}
    assert events("woocommerce-orders", as_text) == events("woocommerce-orders", WOO_ORDER)


@pytest.mark.parametrize(
    "value",
    [
        GA4_REQUEST,
        {**GA4_REQUEST, "timestamp_micros": str(GA4_REQUEST["timestamp_micros"])},
        {
            **GA4_REQUEST,
            "timestamp_micros": None,
            "events": [{"name": "purchase", "params": GA4_PARAMS, "timestamp_micros": (NOON_MS - 60_000) * 1000}],
        },
        {
            "user_id": "u-7",
            "name": "purchase",
            "params": GA4_PARAMS,
            "timestamp_micros": GA4_REQUEST["timestamp_micros"],
        },
        GA4_ROW,
    ],
)
def test_google_analytics_4_purchase(value: Any) -> None:
    common: dict[str, Any] = {"user_id": "u-7", "timestamp": NOON_MS - 60_000}
    assert events("google-analytics-4-purchase", value) == [
        EventOfLine(**common, item_id="SKU_12345", quantity=3, price=10.01, event_id="T_12345:1", line=1),
        EventOfLine(**common, item_id="SKU_12345", quantity=1, price=10.01, event_id="T_12345:2", line=2),
        EventOfLine(**common, item_id="Gift wrap", quantity=1, event_id="T_12345:3", line=3),
    ]


def test_rows_of_google_analytics_without_a_transaction_have_no_ids() -> None:
    for missing in ("(not set)", "", None):
        row = {**GA4_ROW, "ecommerce": {**GA4_ROW["ecommerce"], "transaction_id": missing}}
        assert [event.event_id for event in events("google-analytics-4-purchase", row)] == [None] * 3


def ga4_request(**purchases: list[str]) -> dict[str, Any]:
    """A request with a purchase for each transaction, of these items."""
    return {
        "user_id": "u-7",
        "timestamp_micros": NOON_MS * 1000,
        "events": [
            {"name": "purchase", "params": {"transaction_id": name, "items": [{"item_id": item} for item in items]}}
            for name, items in purchases.items()
        ],
    }


def ids_and_items(value: Any) -> list[tuple[str | None, str | None]]:
    return [(event.event_id, event.item_id) for event in events("google-analytics-4-purchase", value)]


def test_each_purchase_in_a_request_of_google_analytics_has_its_own_transaction() -> None:
    assert ids_and_items(ga4_request(T1=["a"], T2=["b"])) == [("T1:1", "a"), ("T2:1", "b")]
    assert ids_and_items(ga4_request(T2=["b"])) == [("T2:1", "b")], "known when it is sent alone"
    assert ids_and_items(ga4_request(T3=[], T4=["d"])) == [("T4:1", "d")]
    assert ids_and_items(ga4_request(T3=["c1"])) == [("T3:1", "c1")], "not that of another transaction"


def test_each_purchase_in_a_request_of_google_analytics_has_its_own_time() -> None:
    request = ga4_request(T1=["a"], T2=["b", "c"])
    request["events"][0]["timestamp_micros"] = (NOON_MS - 60_000) * 1000
    found = events("google-analytics-4-purchase", request)
    assert [event.timestamp for event in found] == [NOON_MS - 60_000, NOON_MS, NOON_MS]
    assert [event.line for event in found if isinstance(event, EventOfLine)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("value", "left_out"),
    [
        ({**GA4_REQUEST, "user_id": None}, PassedOver(no_user=4)),
        ({**GA4_ROW, "user_id": None}, PassedOver(no_user=4)),
        ({**GA4_REQUEST, "events": [{"name": "refund", "params": GA4_PARAMS}]}, PassedOver(records=1)),
        ({**GA4_ROW, "event_name": "add_to_cart"}, PassedOver(records=1)),
        ({**GA4_REQUEST, "events": [{"name": "purchase", "params": {"value": 3}}]}, PassedOver(records=1)),
        ({**GA4_REQUEST, "events": []}, PassedOver(records=1)),
    ],
)
def test_google_analytics_events_that_do_not_count(value: Any, left_out: PassedOver) -> None:
    assert passed_over("google-analytics-4-purchase", value) == left_out


def test_segment_order_completed() -> None:
    common: dict[str, Any] = {"user_id": "AiUGstSDIg", "timestamp": NOON_MS - 60_000}
    order = "Order Completed:50314b8e9bcf000000000000"
    expected = [
        EventOfLine(
            **common, item_id="507f1f77bcf86cd799439011", quantity=1, price=19, event_id=f"{order}:1", line=1
        ),
        EventOfLine(**common, item_id="46493-32", quantity=2, price=3, event_id=f"{order}:2", line=2),
    ]  # fmt: skip
    assert events("segment-order-completed", SEGMENT_CALL) == expected
    assert events("segment-order-completed", {**SEGMENT_CALL, "messageId": "a page that is loaded twice"}) == expected


def test_segment_order_refunded_counts_once_for_each_call() -> None:
    refund: dict[str, Any] = {
        **SEGMENT_CALL,
        "event": "Order Refunded",
        "properties": {"order_id": "50314b8e9bcf000000000000", "total": 30, "currency": "USD", "products": [
            {"product_id": "123", "sku": "G-32", "name": "UNO", "price": 14, "quantity": 1, "category": "Games"},
        ]},
    }  # fmt: skip
    (event,) = events("segment-order-completed", refund)
    assert event == EventOfLine(
        user_id="AiUGstSDIg",
        item_id="123",
        type=EventType.RETURN,
        quantity=1,
        price=14,
        timestamp=NOON_MS - 60_000,
        event_id="Order Refunded:ajs-next-1795348740000-0f1e2d3c:1",
        line=1,
    )
    (later,) = events("segment-order-completed", {**refund, "messageId": "ajs-next-1795349999999-1"})
    assert later.event_id != event.event_id
    whole = {**refund, "properties": {"order_id": "50314b8e9bcf000000000000", "total": 30, "currency": "USD"}}
    assert passed_over("segment-order-completed", whole) == PassedOver(records=1)


@pytest.mark.parametrize(
    ("changed", "left_out"),
    [
        ({"userId": None}, PassedOver(no_user=3)),
        ({"event": "Order Updated"}, PassedOver(records=1)),
        ({"event": "Product Added"}, PassedOver(records=1)),
        ({"type": "identify", "event": None, "traits": {"email": "a@example.com"}}, PassedOver(records=1)),
    ],
)
def test_segment_calls_that_do_not_count(changed: dict[str, Any], left_out: PassedOver) -> None:
    assert passed_over("segment-order-completed", {**SEGMENT_CALL, **changed}) == left_out


@pytest.mark.parametrize("change", [CHANGE, SNAPSHOT])
@pytest.mark.parametrize("with_schema", [False, True])
def test_debezium(change: dict[str, Any], with_schema: bool) -> None:
    assert events("debezium", {"schema": SCHEMA, "payload": change} if with_schema else change) == OF_ROW


def test_debezium_times_in_all_precisions() -> None:
    for created_at in (NOON_MS - 60_000, "2026-11-22T11:59:00.000000Z", (NOON_MS - 60_000) * 1_000_000):
        assert events("debezium", {**CHANGE, "after": {**ROW, "created_at": created_at}}) == OF_ROW


@pytest.mark.parametrize(
    "change",
    [
        {**CHANGE, "op": "u", "before": ROW, "after": {**ROW, "quantity": 3}},
        {**CHANGE, "op": "d", "before": ROW, "after": None},
        {**CHANGE, "op": "t", "before": None, "after": None},
        {"op": "m", "ts_ms": NOON_MS, "source": CHANGE["source"], "message": {"prefix": "foo", "content": "Ymar"}},
        {"ts_ms": NOON_MS},
    ],
)
@pytest.mark.parametrize("with_schema", [False, True])
def test_debezium_changes_that_do_not_count(change: dict[str, Any], with_schema: bool) -> None:
    value = {"schema": SCHEMA, "payload": change} if with_schema else change
    assert passed_over("debezium", value) == PassedOver(records=1)


@pytest.mark.parametrize("name", ["debezium", "debezium-unwrapped", "kafka-connect"])
def test_tombstones_do_not_count(name: str) -> None:
    assert passed_over(name, None) == PassedOver(records=1)


@pytest.mark.parametrize("added", [{}, {"__op": "c"}, {"__op": "r"}, {"__deleted": "false"}, {"__deleted": False}])
@pytest.mark.parametrize("with_schema", [False, True])
def test_debezium_unwrapped(added: dict[str, Any], with_schema: bool) -> None:
    row = {**ROW, **added}
    assert events("debezium-unwrapped", {"schema": SCHEMA, "payload": row} if with_schema else row) == OF_ROW


@pytest.mark.parametrize(
    "added", [{"__op": "u"}, {"__op": "d"}, {"__deleted": "true"}, {"__deleted": True}, {"__op": "t"}]
)
@pytest.mark.parametrize("with_schema", [False, True])
def test_rows_that_do_not_count(added: dict[str, Any], with_schema: bool) -> None:
    row = {**ROW, **added}
    value = {"schema": SCHEMA, "payload": row} if with_schema else row
    assert passed_over("debezium-unwrapped", value) == PassedOver(records=1)


@pytest.mark.parametrize(("changed", "left_out"), [
    ({"user_id": None}, PassedOver(no_user=1)), ({"quantity": 0}, PassedOver(lines=0, records=1)),
])  # fmt: skip
def test_rows_without_a_user_or_of_nothing_do_not_count(changed: dict[str, Any], left_out: PassedOver) -> None:
    row = {**ROW, **changed}
    assert passed_over("debezium", {**CHANGE, "after": row}) == left_out
    assert passed_over("debezium-unwrapped", row) == left_out
    assert passed_over("kafka-connect", {"schema": None, "payload": row}) == left_out


def test_kafka_connect() -> None:
    payload = {
        "user_id": LARGE, "item_id": "sku-9", "quantity": 2, "price": 19.9, "timestamp": NOON_MS, "event_id": "7:1",
        "type": None,
    }  # fmt: skip
    schema = {"type": "struct", "optional": False, "name": "purchase", "fields": [
        {"type": "int64", "optional": False, "name": "org.apache.kafka.connect.data.Timestamp", "version": 1,
         "field": "timestamp"},
    ]}  # fmt: skip
    assert events("kafka-connect", {"schema": schema, "payload": payload}) == [
        Event(user_id=str(LARGE), item_id="sku-9", quantity=2, price=19.9, timestamp=NOON_MS, event_id="7:1")
    ]
    assert passed_over("kafka-connect", {"schema": None, "payload": None}) == PassedOver(records=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("contract", {"user_id": "42", "item_id": "a"}),
        ("shopify-orders-paid", SHOPIFY_ORDER),
        ("shopify-refunds-create", SHOPIFY_REFUND),
        ("shopify-orders-and-refunds", SHOPIFY_REFUND),
        ("woocommerce-orders", WOO_ORDER),
        ("google-analytics-4-purchase", GA4_REQUEST),
        ("segment-order-completed", SEGMENT_CALL),
        ("debezium", CHANGE),
        ("debezium-unwrapped", ROW),
        ("kafka-connect", {"schema": None, "payload": {"user_id": 1, "item_id": 2}}),
    ],
)
def test_cloud_events_around_any_of_them(name: str, value: Any) -> None:
    attributes = {
        "id": "A234-1234-1234",
        "source": "/shop/orders",
        "specversion": "1.0",
        "type": "com.example.order",
        "time": "2026-11-22T11:59:30Z",
        "datacontenttype": "application/json",
    }
    text = json.dumps(value).encode()
    headers = [(f"ce_{key}", part.encode()) for key, part in attributes.items() if key != "datacontenttype"]
    records = [
        record({**attributes, "data": value}, headers=[("content-type", b"application/cloudevents+json")]),
        record({**attributes, "data": value}),
        record({**attributes, "data_base64": base64.b64encode(text).decode()}),
        record(text, headers=[*headers, ("content-type", b"application/json")]),
    ]
    expected = events(name, value)
    assert expected
    for wrapped in records:
        assert list(decoder(name, is_wrapped=True).events(wrapped)) == expected


@pytest.mark.parametrize(("op", "expected"), [("c", OF_ROW), ("r", OF_ROW), ("u", []), ("d", [])])
def test_debezium_by_its_converter_to_cloud_events(op: str, expected: list[Event]) -> None:
    value = {
        "id": "name:shop;lsn:29274832;txId:565",
        "source": "/debezium/postgresql/shop",
        "specversion": "1.0",
        "type": "io.debezium.postgresql.datachangeevent",
        "time": "2026-11-22T11:59:59.738Z",
        "datacontenttype": "application/json",
        "iodebeziumop": op,
        "iodebeziumversion": "3.3.1.Final",
        "iodebeziumconnector": "postgresql",
        "iodebeziumname": "shop",
        "iodebeziumtsms": str(NOON_MS),
        "iodebeziumsnapshot": "true",
        "iodebeziumtable": "order_lines",
        "data": {"before": None, "after": None if op == "d" else ROW},
    }
    for data in (value["data"], {"schema": SCHEMA, "payload": value["data"]}):
        assert list(decoder("debezium", is_wrapped=True).events(record({**value, "data": data}))) == expected
