"""`make fuzz`: hostile files and records from a seed, for as long as one likes.

Whatever a file holds, reading it ends with one clear error, or every row is accounted for; whatever a record holds, it
is an event that keeps the contract, or malformed for one short reason. Every case has a number, and
``python -m tests.fuzz --case N`` does it once more.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import datetime
import gzip
import io
import json
import random
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.data.epoch import LAST_MS, EpochUnit
from recsys.data.event import Event, EventReading, EventType, decode
from recsys.data.mapping import EventMapping
from recsys.errors import InputFileError, MalformedEvent
from recsys.files.batches import RowCounts
from recsys.files.columns import Columns
from recsys.files.items import ItemColumns, read_items
from recsys.files.mapped import MappedFile
from recsys.files.purchases import PurchaseFile
from recsys.files.rejects import RejectsFile
from recsys.files.tables import CsvForm
from recsys.operations.known_rows import Identities
from recsys.operations.record_sources import FileRecords
from tests.malformed import malformed_records

NOW = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC)
NOW_MS = 1_795_348_800_000
READING = EventReading(no_user=frozenset({"0", "null", "nan"}))
_LONGEST_REASON = 600

IDS = (
    "u1", "42", "17850.0", "17850", "00123", "1,23E+05", "NULL", "\\N", "nan", "0", "-1", "", " ", "a" * 300, "é", "🛒",
    "a}b", "a\u0085b", "x;y", 'in"ch', '"', "a,b", "\ufeffu", "None", "-0", "1e5", "٣", "\u202eabc", "true", "0.0",
    "007.0",
)  # fmt: skip
NUMBERS = (
    "1", "2.5", "1,5", "1.200", "1,200", "1.200,50", "1,200.50", "1 234,5", "1'000", "1_000", "(2)", "-2", "inf", "nan",
    "1e3", "1e400", "", "NULL", "٣", "0", "0.0000001", "1000001", "+1", ".5", "5.", "2-", "€3", "1.2.3", "9" * 400,
    "1e-400", "\u00a05",
)  # fmt: skip
TIMES = (
    "2026-10-01", "2026-10-01T09:30:00Z", "2026-10-01 09:30", "01.10.2026", "10/01/2026", "1790000000", "1790000000000",
    "1790000000000000", "1790000000000000000", "1790000000.5", "20261001", "20362", "0", "-1", "", "NULL", "yesterday",
    "9999-12-31T23:59:59Z", "0001-01-01", "10000-01-01", "9" * 30, "1,79E+12", "2026-02-30", "2026-10-01T25:00:00",
    "4070908800", "2026-W01-1", "20261001T093000", "2026-10-01T09:30:00+99:00", "1790000000000.0", "46296.5", "inf",
    "nan",
)  # fmt: skip
TYPES = ("purchase", "return", "forget", "", "sale", "NULL", "Purchase", "1")
TITLES = (
    "pot",
    'pan 12" wide',
    '"24in monitor',
    '5" nail',
    '"quoted, text"',
    '"two\nlines"',
    '"a\r\nb"',
    "",
    '""',
    '"\\" x"',
    "'",
)


MAPPING = """
where = "value.state == 'paid'"
lines = "value.rows"
timezone = "Europe/London"
[fields]
user_id = "value.buyer"
item_id = "line.sku"
quantity = "line.n"
timestamp = "value.at"
event_id = ["value.no", "number"]
"""
COUNT_GOOD_LINES = (f'lines_that_are_good = "count"\nnegative_quantity = "return"\n{MAPPING}',)
ONE_LINE = """
missing_user = "skip"
[fields]
user_id = "value.buyer"
item_id = "value.no"
quantity = "length(value.rows || `[]`)"
timestamp = "value.at"
"""
MAPPINGS = (MAPPING, ONE_LINE, *COUNT_GOOD_LINES)


@dataclass
class Report:
    """What came of the cases."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)


def run(*, minutes: float, seed: int, say: Callable[[str], None] = lambda _: None) -> Report:
    """Try cases for some minutes, numbered from a seed on."""
    report, number, until, said = Report(), seed, time.monotonic() + 60 * minutes, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="recsys-fuzz-") as folder:
        while time.monotonic() < until:
            attempt(number, Path(folder), report)
            number += 1
            if time.monotonic() - said > 10:
                said = time.monotonic()
                say(f"{number - seed:,} cases, {len(report.failures)} failures: {dict(report.outcomes.most_common(6))}")
    return report


