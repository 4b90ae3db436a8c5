"""How the services read the records of the topic: one decoder each, and in Redis what they must agree on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from recsys.data.reading_history import Reading, ReadingHistory
from recsys.kafka.decoder_by_place import DecoderByPlace
from recsys.kafka.topics import Topic
from recsys.logger import logger
from recsys.settings import Settings

log = logger(__name__)


class ReadingNotes(Protocol):
    """Where services note how they read, as `recsys.redis.readings.ReadingStore` does."""

    def begin(self, reading: Reading, unapplied: Mapping[str, int]) -> bool:
        """Note that a consumer reads on in a certain way."""
        ...

    def claim(self, reading: Reading, ranges: Mapping[str, tuple[int, int]]) -> None:
        """Note that records are read now."""
        ...

    def claim_to_apply(self, fingerprint: str, ends: Mapping[str, int]) -> str:
        """Note that a consumer is about to apply records; return a source that is read in another way by now."""
        ...

    def history(self) -> ReadingHistory:
        """Return what is noted."""
        ...


class SharedReading:
    """Reads each record as it was, or will be, applied, whatever the settings of this service say.

    Settings that change how records are read count from the next record on: those that are applied or archived keep
    the way in which they were read.

    Parameters
    ----------
    settings : Settings
    notes : ReadingNotes
    marks : callable
        Returns the first offset of each of some sources that no consumer has applied, None where there is none.

    Attributes
    ----------
    decoder : DecoderByPlace
    """

    def __init__(
        self, settings: Settings, notes: ReadingNotes, marks: Callable[[Collection[str]], Mapping[str, int | None]]
    ) -> None:
        self._notes = notes
        self._marks = marks
        self.decoder = DecoderByPlace(settings)
        self._others_said: set[str] = set()

    def begin(self, topic: Topic, unapplied: Mapping[int, int]) -> None:
        """Read on as these settings say, as a consumer that has been given partitions.

        ``unapplied``: partition → first offset that no consumer has applied.
        """
        if not unapplied:
            return
        reading = self.decoder.reading
        sources = {topic.source(partition): offset for partition, offset in unapplied.items()}
        if self._notes.begin(reading, sources):
            log.info(
                "reading_changed",
                "records are read as these settings say (reading {reading}) from the next ones on",
                reading=reading.fingerprint,
            )
        self.follow(topic)

    def claim(self, topic: Topic, ends: Mapping[int, int]) -> None:
        """Keep records up to these offsets from being read in another way later; they are read next.

        ``ends``: partition → the first offset behind them.
        """
        of_sources = {topic.source(partition): end for partition, end in ends.items()}
        marks = self._marks(of_sources)
        ranges = {source: (marks[source] or 0, end) for source, end in of_sources.items()}
        self._notes.claim(self.decoder.reading, ranges)
        self.follow(topic)

    def claim_to_apply(self, ends: Mapping[str, int]) -> str:
        """Keep records that a consumer is about to apply from being read in another way later.

        A consumer that dies before it has noted them as applied leaves some that are: whoever reads them again, must
        read them as they were applied.

        Parameters
        ----------
        ends : mapping of str → int
            Source → the first offset behind them.

        Returns
        -------
        str
            A source that another consumer reads in another way by now: this one must not apply them. Else empty.
        """
        return self._notes.claim_to_apply(self.decoder.reading.fingerprint, ends)

    def follow(self, topic: Topic) -> None:
        """Take over what is noted of how records are read."""
        history = self._notes.history()
        self.decoder.follow(topic, history)
        begins = (history.begins.get(source) for source in topic.sources(topic.partitions))
        others = {begin[-1][1] for begin in begins if begin} - {self.decoder.reading.fingerprint}
        if others and others != self._others_said:
            log.warning(
                "readings_differ",
                "other services read records in another way (reading {others}) than this one's settings say "
                "({reading}): give all of them the same settings of events (RECSYS_EVENTS__…) and the same "
                "mapping",
                others=", ".join(sorted(others)),
                reading=self.decoder.reading.fingerprint,
            )
        self._others_said = others
