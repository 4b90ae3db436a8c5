"""The demo: a grocer's year, eleven months as history and December live, on one machine with nothing installed."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
from rich.console import Console

from recsys.demo import purchases
from recsys.demo.display import live_view, story_table, summary_table
from recsys.demo.services import consumer_process, redis_server, train_once, trainer_process
from recsys.demo.stream import December
from recsys.kafka.embedded import embedded_broker
from recsys.kafka.producer import Publisher
from recsys.operations.import_history import import_file
from recsys.operations.purchase_files import Columns, PurchaseFile
from recsys.redis import Store, open_store
from recsys.runtime.clock import now
from recsys.runtime.progress import ProgressReporter
from recsys.settings import CONFIG_VARIABLE, ENV_PREFIX, Settings, load_settings
from recsys.storage.data_dir import open_data_dir

_EVENTS_PER_S = 1500.0
_ADDRESSES = ("RECSYS_KAFKA__BOOTSTRAP_SERVERS", "RECSYS_REDIS__URL", "RECSYS_DATA_DIR")


def run_demo(*, keep: bool) -> None:
    """Run the demo; with ``keep``, leave its services running until Ctrl-C."""
    # Whatever ends the demo, everything that it started ends with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console(highlight=False, markup=False, width=None if os.environ.get("COLUMNS") else _width())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recsys-demo-")))
        settings = _start_services(stack, folder)
        console.print(
            f"embedded Kafka at {settings.kafka.bootstrap_servers}, Redis at "
            f"{settings.redis.url.get_secret_value()}, data in {settings.data_dir}"
        )
        store = stack.enter_context(open_store(settings))
        transactions, titles = purchases.load()
        owned = _import_history(settings, store, folder, transactions, console)
        console.print("\nTraining the model and making every household's first list")
        train_once()
        console.print("\nStarting the consumer, and December")
        consumer = stack.enter_context(consumer_process(folder))
        consumer.await_ready()
        households = sorted(owned)
        stale = {
            household: [entry["item_id"] for entry in published["items"]]
            for household, published in zip(households, store.users.lists(households), strict=True)
            if published
        }
        with Publisher(settings.kafka) as publisher:
            baskets = list(purchases.live_baskets(transactions))
            december = December(baskets, store, publisher, consumer, owned, stale)
            with live_view(console) as view:
                outcome = december.play(
                    events_per_s=_EVENTS_PER_S,
                    show=view.show,
                    tell=lambda story: console.print(story_table(story, titles)),
                )
        console.print(summary_table(outcome))
        if keep:
            stack.enter_context(trainer_process(folder))
            _wait_for_interrupt(console)


def _width() -> int | None:
    return None if Console().is_terminal else 120


def _start_services(stack: ExitStack, folder: Path) -> Settings:
    """Start Kafka and Redis, and point this process and its children at them, whatever the environment said."""
    for name in [name for name in os.environ if name.upper().startswith(ENV_PREFIX)]:
        del os.environ[name]
    os.environ.pop(CONFIG_VARIABLE, None)
    topic = Settings().kafka.topic
    dead_letters = Settings().kafka.dead_letters
    os.environ["RECSYS_KAFKA__BOOTSTRAP_SERVERS"] = stack.enter_context(embedded_broker(topic, dead_letters))
    # The embedded broker answers a waiting fetch only when its wait is over, not when a record comes.
    os.environ["RECSYS_KAFKA__LIBRDKAFKA"] = '{"fetch.wait.max.ms": 5}'
    os.environ["RECSYS_REDIS__URL"] = stack.enter_context(redis_server(folder))
    os.environ["RECSYS_DATA_DIR"] = str(folder / "data")
    return load_settings()


def _import_history(
    settings: Settings, store: Store, folder: Path, transactions: pd.DataFrame, console: Console
) -> dict[str, set[str]]:
    """Import January to November; return what each household owns."""
    path = folder / "history.parquet"
    rows = purchases.write_history(transactions, path)
    console.print(f"\nImporting {rows:,} purchases of January to November 2017")
    columns = Columns(user_id="household_id", item_id="product_id", timestamp="transaction_timestamp")
    outcome = import_file(
        PurchaseFile(path, columns),
        open_data_dir(settings).archive,
        store.users,
        rejects=folder / "history.rejects.csv",
        progress=ProgressReporter(),
        clock=now,
    )
    console.print(f"{outcome.applied:,} events applied; {outcome.rejected:,} rows rejected (lines with quantity 0)")
    valid = transactions[(transactions["transaction_timestamp"] < purchases.LIVE_FROM) & (transactions["quantity"] > 0)]
    return {
        str(household): {str(product) for product in products}
        for household, products in valid.groupby("household_id")["product_id"].unique().items()
    }


def _wait_for_interrupt(console: Console) -> None:
    console.print("\nEverything is still running. In another terminal:\n")
    for name in _ADDRESSES:
        console.print(f"  export {name}={os.environ[name]}", soft_wrap=True)
    console.print("\n  recsys show 1    recsys verify --all    recsys retrain --wait\n\nCtrl-C stops it.")
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    while not stopped.wait(0.5):
        pass
    console.print("stopping")
