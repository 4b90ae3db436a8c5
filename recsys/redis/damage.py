"""What is in Redis and was not written by this project: said with the key's name, and with what to do."""

from __future__ import annotations

from typing import Any

import orjson

from recsys.errors import DamagedKey
from recsys.redis.keys import Keys
from recsys.runtime.user_names import named

_MOST_DIGITS = 15
"""Lua has all whole numbers of so many digits exactly; the scripts have the same rule: lua/common.lua."""
WRONG_KIND = "it holds the wrong kind of value"
_NO_ITEM_ID, _NO_SCORE = "an item of it has no item_id", "an item of it has no score"
_WRITTEN_AGAIN = "delete it: the trainer's next round, or recsys models rollback with the live version, writes it again"


def damaged(keys: Keys, key: str, problem: object) -> DamagedKey:
    """Return the error that names a key, what is wrong with it, and what to do."""
    shown = _with_user_named(keys, key)
    shown = shown if shown.isprintable() else repr(shown)
    return DamagedKey(f"Redis: the key {shown} is damaged: {problem}; {_advice(keys, key)}", key)


def _with_user_named(keys: Keys, key: str) -> str:
    """Return a key as log lines name it: one of a user's with the user's name."""
    begin, end = f"{keys.prefix}:{{", key.rfind("}:")
    return f"{begin}{named(key[len(begin) : end])}{key[end:]}" if key.startswith(begin) and end > 0 else key


def is_wrong_kind(error: object) -> bool:
    """Whether Redis says that a key is of another kind."""
    return isinstance(error, Exception) and "WRONGTYPE" in str(error)  # Redis 6.2 says first which script it was


def whole_or_none(value: bytes | None) -> int | None:
    """Return a number as this project writes it, None for anything else."""
    return int(value) if value is not None and value.isdigit() and len(value) <= _MOST_DIGITS else None


def whole_number(keys: Keys, key: str, value: bytes) -> int:
    """Return a number that is never negative.

    Raises
    ------
    DamagedKey
        When it is none, or larger than any that is written.
    """
    if (number := whole_or_none(value)) is not None:
        return number
    raise damaged(keys, key, f"it holds {value[:40]!r} in place of a number")


def json_object(keys: Keys, key: str, value: bytes) -> dict[str, Any]:
    """Return a JSON object.

    Raises
    ------
    DamagedKey
        When it is none.
    """
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise damaged(keys, key, f"it is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise damaged(keys, key, "it is no JSON object")
    return found


def list_problem(found: object) -> str:
    """Return what is wrong with a list, of a user or one that all share; empty for one as it should be."""
    if not isinstance(found, dict):
        return "it is no JSON object"
    if not isinstance(found.get("model"), str) or not isinstance(found.get("generated_at"), str):
        return "it does not say its model and time"
    items = found.get("items")
    if not isinstance(items, list):
        return "it has no items"
    try:
        for item in items:
            if type(item["item_id"]) is not str:
                return _NO_ITEM_ID
            if (kind := type(item["score"])) is not float and kind is not int:
                return _NO_SCORE
    except (KeyError, TypeError):
        return _NO_SCORE if isinstance(item, dict) and type(item.get("item_id")) is str else _NO_ITEM_ID
    return ""


def _advice(keys: Keys, key: str) -> str:
    named = {
        keys.model: "the trainer's next round writes a new one",
        keys.hidden: f"delete it and {keys.hidden_copy}: the trainer hides again what its copy in data_dir names",
        keys.hidden_copy: "delete it: the trainer hides again what its copy in data_dir names",
        keys.trainer_requests: "the trainer deletes it: ask again for retrains and rollbacks that wait",
        keys.trainer_status: "the next round writes it again",
        keys.trainer_lock: "delete it if no trainer and no command is at work",
        keys.readings: "delete it: records that are not archived yet are then read as the settings say now",
        keys.services: "delete it: services that run name themselves again within five seconds",
        keys.aside: "the trainer deletes it: users who are set aside are named again with their next events",
    }
    if key in named:
        return named[key]
    if key in (keys.titles, keys.unavailable, keys.catalogue):
        return "delete it, then import the items again with recsys items import"
    if key.startswith(keys.service("")):
        return "delete it: a service that runs writes its entry again within five seconds"
    if key.startswith(keys.marks("")):
        return "delete it, then run recsys rebuild"
    if key.startswith(keys.rebuild):
        return "delete it: recsys rebuild then begins anew"
    if key.startswith((keys.popular_in(None), f"{keys.prefix}:item:")):
        return _WRITTEN_AGAIN
    if key.endswith(("}:recs", "}:again")):
        return "the user's next event, the next model or recsys rebuild writes it again"
    return "recsys rebuild brings the user back"
