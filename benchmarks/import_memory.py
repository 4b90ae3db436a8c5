"""What a large file costs `recsys import` and `recsys events check` in memory, and how fast its rows are read.

Run: .venv/bin/python -m benchmarks import-memory
Of another size: .venv/bin/python -m benchmarks.import_memory --gib 10 --form purchases
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import orjson

from benchmarks.results import Measured, machine, print_table
from tests.services import RedisServer

_USERS, _ITEMS = 50_000, 20_000
_FIRST_S = 1_750_000_000
_GIB, _MIB = 2**30, 2**20
_MAPPING = """
where = "value.status == 'paid'"
lines = "value.lines"
[fields]
user_id = "value.customer.id"
item_id = "line.sku"
quantity = "line.quantity"
price = "line.price"
timestamp = "value.paid_at"
event_id = ["value.id", "line.id"]
"""
_NOTE = "Please leave the parcel with the neighbours at number 7, who are at home from nine to five. "


class Form(NamedTuple):
    """A kind of file: its name, the options that read it, and its lines."""

    name: str
    options: tuple[str, ...]
    header: str
    line: Callable[[int, random.Random], str]


def _order(number: int, rng: random.Random) -> str:
    """Return an order of three lines, with all that a shop's order has besides."""
    lines = [
        {
            "id": at, "sku": f"sku-{int(_ITEMS * rng.random() ** 2):06d}", "quantity": rng.randrange(1, 5),
            "price": rng.randrange(100, 9_999) / 100, "title": f"An item of the shop, number {at}", "taxable": True,
        }
        for at in range(3)
    ]  # fmt: skip
    order = {
        "id": number, "status": "paid", "currency": "EUR", "paid_at": _FIRST_S + number, "note": _NOTE * 3,
        "customer": {"id": f"customer-{int(_USERS * rng.random() ** 1.5):07d}", "email": f"{number}@example.com"},
        "lines": lines,
    }  # fmt: skip
    return orjson.dumps(order).decode()


def _purchase(number: int, rng: random.Random) -> str:
    user, item = int(_USERS * rng.random() ** 1.5), int(_ITEMS * rng.random() ** 2)
    return f"customer-{user:07d},sku-{item:06d},{rng.randrange(1, 5)},{_FIRST_S + number},order-{number}"


FORMS = {
    "orders": Form("orders.jsonl", ("--mapping", "orders.toml"), "", _order),
    "purchases": Form("purchases.csv", (), "user_id,item_id,quantity,timestamp,event_id\n", _purchase),
}


def write_file(path: Path, form: Form, size_bytes: int) -> int:
    """Write a file of at least this size; return how many rows it has."""
    rng, rows = random.Random(1), 0
    with path.open("w", encoding="utf8") as file:
        written = file.write(form.header)
        while written < size_bytes:
            written += file.write(form.line(rows, rng) + "\n")
            rows += 1
    return rows


def cost_of(environment: dict[str, str], *arguments: str) -> tuple[float, float]:
    """Return the seconds and the largest resident MiB of a command."""
    started = time.perf_counter()
    process = os.posix_spawn(sys.executable, [sys.executable, "-m", "recsys", *arguments], environment)
    _, status, usage = os.wait4(process, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise RuntimeError(f"recsys {' '.join(arguments)} ended with {code}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def measured(form: Form, size_bytes: int) -> Iterator[Measured]:
    """Check and import a file of this form and size, in a Redis and an archive of their own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, mapping = folder / form.name, folder / "orders.toml"
        mapping.write_text(_MAPPING)
        rows = write_file(path, form, size_bytes)
        options = [str(mapping) if option == mapping.name else option for option in form.options]
        server = RedisServer(folder)
        server.start()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")} | {
            "RECSYS_REDIS__URL": server.url,
            "RECSYS_DATA_DIR": str(folder / "data"),
        }
        case = f"{form.name}, {path.stat().st_size / _GIB:.2f} GiB, {rows:,} rows"
        try:
            for command in (("events", "check"), ("import",)):
                arguments = [*command, str(path), *options]
                if command == ("import",):
                    arguments += ["--rejects", str(folder / "rejects")]
                seconds, largest = cost_of(environment, *arguments)
                what = f"recsys {' '.join(command)}"
                yield Measured("import-memory", case, what, rows / seconds, "rows/s")
                yield Measured("import-memory", case, f"{what}: largest resident memory", largest, "MiB", at_most=1024)
        finally:
            server.kill()


def measure(*, quick: bool) -> list[Measured]:
    """Check and import a file of orders, and one of purchases."""
    size_bytes = _GIB // 20 if quick else _GIB
    return [found for form in FORMS.values() for found in measured(form, size_bytes)]


def main() -> None:
    """Measure one form of file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.import_memory")
    parser.add_argument("--gib", type=float, default=1.0, help="size of the file; default: 1")
    parser.add_argument("--form", choices=FORMS, default="orders")
    options = parser.parse_args()
    print(machine(), flush=True)
    print_table(list(measured(FORMS[options.form], round(options.gib * _GIB))))


if __name__ == "__main__":
    main()
