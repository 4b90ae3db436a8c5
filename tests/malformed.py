"""A fuzzer of records that break the event contract: every rule of docs/contract.md, in every way, from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable

from recsys.data.epoch import OLDEST_MS
from recsys.data.event import MAX_RECORD_BYTES

Fields = dict[str, bytes]
Way = Callable[[random.Random], bytes | None]

_NO_NUMBER = (b"true", b"false", b"[]", b"[1]", b"{}", b'{"a": 1}', b'"1"', b'""', b"NaN", b"Infinity", b"-Infinity")
_HUGE = (b"1e400", b"-1e400", b"9" * 5000, b"-" + b"9" * 5000, b"18446744073709551616", b"-9223372036854775809")
_CONTROL = (b'"\\u0000"', b'"a\\nb"', b'"\\t"', b'"\\u007f"', b'"\\u0085"', b'"\\u009f"', b'"\\u001b[31m"', b'"a\nb"')
_BROKEN_TEXT = (
    b'"\\ud800"',
    b'"\\udc00\\ud800"',
    b'"\xed\xa0\x80"',
    b'"\xff"',
    b'"\xc3"',
    b'"\\x41"',
    b"'single'",
    b"bare",
)
_NO_ID = (b"true", b"1.5", b"[]", b'["a"]', b"{}", b'""', *_HUGE, *_CONTROL, *_BROKEN_TEXT, b"NaN")
WRONG: dict[str, tuple[bytes, ...]] = {
    "user_id": (*_NO_ID, b"null", b'"%s"' % (b"u" * 257), '"{}"'.format("😀" * 257).encode()),
    "item_id": (*_NO_ID, b"null", b'"%s"' % (b"i" * 257), b'"%s"' % (b"\\u00e9" * 257)),
    "event_id": (*_NO_ID, b'"%s"' % (b"e" * 129), '"{}"'.format("é" * 129).encode()),
    "type": (b'"Purchase"', b'"sale"', b'""', b"1", b"true", b"[]", b'{"type": "purchase"}', b'"purchase "', *_CONTROL),
    "quantity": (*_NO_NUMBER, *_HUGE, b"0", b"-1", b"-0.0", b"1e-400", b"1000000.001", b"1000001", b"0x10", b"+1"),
    "price": (b"NaN", b"Infinity", b"1e400", b"-1e400", b"3,5", b"3.5.1"),
    "timestamp": (
        *_HUGE, *_CONTROL, b"-1", b"0", b"1", b"20669", b"20261122", b"631151999", b"631151999999", b"20261122101112",
        b"253402300800", b"253402300800000", b"1.5", b"true", b"[]", b"{}", b"NaN", b'""', b'"yesterday"',
        b'"1795342272000"', b'"2026-11-22"', b'"2026-11-22T10:11:12"', b'"2026-11-22T10:11Z"',
        b'"2026-11-22T10:11:12 Z"', b'"2026-13-01T10:11:12Z"', b'"2026-02-30T10:11:12Z"', b'"2026-11-22T25:11:12Z"',
        b'"2026-11-22T10:61:12Z"', b'"2026-11-22T10:11:12+25:00"', b'"1969-12-31T23:59:59Z"',
        b'"0000-11-22T10:11:12Z"', b'"10000-01-01T00:00:00Z"', b'"9999-12-31T23:59:59-01:00"',
        b'"2100-01-01T00:00:00.001Z"', b'"9999-12-31T23:59:59Z"',
        b'"2026-02-30T10:11:12.%sZ"' % (b"1" * 60_000), '"２０２６-11-22T10:11:12Z"'.encode(),
    ),
}  # fmt: skip
"""By field, JSON texts that break its rule, or JSON's own."""


def _valid(rng: random.Random) -> Fields:
    """Return a purchase that keeps every rule, unlike any other."""
    return {
        "user_id": b'"malformed-%d"' % rng.randrange(100),
        "item_id": b'"sku-%d"' % rng.randrange(1000),
        "event_id": b'"m-%016x"' % rng.getrandbits(64),
        "quantity": b"%d" % rng.randint(1, 9),
        "timestamp": b"%d" % rng.randint(OLDEST_MS, 1_795_342_272_000),
    }


def _record(fields: Fields, rng: random.Random) -> bytes:
    named = [b'"%s": %s' % (name.encode(), text) for name, text in fields.items()]
    rng.shuffle(named)
    return b"{" + b", ".join(named) + b"}"


def _wrong_value(field: str, text: bytes) -> Way:
    return lambda rng: _record(_valid(rng) | {field: text}, rng)


def _without(*fields: str, type_: bytes = b'"purchase"') -> Way:
    return lambda rng: _record({n: t for n, t in _valid(rng).items() if n not in fields} | {"type": type_}, rng)


def _around(change: Callable[[bytes, random.Random], bytes]) -> Way:
    return lambda rng: change(_record(_valid(rng), rng), rng)


def _padded(size: int) -> Way:
    return lambda rng: _record(_valid(rng) | {"note": b'"%s"' % (b"x" * size)}, rng)


def _nested(opening: bytes, closing: bytes, depth: int) -> Way:
    return lambda rng: _record(_valid(rng) | {"note": opening * depth + b"1" + closing * depth}, rng)


WAYS: list[Way] = [
    *(_wrong_value(field, text) for field, texts in WRONG.items() for text in texts),
    _without("user_id"),
    _without("user_id", type_=b'"forget"'),
    _without("item_id"),
    _without("item_id", type_=b'"return"'),
    _without("user_id", "item_id"),
    _padded(MAX_RECORD_BYTES),
    _padded(300_000),
    _nested(b"[", b"]", 20_000),
    _nested(b'{"a":', b"}", 9_000),
    lambda rng: None,
    lambda rng: b"",
    lambda rng: b" " * rng.randint(1, 9),
    lambda rng: b"null",
    lambda rng: b"{}",
    lambda rng: b"%d" % rng.getrandbits(63),
    lambda rng: b'"%016x"' % rng.getrandbits(64),
    lambda rng: b"\xff" + rng.randbytes(rng.randint(1, 300)),
    lambda rng: b"\x00" + rng.randbytes(rng.randint(1, 300)),
    lambda rng: b"\x1f\x8b\x08" + rng.randbytes(rng.randint(1, 300)),  # what gzip would begin with
    _around(lambda record, rng: record[: rng.randint(1, len(record) - 1)]),
    _around(lambda record, rng: record[rng.randint(1, len(record)) :]),
    _around(lambda record, rng: b"[" + record + b"]"),
    _around(lambda record, rng: record + record),
    _around(lambda record, rng: record + b"\n" + record),
    _around(lambda record, rng: record + b"}"),
    _around(lambda record, rng: b"\xef\xbb\xbf" + record),
    _around(lambda record, rng: b"// " + record),
    _around(lambda record, rng: record.decode().encode("utf-16")),
    _around(lambda record, rng: record.replace(b'"', b"'")),
    _around(lambda record, rng: record.replace(b": ", b" = ")),
    _around(lambda record, rng: record.replace(b", ", b",, ", 1)),
]  # fmt: skip
"""Each makes a record that breaks the contract in one way."""


def malformed_records(seed: int, count: int) -> list[bytes | None]:
    """Make records that break the contract: in every way once if there are so many, in ways by chance beyond that."""
    rng = random.Random(seed)
    ways = rng.sample(WAYS, len(WAYS))[:count]
    ways += rng.choices(WAYS, k=count - len(ways))
    return [way(rng) for way in ways]