def attempt(number: int, folder: Path, report: Report) -> None:
    """Do one case, and note what came of it."""
    rng = random.Random(number)
    try:
        report.outcomes[rng.choice(CASES)(rng, folder)] += 1
    except Exception:
        report.failures.append((number, traceback.format_exc()))


def _csv_case(rng: random.Random, folder: Path) -> str:
    delimiter = rng.choice(",;\t|")
    encoding = rng.choice(("utf-8", "utf-8-sig", "cp1252", "utf-16", "latin-1"))
    content = _csv_text(rng, delimiter).encode(encoding, "replace")
    form = (delimiter, encoding) if rng.random() < 0.9 else None
    return _read(rng, folder, _damaged(rng, content) if rng.random() < 0.2 else content, form)


def _bytes_case(rng: random.Random, folder: Path) -> str:
    start = rng.choice(
        (
            b"",
            b"user_id,item_id,timestamp\n",
            b"PAR1",
            b"\x1f\x8b\x08\x00",
            b"\xef\xbb\xbf",
            b"\xff\xfe",
            b"PK\x03\x04",
            b'{"',
            b"\x28\xb5\x2f\xfd",
        )
    )
    return _read(rng, folder, start + rng.randbytes(rng.choice((0, 1, 7, 100, 5_000))))


