"""Purchases posted over HTTP, for shops whose backend does not speak Kafka."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Header, Request, Response

from api.problems import Kind, ProblemError, invalid_request
from api.purchases import PurchaseSink, RejectedEventError, now_ms, read_event
from api.routes.common import answer, problems
from api.security import Role, guarded
from api.services import services_of
from recsys.events import Event
from recsys.schemas import MOST_PURCHASES, BrokenRule, EventResult, EventStatus, PurchasesAccepted

router = APIRouter(prefix="/v1", route_class=guarded(Role.WRITE))

EVENT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "An event as in the topic: see docs/contract.md. null means absent, other fields are ignored.",
    "required": ["user_id"],
    "properties": {
        "user_id": {"description": "1 to 256 characters, no control characters; an integer is read as its digits."},
        "item_id": {"description": "In the same form; required unless the type is `forget`."},
        "event_id": {"description": "1 to 128 characters: a copy with the same event_id counts once."},
        "type": {"description": "`purchase` (default), `return`, which subtracts the quantity, or `forget`."},
        "quantity": {"description": "Above 0, up to 1,000,000; default 1."},
        "price": {"description": "0 or more."},
        "timestamp": {"description": "RFC 3339 with a zone, or epoch milliseconds; default: now."},
    },
    "examples": [
        {
            "event_id": "order-123:sku-9",
            "user_id": "42",
            "item_id": "sku-9",
            "quantity": 1,
            "price": 3.5,
            "timestamp": "2026-11-22T10:11:12Z",
        }
    ],
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "oneOf": [
                        {"$ref": "#/components/schemas/Event"},
                        {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": MOST_PURCHASES,
                            "items": {"$ref": "#/components/schemas/Event"},
                        },
                    ]
                }
            }
        },
    }
}
IdempotencyKey = Annotated[
    str,
    Header(
        max_length=200,
        description=(
            "Any text that is the same when this request is sent again: gives events without event_id one that follows "
            "from this text, the event's place and its content, so that a copy counts once."
        ),
    ),
]


@router.post(
    "/purchases",
    status_code=202,
    response_model=PurchasesAccepted,
    responses=problems(413),
    openapi_extra=_BODY,
    tags=["purchases"],
    summary="Publish purchases",
)
async def post_purchases(request: Request, idempotency_key: IdempotencyKey = "") -> Response:
    """Publish one event, or up to 1,000 in an array, to Kafka; answered once all replicas have them.

    Events that break a rule are rejected, each with its reasons, and the others published. If none is valid it is
    422; if Kafka did not confirm all of them it is 503, with the results of each: send those again that failed, or
    all of them, with the same event_ids or Idempotency-Key.
    """
    services = services_of(request)
    sink = ensure_taken(services.sink)
    given = _parsed(await request.body())
    moment = now_ms()
    results: list[EventResult] = []
    events: list[Event] = []
    for place, fields in enumerate(given):
        try:
            event = read_event(
                fields, services.store.users, now_ms=moment, idempotency_key=idempotency_key, place=place
            )
        except RejectedEventError as error:
            results.append(EventResult(status=EventStatus.REJECTED, errors=error.errors))
        else:
            events.append(event)
            results.append(EventResult(status=EventStatus.ACCEPTED, event_id=event.event_id))
    if not events:
        return invalid_request(
            [
                BrokenRule(field=".".join(filter(None, ("body", str(place), rule.field))), message=rule.message)
                for place, result in enumerate(results)
                for rule in result.errors
            ]
        )
    delivered = iter(await sink.deliver(events))
    for result in results:
        if result.status is EventStatus.ACCEPTED and not next(delivered):
            result.status = EventStatus.FAILED
    counts = {status: sum(result.status is status for result in results) for status in EventStatus}
    for status, count in counts.items():
        services.metrics.events.labels(status).inc(count)
    told = [result.model_dump(mode="json") for result in results]
    if failed := counts[EventStatus.FAILED]:
        raise ProblemError(
            Kind.KAFKA_UNAVAILABLE,
            f"{failed} of {len(events)} events were not confirmed; send them again, see results",
            results=told,
        )
    return answer(
        {"accepted": counts[EventStatus.ACCEPTED], "rejected": counts[EventStatus.REJECTED], "results": told}, 202
    )


def ensure_taken(sink: PurchaseSink | None) -> PurchaseSink:
    """Return the way to Kafka; raise 403 if there is none."""
    if sink is None:
        raise ProblemError(Kind.PURCHASES_DISABLED, "publish to Kafka, or set RECSYS_API__PURCHASES=true")
    return sink


def _parsed(body: bytes) -> list[object]:
    try:
        found = orjson.loads(body)
    except ValueError as error:
        raise _invalid(f"is not JSON: {error}") from None
    if isinstance(found, dict):
        return [found]
    if not isinstance(found, list):
        raise _invalid("must be an event, or an array of events")
    if not found or len(found) > MOST_PURCHASES:
        raise _invalid(f"must hold 1 to {MOST_PURCHASES:,} events, not {len(found):,}")
    return found


def _invalid(message: str) -> ProblemError:
    rule = BrokenRule(field="body", message=message)
    return ProblemError(Kind.INVALID_REQUEST, f"body {message}", errors=[rule.model_dump()])
