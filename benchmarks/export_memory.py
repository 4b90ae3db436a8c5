"""What `recsys export` costs in memory, and how many lists it writes a second.

Run: .venv/bin/python -m benchmarks export-memory
Of another size: .venv/bin/python -m benchmarks.export_memory --users 1000000
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import redis

from benchmarks.import_memory import cost_of
from benchmarks.results import Measured, machine, print_table
from tests.services import RedisServer

_AT_ONCE = 5_000
_ITEMS = 10


def _fill(server: RedisServer, users: int) -> None:
    """Give so many users a history and a list, as consumers leave them."""
    model = {"model": "20260101T000000Z-000000", "generated_at": "2026-01-01T00:00:00.000Z"}
    items = [{"item_id": f"sku-{number:06d}", "score": 1 / (number + 1)} for number in range(_ITEMS)]
    client = redis.Redis(port=server.port)
    client.set("recsys:popular", json.dumps({**model, "items": items}))
    for first in range(0, users, _AT_ONCE):
        pipeline = client.pipeline(transaction=False)
        for number in range(first, min(first + _AT_ONCE, users)):
            user = f"customer-{number:08d}"
            listed = {"user_id": user, **model, "revision": 1, "items": items}
            pipeline.hset(f"recsys:{{{user}}}:history", "sku-000001", "1|1767225600")
            pipeline.set(f"recsys:{{{user}}}:recs", json.dumps(listed))
        pipeline.execute()
    client.close()


def measured(users: int) -> Iterator[Measured]:
    """Export the lists of so many users, in each format."""
    with tempfile.TemporaryDirectory() as name:
        server = RedisServer(Path(name))
        server.start()
        try:
            _fill(server, users)
            environment = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")} | {
                "RECSYS_REDIS__URL": server.url,
                "RECSYS_DATA_DIR": f"{name}/data",
                "RECSYS_KAFKA__TIMEOUT_S": "1",
            }
            for suffix in ("csv", "jsonl", "parquet"):
                seconds, largest = cost_of(environment, "export", "--out", f"{name}/lists.{suffix}")
                case = f"{users:,} users, {_ITEMS} items each, .{suffix}"
                yield Measured("export-memory", case, "recsys export", users / seconds, "lists/s")
                yield Measured("export-memory", case, "largest resident memory", largest, "MiB", at_most=1024)
        finally:
            server.kill()


def measure(*, quick: bool) -> list[Measured]:
    """Export many lists."""
    return list(measured(50_000 if quick else 1_000_000))


def main() -> None:
    """Measure one size."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export_memory")
    parser.add_argument("--users", type=int, default=1_000_000, help="default: 1,000,000")
    print(machine(), flush=True)
    print_table(list(measured(parser.parse_args().users)))


if __name__ == "__main__":
    main()
