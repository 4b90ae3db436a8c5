"""The limit of malformed records: a few go to the dead letters, a flood stops the consumer."""

from __future__ import annotations

from collections import deque

from recsys.errors import MalformedEvent, TooManyMalformed
from recsys.settings import Settings

_WINDOW = 1000


class MalformedLimit:
    """Counts the malformed records among the newest 1,000 that this consumer read.

    A shop whose producer broke would otherwise see its whole topic drain into the dead letters. Note a batch's
    records before any of its dead letters is sent: what is read again after a stop is then sent once. The count
    starts at zero with each start, so one that is restarted for ever lets `consumer.max_malformed` more pass each time.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._newest: deque[bool] = deque(maxlen=_WINDOW)
        self._malformed = 0

    def note(self, error: MalformedEvent | None) -> None:
        """Count one record and what was wrong with it, if anything.

        Raises
        ------
        TooManyMalformed
            When there are now more malformed ones than `consumer.max_malformed`.
        """
        if len(self._newest) == _WINDOW:
            self._malformed -= self._newest[0]
        self._newest.append(error is not None)
        if error is None:
            return
        self._malformed += 1
        if self._malformed > self._settings.consumer.max_malformed:
            raise TooManyMalformed(self._explained(error))

    def _explained(self, newest: MalformedEvent) -> str:
        kafka, most = self._settings.kafka, self._settings.consumer.max_malformed
        return (
            f"{kafka.topic}: {self._malformed:,} of the newest {len(self._newest):,} records are malformed and "
            f"RECSYS_CONSUMER__MAX_MALFORMED is {most:,}; the newest is {newest}. Repair the producer, then start the "
            f"consumer again, which goes on where it was: with RECSYS_CONSUMER__MAX_MALFORMED={_WINDOW} all of them go "
            f"to {kafka.dead_letters}; to pass over them, and over good ones between, first reset the offsets of "
            f"group {kafka.group_id} (kafka-consumer-groups.sh --reset-offsets)"
        )
