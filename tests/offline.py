"""An installation without services: an archive, a Redis, and a topic of the embedded broker."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from recsys.data.event import Event, EventReading
from recsys.data.mapping import EventMapping
from recsys.files.columns import Columns
from recsys.files.event_file import EventFile
from recsys.files.inputs import find_inputs
from recsys.files.mapped import MappedFile
from recsys.files.purchases import PurchaseFile
from recsys.files.tables import CsvForm
from recsys.kafka.embedded import create_by_asking
from recsys.kafka.producer import Publisher
from recsys.kafka.shared_reading import SharedReading
from recsys.operations.import_history import ImportOutcome, import_file
from recsys.operations.make_again import StreamBeyond
from recsys.operations.undo_import import undo_import
from recsys.redis import Store, open_store
from recsys.runtime.clock import now
from recsys.runtime.progress import ProgressReporter
from recsys.settings import Settings
from recsys.storage.data_dir import DataDir, open_data_dir
from trainer.archiver import archive_new_purchases

HEADER = "user_id,item_id,quantity,timestamp,event_id\n"
READING = EventReading(no_user=frozenset({"guest"}))


@dataclass
class OfflineShop:
    """An installation without services: an archive and a Redis."""

    settings: Settings
    store: Store
    data_dir: DataDir
    folder: Path
    stream: StreamBeyond
    """What is published and not yet applied."""
    relying: list[str] = field(default_factory=list)

    def file(self, content: str | pd.DataFrame, **columns: Any) -> PurchaseFile:
        return PurchaseFile(self.written(content), Columns(**columns), events=READING, now=now())

    def written(self, content: str | pd.DataFrame) -> Path:
        path = self.folder / f"{uuid.uuid4().hex}.{'csv' if isinstance(content, str) else 'parquet'}"
        if isinstance(content, str):
            path.write_text(content)
        else:
            content.to_parquet(path)
        return path

    def import_(self, content: str | pd.DataFrame, *, as_new: bool = False, **columns: Any) -> ImportOutcome:
        return self._import(self.file(content, **columns), as_new=as_new)

    def import_files(self, *given: str | Path, **columns: Any) -> ImportOutcome:
        """Import files as they lie there, as one import."""
        return self._import(PurchaseFile(find_inputs(given), Columns(**columns), events=READING, now=now()))

    def import_orders(self, content: str, mapping: str, *, name: str = "orders.jsonl") -> ImportOutcome:
        """Import a file of orders, read by the text of a mapping."""
        path = self.folder / name
        path.write_text(content)
        parsed = EventMapping.parse(mapping, name="orders.toml")
        return self._import(MappedFile(path, parsed, form=CsvForm(), events=READING, now=now()))

    def _import(self, file: EventFile, *, as_new: bool = False) -> ImportOutcome:
        outcome = import_file(
            file, self.data_dir, self.store.users, rejects=self.folder / "rejects.csv",
            progress=ProgressReporter(), clock=now, as_new=as_new,
        )  # fmt: skip
        rows = outcome.rows
        assert rows.read == outcome.new + outcome.known + rows.rejected + rows.no_user + rows.left_out
        return outcome

    def undo(self, import_id: str) -> tuple[int, int]:
        undone = undo_import(
            self.settings, self.store, self.data_dir, ProgressReporter(), import_id, clock=now,
            before_write=lambda: None,
        )  # fmt: skip
        self.relying = [record.id for record in undone.relying]
        return undone.purchases, undone.users

    def publish(self, events: Sequence[Event]) -> None:
        """Publish purchases, and apply them as a consumer would."""
        with Publisher(self.settings.kafka) as publisher:
            for event in events:
                publisher.publish(event)
        self.consume()

    def consume(self) -> None:
        """Apply what has been published, as a consumer would."""
        for call in self.stream.calls(lambda _: True):
            self.store.users.apply(call)

    def histories(self) -> dict[str, dict[str, float]]:
        users = [user for batch in self.store.users.user_ids() for user in batch]
        states = self.store.users.read(users)
        return {
            user: {item: entry.units / 1e6 for item, entry in state.history.entries.items()}
            for user, state in states.items()
        }

    def ensure_verified(self) -> None:
        """Redis holds exactly what the archive does."""
        log = self.data_dir.archive.events()
        expected: dict[str, dict[str, float]] = {}
        for user, item, units in zip(log.user_codes, log.item_codes, log.units, strict=True):
            history = expected.setdefault(log.user_ids[user], {})
            history[log.item_ids[item]] = history.get(log.item_ids[item], 0) + units / 1e6
        assert self.histories() == expected


@contextmanager
def offline_shop(broker: str, redis_url: str, folder: Path) -> Iterator[OfflineShop]:
    """Open one with nothing in it."""
    name = f"shop-{uuid.uuid4().hex[:8]}"
    settings = Settings.model_validate(
        {
            "data_dir": str(folder / name),
            "kafka": {"bootstrap_servers": broker, "topic": name, "group_id": name, "timeout_s": 5},
            "redis": {"url": redis_url, "prefix": name},
        }
    )
    create_by_asking(broker, name)
    with open_store(settings) as store, StreamBeyond(settings, store, {}) as stream:
        yield OfflineShop(settings, store, open_data_dir(settings), folder, stream)


def rows(*lines: str) -> str:
    """Return a CSV file of purchases."""
    return HEADER + "".join(f"{line}\n" for line in lines)


def archive_stream(shop: OfflineShop) -> None:
    """Do what a round of the trainer begins with."""
    archive_new_purchases(
        shop.settings.kafka,
        shop.data_dir.archive,
        ProgressReporter(),
        at=now(),
        reading=SharedReading(shop.settings, shop.store.readings, shop.store.applied_offsets.read),
    )
