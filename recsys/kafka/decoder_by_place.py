"""Each record is read as it was, or will be, applied: see `recsys.data.reading_history`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recsys.data.event import Event
from recsys.data.reading_history import BEFORE, Reading, ReadingHistory
from recsys.errors import DecoderUnavailable, RecsysError, SettingsError
from recsys.kafka.clients import Message
from recsys.kafka.decoder import EventDecoder, PassedOver, decoder_of
from recsys.kafka.readings import reading_of
from recsys.kafka.topics import Topic
from recsys.logger import logger
from recsys.settings import Settings

log = logger(__name__)
_BEFORE = {"mapping": None, "envelope": "none", "format": "json", "max_bytes": 0}
"""Of a description: what the contract's own form is."""


class DecoderByPlace:
    """Reads records as these settings say, but those that have been read in another way before in that way.

    Parameters
    ----------
    settings : Settings

    Attributes
    ----------
    reading : Reading
        How these settings read records.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.reading = reading_of(settings.events)
        self.passed_over = PassedOver()
        self._own = self._decoder(self.reading.description)
        self._decoders: dict[str, EventDecoder] = {self.reading.fingerprint: self._own}
        self._history = ReadingHistory()
        self._sources: Mapping[int, str] = {}
        self._own_from: dict[int, int] = {}
        """Of partitions that are read in several ways: from which offset on in that of these settings."""

    def follow(self, topic: Topic, history: ReadingHistory) -> None:
        """Take over what is known of how the records of a topic are read."""
        self._history = history
        self._sources = {partition: topic.source(partition) for partition in topic.partitions}
        self._own_from = {}
        for partition, source in self._sources.items():
            begins = history.begins.get(source, ())
            if begins and [how for _, how in begins] != [self.reading.fingerprint]:
                last, how = begins[-1]
                self._own_from[partition] = last if how == self.reading.fingerprint else 2**63

    def events(self, record: Message) -> Sequence[Event]:
        """Return the events of a record, as `EventDecoder.events` does."""
        if self._own_from:  # seldom: the settings have changed
            partition, offset = record.partition() or 0, record.offset() or 0
            if offset < self._own_from.get(partition, 0):
                return self._decoder_at(partition, offset).events(record)
        return self._own.events(record)

    def fingerprint(self, partition: int, offset: int) -> str:
        """Return in which way a record is read."""
        source = self._sources.get(partition, "")
        return self._history.fingerprint(source, offset) or self.reading.fingerprint

    def _decoder_at(self, partition: int, offset: int) -> EventDecoder:
        fingerprint = self.fingerprint(partition, offset)
        if fingerprint not in self._decoders:
            description = self._history.descriptions.get(fingerprint)
            if fingerprint == BEFORE:
                description = {**self.reading.description, **_BEFORE}
            if description is None:
                log.error(
                    "reading_lost",
                    "Redis has lost how earlier records were read (reading {reading}): they are read as the "
                    "settings say now",
                    reading=fingerprint,
                )
                self._decoders[fingerprint] = self._own
            else:
                self._decoders[fingerprint] = self._known(fingerprint, description)
        return self._decoders[fingerprint]

    def _known(self, fingerprint: str, description: Mapping[str, object]) -> EventDecoder:
        try:
            return self._decoder(description)
        except SettingsError as error:
            raise DecoderUnavailable(
                f"earlier records were read in another way, which needs a setting: {error}"
            ) from None
        except (KeyError, TypeError, ValueError, RecsysError) as error:
            raise DecoderUnavailable(
                f"what Redis says of how earlier records were read (reading {fingerprint}) is not understood here: was "
                f"it a newer version? update this one ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
            ) from None

    def _decoder(self, description: Mapping[str, object]) -> EventDecoder:
        decoder = decoder_of(Reading("", description), self._settings)
        decoder.passed_over = self.passed_over
        return decoder