def _json_case(rng: random.Random, folder: Path) -> str:
    """JSON Lines, also packed: of values of every kind, and damaged."""
    odd = (None, True, 17850.0, 2**53 + 1, 10**25, -1, [1], {"a": "b"}, "\ud800", "a\nb", "\0", 1_790_000_000)
    texts = {"timestamp": TIMES, "quantity": NUMBERS, "price": NUMBERS, "type": TYPES, "title": TITLES}
    lines = []
    for _ in range(rng.randint(0, 12)):
        names = ("user_id", "item_id", "timestamp", *rng.sample(("quantity", "price", "event_id", "type", "title"), 2))
        row = {name: rng.choice(odd if rng.random() < 0.1 else texts.get(name, IDS)) for name in names}
        lines.append(json.dumps(row) if rng.random() < 0.9 else rng.choice(("", "[]", "{", "{}", json.dumps([row]))))
    content = "\n".join(lines).encode(rng.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16")))
    return _read(rng, folder, _damaged(rng, content) if rng.random() < 0.3 else content)


def _parquet_case(rng: random.Random, folder: Path) -> str:
    rows = rng.randint(0, 12)
    buffer = io.BytesIO()
    columns = {
        name: _column(rng, name, rows) for name in ("user_id", "item_id", "timestamp", "quantity", "price", "event_id")
    }
    if rng.random() < 0.5:
        columns["extra"] = rng.choice((pa.array([[1]] * rows, pa.list_(pa.int64())), pa.nulls(rows)))
    if rng.random() < 0.3:
        del columns[rng.choice(list(columns))]
    pq.write_table(pa.table(columns), buffer, row_group_size=rng.choice((1, 5, 1_000)))
    content = buffer.getvalue()
    return _read(rng, folder, _damaged(rng, content) if rng.random() < 0.3 else content)


def _column(rng: random.Random, name: str, rows: int) -> pa.Array:
    texts = {"timestamp": TIMES, "quantity": NUMBERS, "price": NUMBERS}.get(name, IDS)
    whole = [rng.choice((0, 1, 17850, 1_790_000_000, 1_790_000_000_000, 2**62, -5)) for _ in range(rows)]
    makers: list[Callable[[], pa.Array]] = [
        lambda: pa.array([rng.choice((None, *texts)) for _ in range(rows)], pa.string()),
        lambda: pa.array([rng.choice(texts).encode() + rng.choice((b"", b"\xff")) for _ in range(rows)], pa.binary()),
        lambda: pa.array(whole, pa.int64()),
        lambda: pa.array([abs(value) for value in whole], pa.uint64()),
        lambda: pa.array(
            [rng.choice((None, float("nan"), float("inf"), float(value))) for value in whole], pa.float64()
        ),
        lambda: pa.array([Decimal(value) for value in whole], pa.decimal128(38, rng.choice((0, 2)))),
        lambda: pa.array(whole, pa.timestamp(rng.choice(("ms", "us", "ns")), tz=rng.choice((None, "UTC", "+05:30")))),
        lambda: pa.array([rng.choice((None, datetime.date(2026, 10, 1))) for _ in range(rows)], pa.date32()),
        lambda: pa.array([bool(value % 2) for value in whole]),
        lambda: pa.array([rng.choice(texts) for _ in range(rows)]).dictionary_encode(),
        lambda: pa.nulls(rows),
        lambda: pa.array([{"a": value} for value in whole], pa.struct([("a", pa.int64())])),
        lambda: pa.ExtensionArray.from_storage(
            pa.uuid(), pa.array([rng.randbytes(16) for _ in range(rows)], pa.binary(16))
        ),
    ]
    return rng.choice(makers)()


def _items_case(rng: random.Random, folder: Path) -> str:
    path = folder / "items.csv"
    lines = [["item_id", "title", "category", "available"]]
    stocks = ("true", "no", "5", "-1", "maybe", "", "NULL", "inf", "1e3")
    lines += [
        [rng.choice(IDS), rng.choice(TITLES), rng.choice(IDS), rng.choice(stocks)] for _ in range(rng.randint(0, 9))
    ]
    text = "\n".join(",".join(line) for line in lines)
    path.write_bytes(_damaged(rng, text.encode()) if rng.random() < 0.3 else text.encode())
    try:
        found = read_items(path, ItemColumns(), CsvForm(), integer_ids=rng.choice((None, True, False)))
    except InputFileError as error:
        return _clear(error, "items")
    assert found.rows == found.valid + len(found.rejects)
    assert all(item_id and len(item_id) <= 256 for item_id in found.catalogue.items)
    return "items: read"


def _record_case(rng: random.Random, folder: Path) -> str:
    values = malformed_records(rng.getrandbits(32), 4)
    fields: dict[str, Any] = {
        "user_id": rng.choice((*IDS, 7, 1.5, None)), "item_id": rng.choice(IDS),
        "quantity": rng.choice((1, 2.5, "1", 0, None)),
        "price": rng.choice((1, "3.50", -1, None, [])), "type": rng.choice((None, *TYPES)),
        "timestamp": rng.choice((None, *TIMES, 1_790_000_000, 20_261_001, rng.getrandbits(62), -1, True)),
        rng.choice(("event_name", "op", "payload", "__deleted")): rng.choice(("view", "d", {"after": 1}, "true")),
    }  # fmt: skip
    text = json.dumps(fields).encode()
    values += [text, _damaged(rng, text), b"\x00\x00\x00\x00\x07" + text, json.dumps([fields]).encode()]
    for value in values:
        try:
            event = decode(value, record_timestamp_ms=rng.choice((None, NOW_MS)), reading=READING)
        except MalformedEvent as error:
            _ensure_short(error.reason)
            continue
        _ensure_valid(event)
    return "records: decoded or malformed"


def _orders_case(rng: random.Random, folder: Path) -> str:
    """Orders with their lines inside, of all kinds of files, read by a mapping."""
    rows = [_order(rng) for _ in range(rng.randint(0, 12))]
    kind = rng.choice(("jsonl", "csv", "parquet"))
    encoding = rng.choice(("utf-8", "utf-8", "utf-16", "cp1252"))
    if kind == "jsonl":
        lines = [json.dumps(row) if rng.random() < 0.9 else rng.choice(("", "[]", "{", "{}")) for row in rows]
        content = "\n".join(lines).encode(encoding, "replace")
    elif kind == "csv":
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, list(_order(rng)))
        table.writeheader()
        table.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
        content = text.getvalue().encode(encoding, "replace")
    else:
        buffer = io.BytesIO()
        columns = {name: [_cell(row[name]).encode(errors="replace").decode() for row in rows] for name in _order(rng)}
        pq.write_table(pa.table(columns), buffer)
        content = buffer.getvalue()
    path = folder / "orders"
    path.write_bytes(_damaged(rng, content) if rng.random() < 0.3 else content)
    form = CsvForm(encoding if rng.random() < 0.9 else "utf-8")
    try:
        return _read_orders(path, rng.choice(MAPPINGS), form, folder / "rejects")
    except InputFileError as error:
        return _clear(error, "orders")


