"""A shop's first day and the trainer's matrix: a file into archive and Redis, the archive into a sparse matrix.

Run: .venv/bin/python -m benchmarks bulk
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.results import Measured
from benchmarks.stream import open_shop
from recsys.demo import purchases
from recsys.storage.archive import Archive
from recsys.storage.files import Storage
from recsys.storage.segments import SCHEMA, Segment

_SEGMENT_ROWS = 1_000_000


def import_seconds(folder: Path) -> tuple[int, float]:
    """Return lines and seconds of `recsys import` of the whole Complete Journey year."""
    frame, _ = purchases.load()
    file = folder / "year.parquet"
    frame.to_parquet(file, index=False)
    with open_shop() as shop:
        columns = {
            "--user-id-column": "household_id",
            "--item-id-column": "product_id",
            "--timestamp-column": "transaction_timestamp",
        }
        started = time.perf_counter()
        shop.recsys("import", str(file), "--timezone", "UTC", *(part for pair in columns.items() for part in pair))
        return len(frame), time.perf_counter() - started


def write_archive(folder: Path, events: int) -> None:
    """Write synthetic events: users and items by a power law, a third with an event id."""
    archive = Archive(Storage(str(folder)))
    rng = np.random.default_rng(3)
    users = np.array([f"user-{number:07d}" for number in range(events // 20)])
    items = np.array([f"item-{number:06d}" for number in range(200_000)])
    round_ = archive.new_round(datetime.now(UTC))
    for first in range(0, events, _SEGMENT_ROWS):
        count = min(_SEGMENT_ROWS, events - first)
        numbers = np.arange(first, first + count)
        ids = pa.array([f"order-{number}" for number in numbers.tolist()], mask=numbers % 3 > 0)
        columns = {
            "user_id": users[(len(users) * rng.random(count) ** 1.5).astype(int)],
            "item_id": items[(len(items) * rng.random(count) ** 3).astype(int)],
            "type": np.full(count, "purchase"),
            "quantity": rng.integers(1, 5, count).astype(float),
            "price": rng.random(count),
            "timestamp": pa.array(numbers + 1_700_000_000_000, pa.int64()).cast(SCHEMA.field("timestamp").type),
            "event_id": ids,
            "offset": numbers,
        }
        table = pa.table(
            [
                pa.array(columns[name]) if not isinstance(columns[name], pa.Array) else columns[name]
                for name in SCHEMA.names
            ],
            names=SCHEMA.names,
        ).cast(SCHEMA)
        path = folder / Segment(round_, "8Jq4absFQfaeoSIaQnR8vw", 0, first, first + count - 1).path
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, compression="zstd", write_page_checksum=True)


def matrix_cost(folder: Path) -> tuple[float, float]:
    """Return seconds and the largest resident GiB of a process that builds the matrix from an archive."""
    code = (
        "import sys, time, resource\n"
        "from recsys.storage.archive import Archive; from recsys.storage.files import Storage\n"
        "started = time.perf_counter(); interactions = Archive(Storage(sys.argv[1])).events().interactions()\n"
        "print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    seconds, gibibytes = map(float, done.stdout.split())
    return seconds, gibibytes


def measure(*, quick: bool) -> list[Measured]:
    """Import the real year; build the matrix of twenty million synthetic events."""
    events = 1_000_000 if quick else 20_000_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines, taken = import_seconds(folder)
        write_archive(folder / "archive-of-many", events)
        seconds, gibibytes = matrix_cost(folder / "archive-of-many")
    case = f"archive of {events:,} events"
    return [
        Measured("bulk", f"{lines:,} lines of Complete Journey", "recsys import", taken, "s", at_most=60),
        Measured("bulk", case, "archive → matrix", seconds, "s", at_most=30),
        Measured("bulk", case, "largest resident memory", gibibytes, "GiB", at_most=4 * 10**9 / 2**30),
    ]
