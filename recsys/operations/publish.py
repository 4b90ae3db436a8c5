"""Publishing a file of purchases, each when it is due."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recsys.data.event import Event
from recsys.files.batches import RowCounts
from recsys.files.event_file import EventFile
from recsys.kafka.producer import Publisher
from recsys.runtime.progress import Advance


@dataclass(frozen=True, slots=True)
class Pace:
    """When each event is due.

    Attributes
    ----------
    rate : float or None
        Events per second.
    speedup : float or None
        How many times faster than they happened. At most one of the two; with neither there is no wait.
    """

    rate: float | None = None
    speedup: float | None = None

    def due_s(self, place: int, event: Event, first: Event) -> float:
        """Return when an event is due, in seconds after the first."""
        if self.rate is not None:
            return place / self.rate
        if self.speedup is not None:
            return (event.timestamp - first.timestamp) / 1000 / self.speedup
        return 0.0


def read_in_time_order(file: EventFile, rejects: Path) -> tuple[list[Event], RowCounts]:
    """Return all valid events of a file, oldest first, and what became of its rows.

    Raises
    ------
    InputFileError
        When the file cannot be read, or the rejected rows cannot be written.
    """
    events: list[Event] = []
    counts = RowCounts()
    with file.rejects_file(rejects) as rejected:
        for batch in file.batches():
            rejected.add(batch.rejects)
            counts.note(batch)
            events.extend(event for _, event in batch.events)
    events.sort(key=lambda event: event.timestamp)
    return events, counts


def publish_paced(publisher: Publisher, events: Sequence[Event], pace: Pace, advance: Advance) -> None:
    """Publish events, each when it is due."""
    start = time.monotonic()
    for place, event in enumerate(events):
        wait = start + pace.due_s(place, event, events[0]) - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        publisher.publish(event)
        advance(1)