def _order(rng: random.Random) -> dict[str, Any]:
    deep = "[" * rng.choice((10, 250, 254)) + '"x"'
    lines: list[Any] = [
        {"sku": rng.choice(IDS), "n": rng.choice((1, 0, -2, *NUMBERS))} for _ in range(rng.randint(0, 3))
    ]
    odd: tuple[Any, ...] = (
        None,
        [],
        [None],
        "text",
        7,
        [[[1]]],
        {"a": lines},
        json.loads(deep + "]" * deep.count("[")),
    )
    return {
        "no": rng.choice((rng.randrange(50), rng.choice(IDS), None)),
        "state": rng.choice(("paid", "paid", "open", None)),
        "buyer": rng.choice(IDS),
        "at": rng.choice(TIMES),
        "rows": lines if rng.random() < 0.8 else rng.choice(odd),
    }


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _read_orders(path: Path, mapping: str, form: CsvForm, rejects: Path) -> str:
    def opened(path: Path) -> MappedFile:
        return MappedFile(path, EventMapping.parse(mapping, name="m"), form=form, events=READING, now=NOW)

    file, counts, events = opened(path), RowCounts(), 0
    with file.rejects_file(rejects) as rejected:
        for batch in file.batches():
            counts.note(batch)
            rejected.add(batch.rejects)
            for reject in batch.rejects:
                _ensure_short(reject.reason)
            for _, event in batch.events:
                _ensure_valid(event)
            events += len(batch.events)
    assert (counts.rows, rejected.count) == (file.rows, counts.rejected_rows)
    assert counts.read == counts.valid + counts.rejected + counts.no_user + counts.left_out, counts
    assert all(one.value is not None for one in FileRecords(file).newest(5))
    if rejected.count and mapping not in COUNT_GOOD_LINES:
        with contextlib.suppress(InputFileError):
            taken = [event for batch in opened(rejects).batches() for event in batch.events]
            assert not taken, f"what nobody has mended is rejected again: {taken[0]}"
    return "orders: read" if events else "orders: nothing valid"


def _csv_text(rng: random.Random, delimiter: str) -> str:
    names = ["user_id", "item_id", "timestamp", "quantity", "price", "event_id", "type", "title"]
    values = (IDS, IDS, TIMES, NUMBERS, NUMBERS, IDS, TYPES, TITLES)
    places = sorted(rng.sample(range(8), rng.randint(3, 8))) if rng.random() < 0.3 else list(range(8))
    if rng.random() < 0.05:
        names[rng.randrange(8)] = rng.choice(("user_id", "", "why", " item_id "))
    rows = [[names[place] for place in places]]
    chosen: list[Sequence[str]] = [rng.sample(options, 2) if rng.random() < 0.3 else options for options in values]
    if rng.random() < 0.8:  # nearly always a column is written in one way, as in life
        chosen[2] = rng.choice(
            (TIMES[:3], TIMES[:1], TIMES[5:6], TIMES[6:7], TIMES[7:8], TIMES[8:9], TIMES[5:6] + TIMES[13:16])
        )
        chosen[3] = rng.choice(
            (NUMBERS[:2], NUMBERS[:3:2], ("1", "1,5", "1.200"), ("1", "0.5", "1.200"), ("3", "", "-2", "x"))
        )
    for _ in range(rng.choice((0, 1, 3, 20, 200))):
        row = [rng.choice(chosen[place]) for place in places]
        if rng.random() < 0.02:
            row = row[: rng.randint(0, len(row))] + ["x"] * rng.randint(0, 3)
        rows.append(row)
    end = rng.choice(("\n", "\r\n", "\r"))
    return end.join(delimiter.join(row) for row in rows) + rng.choice(("", end))


def _damaged(rng: random.Random, content: bytes) -> bytes:
    if not content:
        return content
    at = rng.randrange(len(content))
    ways: Sequence[Callable[[], bytes]] = (
        lambda: content[:at],
        lambda: content[:at] + rng.randbytes(rng.randint(1, 9)) + content[at + rng.randint(0, 9) :],
        lambda: content[:at] + b'"' + content[at:],
        lambda: content[:at] + b"\0" + content[at:],
        lambda: content + content,
        lambda: gzip.compress(content, mtime=0),
        lambda: gzip.compress(content, mtime=0)[:-at] if at else content,
        lambda: _zstd(content),
        lambda: _zstd(content)[: at + 1],
        lambda: _zip(content),
        lambda: _zip(content)[: at + 1],
        lambda: _zip(content).replace(b"\0", bytes([rng.randrange(256)]), rng.randint(1, 9)),
    )
    return rng.choice(ways)()


def _zstd(content: bytes) -> bytes:
    packed: bytes = pa.compress(content, "zstd", asbytes=True)
    return packed


