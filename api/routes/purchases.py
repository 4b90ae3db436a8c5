"""Purchases posted over HTTP, for shops whose backend does not speak Kafka."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Header, Request, Response

from api.problems import Kind, ProblemError, invalid_request, status_of
from api.purchases import PurchaseSink, RejectedEventError, now_ms, read_event, scoped
from api.routes.common import answer, problems
from api.security import Caller, Role, guarded
from api.services import Services, services_of
from recsys.api_schemas import LARGEST_INTEGER, MOST_PURCHASES, BrokenRule, EventResult, EventStatus, PurchasesAccepted
from recsys.data.epoch import NEWEST_MS, OLDEST_MS
from recsys.data.event import LONGEST_EVENT_ID, NO_CONTROL_CHARACTERS, Event, EventType

router = APIRouter(prefix="/v1", route_class=guarded(Role.WRITE))
_LONGEST_USER_SHOWN = 256


_LEAP_YEAR = r"(19(72|76|8[048]|9[26])|[2-9][0-9](0[48]|[2468][048]|[13579][26])|([2468][048]|[3579][26])00)"
_DAY = (
    r"((197[1-9]|19[89][0-9]|[2-8][0-9]{3}|9[0-8][0-9]{2})"
    r"-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))"
    rf"|{_LEAP_YEAR}-02-29)"
)
_RFC_3339 = (
    rf"^{_DAY}[Tt ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{{1,9}})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)


def _id_schema(longest: int, meaning: str) -> dict[str, Any]:
    text = {"type": "string", "minLength": 1, "maxLength": longest, "pattern": NO_CONTROL_CHARACTERS}
    integer = {"type": "integer", "minimum": -LARGEST_INTEGER, "maximum": LARGEST_INTEGER}
    return {"anyOf": [text, integer], "description": meaning}


def _or_null(schema: dict[str, Any], meaning: str) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}], "description": meaning}


_USER_ID = _id_schema(256, "An integer is read as its decimal digits.")
_EVENT_ID = _or_null(
    _id_schema(LONGEST_EVENT_ID, ""),
    "A copy with the same event_id counts once, if it comes from a key of the same name.",
)
_TIME_TEXT = {"type": "string", "pattern": _RFC_3339}
_TIMESTAMP = _or_null(
    {
        "anyOf": [
            _TIME_TEXT,
            *(
                {
                    "type": "integer",
                    "minimum": OLDEST_MS // 1000 * per_s,
                    "maximum": NEWEST_MS // 1000 * per_s + max(0, per_s // 1000 - 1),  # what is left of a ms is cut off
                }
                for per_s in (1, 1000, 1_000_000)
            ),
        ]
    },
    "RFC 3339 with a zone, or an integer since 1970: seconds, milliseconds or microseconds, whichever puts it between "
    "1990 and a day after the request. No time may be later than that. Default: now.",
)
_FORGET_TIMESTAMP = _or_null(
    {"anyOf": [_TIME_TEXT, {"type": "integer", "minimum": -LARGEST_INTEGER, "maximum": LARGEST_INTEGER}]},
    "As of a purchase, but a time of the future, or an integer that is no sensible time, is read as now: no wish to be "
    "erased is lost over it.",
)
EVENT_SCHEMAS: dict[str, dict[str, Any]] = {
    "Event": {
        "description": "One event, as in the topic; null means absent, and fields that are not named are ignored.",
        "anyOf": [{"$ref": "#/components/schemas/Purchase"}, {"$ref": "#/components/schemas/Forget"}],
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
    },
    "Purchase": {
        "type": "object",
        "description": "A purchase, or a return, which subtracts the quantity.",
        "required": ["user_id", "item_id"],
        "properties": {
            "user_id": _USER_ID,
            "item_id": _id_schema(256, "An integer is read as its decimal digits."),
            "event_id": _EVENT_ID,
            "type": _or_null({"enum": ["purchase", "return"]}, "Default: purchase."),
            "quantity": _or_null({"type": "number", "exclusiveMinimum": 0, "maximum": 1e6}, "Default: 1."),
            "price": _or_null({"type": "number", "minimum": 0}, "Kept in the archive."),
            "timestamp": _TIMESTAMP,
        },
        "examples": [{"user_id": "42", "item_id": "sku-9"}],
    },
    "Forget": {
        "type": "object",
        "description": "The wish of a user to be erased; it needs the role `operate`.",
        "required": ["user_id", "type"],
        "properties": {
            "user_id": _USER_ID,
            "event_id": _EVENT_ID,
            "type": {"const": "forget"},
            "timestamp": _FORGET_TIMESTAMP,
        },
        "examples": [{"user_id": "42", "type": "forget"}],
    },
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "anyOf": [
                        {"$ref": "#/components/schemas/Event"},
                        {
                            "type": "array",
                            "description": "Each is checked on its own; one at least must be valid.",
                            "minItems": 1,
                            "maxItems": MOST_PURCHASES,
                            "contains": {"$ref": "#/components/schemas/Event"},
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
            "from this text, the event's place and its content, so that a copy from a key of the same name counts once."
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
    """Publish one event, or up to 1,000 in an array, to Kafka; the answer comes when all replicas have them.

    Events that break a rule are rejected, each with its reasons, and the others are published. The answer is 422 if
    none is valid, and 503, with the result of each, if Kafka did not confirm all of them: send the failed ones, or all
    of them, again with the same event_ids or Idempotency-Key.
    """
    services = services_of(request)
    given = _parsed(await request.body())
    try:
        results = await _published(services, request.state.caller, given, idempotency_key)
    except Exception as error:
        _note_forgets(request, given, [status_of(error)] * len(given))
        raise
    _note_forgets(request, given, [_status(request, result) for result in results])
    if all(result.status is EventStatus.REJECTED for result in results):
        return invalid_request(
            [
                BrokenRule(field=".".join(filter(None, ("body", str(place), rule.field))), message=rule.message)
                for place, result in enumerate(results)
                for rule in result.errors
            ]
        )
    counts = {status: sum(result.status is status for result in results) for status in EventStatus}
    for status, count in counts.items():
        services.metrics.events.labels(status).inc(count)
    told = [result.model_dump(mode="json") for result in results]
    if failed := counts[EventStatus.FAILED]:
        raise ProblemError(
            Kind.KAFKA_UNAVAILABLE,
            f"Kafka did not confirm {failed} events; results says which, send them again",
            results=told,
        )
    return answer(
        {"accepted": counts[EventStatus.ACCEPTED], "rejected": counts[EventStatus.REJECTED], "results": told}, 202
    )


async def _published(
    services: Services, caller: Caller, given: Sequence[object], idempotency_key: str
) -> list[EventResult]:
    """Publish the events that are valid; return what became of each of them all."""
    sink = ensure_taken(services.sink)
    services.posted.spend(caller.name, len(given))
    moment = now_ms()
    results: list[EventResult] = []
    events: list[Event] = []
    for place, fields in enumerate(given):
        try:
            event = read_event(
                fields,
                services.store.users,
                reading=services.event_reading,
                now_ms=moment,
                idempotency_key=idempotency_key,
                place=place,
                may_forget=caller.role >= Role.OPERATE,
            )
        except RejectedEventError as error:
            results.append(EventResult(status=EventStatus.REJECTED, errors=error.errors))
        else:
            events.append(scoped(event, caller.name))
            results.append(EventResult(status=EventStatus.ACCEPTED, event_id=event.event_id))
    delivered = iter(await sink.deliver(events) if events else ())
    for result in results:
        if result.status is EventStatus.ACCEPTED and not next(delivered):
            result.status = EventStatus.FAILED
    return results


def _status(request: Request, result: EventResult) -> int:
    """Return the HTTP status that an event would have by itself."""
    if result.status is EventStatus.ACCEPTED:
        return HTTPStatus.ACCEPTED
    if result.status is EventStatus.FAILED:
        return Kind.KAFKA_UNAVAILABLE.status
    may_forget = request.state.caller.role >= Role.OPERATE
    return Kind.INVALID_REQUEST.status if may_forget else Kind.FORBIDDEN.status


def _note_forgets(request: Request, given: Sequence[object], statuses: Sequence[int]) -> None:
    """Write down who was to be erased: a line for each user who will be, one for all who will not for one reason."""
    audit, caller = services_of(request).audit, request.state.caller
    refused: dict[int, list[str]] = {}
    for fields, status in zip(given, statuses, strict=True):
        if isinstance(fields, dict) and fields.get("type") == EventType.FORGET:
            user = str(fields.get("user_id", ""))[:_LONGEST_USER_SHOWN]
            if status == HTTPStatus.ACCEPTED:
                audit.note(request, caller, status, forgotten=[user])
            else:
                refused.setdefault(status, []).append(user)
    for status, users in refused.items():
        audit.note(request, caller, status, forgotten=users)


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