def _zip(content: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("a.csv"), content, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def _read(rng: random.Random, folder: Path, content: bytes, form: tuple[str, str] | None = None) -> str:
    path = folder / rng.choice(("a.csv", "a.parquet", "a.jsonl", "a.txt"))
    path.write_bytes(content)
    delimiter, encoding = form or (rng.choice(",;|"), rng.choice(("utf8", "cp1252", "utf-16")))
    columns = Columns(
        timezone=rng.choice(("UTC", "Europe/Berlin", "America/New_York")),
        timestamp_format="" if rng.random() < 0.9 else rng.choice(("%Y%m%d", "%d.%m.%Y")),
        timestamp_unit="" if rng.random() < 0.9 else rng.choice(tuple(EpochUnit)),
        decimal="" if rng.random() < 0.7 else rng.choice(".,"),
        thousands="" if rng.random() < 0.8 else rng.choice(".,' "),
        integer_ids=rng.choice((None, True, False)),
        no_user=rng.choice(((), ("u1",))),
        negative_returns=rng.random() < 0.3,
        encoding=encoding,
        delimiter=delimiter,
    )
    try:
        found = _events(path, columns, folder / "rejects.csv")
    except InputFileError as error:
        return _clear(error, "file")
    counts, events = found
    assert _events(path, columns, folder / "rejects.csv")[1] == events, "the same file is read alike"
    assert counts.read == counts.valid + counts.rejected + counts.no_user, counts
    for event in events:
        _ensure_valid(event)
    if events:
        assert len(Identities.of_events(events).hashes) == len(events)
    return "file: read" if events else "file: nothing valid"


def _events(path: Path, columns: Columns, rejects: Path) -> tuple[RowCounts, list[Event]]:
    file = PurchaseFile(path, columns, events=READING, now=NOW)
    assert all(remark.isprintable() for remark in file.remarks), file.remarks
    counts, events, last = RowCounts(), [], 0
    with RejectsFile(rejects, file.table) as rejected:
        for batch in file.batches():
            counts.note(batch)
            rejected.add(batch.rejects)
            placed = sorted([*(row for row, _ in batch.events), *(reject.row for reject in batch.rejects)])
            assert len(set(placed)) == len(placed), "no row is both"
            assert batch.first_row == last + 1
            assert all(batch.first_row <= row <= batch.last_row for row in placed)
            last = batch.last_row
            events += [event for _, event in batch.events]
    assert (rejected.count, last) == (counts.rejected, file.rows)
    if rejected.count:
        again = PurchaseFile(rejects, columns, events=READING, now=NOW)
        assert again.table.names == [name for name in file.table.names if name != "why"] + ["why"]
        with contextlib.suppress(InputFileError):
            taken = [event for batch in again.batches() for event in batch.events]
            assert not taken, f"what nobody has mended is rejected again: {taken[0]}"
    return counts, events


def _ensure_short(reason: str) -> None:
    assert 0 < len(reason) < _LONGEST_REASON, reason
    assert reason.isprintable(), reason


def _ensure_valid(event: Event) -> None:
    assert 1 <= len(event.user_id) <= 256
    assert (event.item_id is None) == (event.type is EventType.FORGET)
    assert 0 < event.quantity <= 1e6
    assert 0 <= event.timestamp <= LAST_MS
    assert event.price is None or 0 <= event.price < float("inf")


def _clear(error: InputFileError, what: str) -> str:
    assert 0 < len(str(error)) < 3_000
    assert "\n" not in str(error).strip(), str(error)
    return f"{what}: one clear error"


CASES: Sequence[Callable[[random.Random, Path], str]] = (
    _csv_case,
    _csv_case,
    _json_case,
    _bytes_case,
    _parquet_case,
    _orders_case,
    _items_case,
    _record_case,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print what came of it, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Hostile files and records, from a seed.")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0, help="number of the first case")
    parser.add_argument("--case", type=int, help="do this case alone")
    options = parser.parse_args(arguments)
    if options.case is not None:
        report = Report()
        with tempfile.TemporaryDirectory(prefix="recsys-fuzz-") as folder:
            attempt(options.case, Path(folder), report)
    else:
        report = run(
            minutes=options.minutes, seed=options.seed, say=lambda text: print(text, file=sys.stderr, flush=True)
        )
    for outcome, count in report.outcomes.most_common():
        print(f"{count:>10,}  {outcome}")
    for number, trace in report.failures[:5]:
        print(f"\npython -m tests.fuzz --case {number}\n{trace}")
    print(f"{report.outcomes.total() + len(report.failures):,} cases, {len(report.failures)} failures")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
