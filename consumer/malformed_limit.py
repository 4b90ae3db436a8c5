"""The limit of malformed records: a few go to the dead letters, a flood stops the consumer."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

from recsys.data.reason_kinds import kind_of
from recsys.errors import MalformedEvent, TooManyMalformed
from recsys.runtime.user_names import are_hashed
from recsys.settings import Settings

_WINDOW = 1000
_MOST_REASONS = 3


def reason_in_log(reason: str) -> str:
    """Return why a record is malformed, without what it quotes of the record where users are named by hashes."""
    return kind_of(reason) if are_hashed() else reason


@dataclass(frozen=True, slots=True)
class _Noted:
    """One of the newest records: where it is, and what is wrong with it; empty if nothing is."""

    partition: int
    offset: int
    reason: str


class MalformedLimit:
    """Counts the malformed records among the newest 1,000 that this consumer read.

    A shop whose producer broke would otherwise see its whole topic drain into the dead letters. What comes before the
    record that is one too many is done as always, and then the consumer ends. The count starts at zero with each start:
    one that is started again and again lets `consumer.max_malformed` more pass each time, and gets through a flood.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._newest: deque[_Noted] = deque(maxlen=_WINDOW)
        self._malformed = 0

    def note(self, error: MalformedEvent | None, *, partition: int, offset: int) -> None:
        """Count one record and what was wrong with it, if anything.

        Raises
        ------
        TooManyMalformed
            When there are now more malformed ones than `consumer.max_malformed`.
        """
        if len(self._newest) == _WINDOW:
            self._malformed -= bool(self._newest[0].reason)
        self._newest.append(_Noted(partition, offset, "" if error is None else error.reason))
        if error is None:
            return
        self._malformed += 1
        if self._malformed > self._settings.consumer.max_malformed:
            raise TooManyMalformed(self._explained(error))

    def _explained(self, newest: MalformedEvent) -> str:
        kafka, most = self._settings.kafka, self._settings.consumer.max_malformed
        return (
            f"{kafka.topic}: {self._malformed:,} of the newest {len(self._newest):,} records are malformed and "
            f"RECSYS_CONSUMER__MAX_MALFORMED is {most:,}; the newest is {_in_log(newest)}; reasons: {self._reasons()}. "
            f"Repair the producer, then start the consumer again, which goes on where it was: with "
            f"RECSYS_CONSUMER__MAX_MALFORMED={_WINDOW} all of them go to {kafka.dead_letters}: "
            f"RECSYS_CONSUMER__MAX_MALFORMED={_WINDOW} python -m consumer (under a supervisor, set it in its settings, "
            f"and take it back afterwards); to pass over those that were read, and over good ones between, stop all "
            f"consumers and first reset the offsets of group {kafka.group_id}: {self._skip()}"
        )

    def _malformed_ones(self) -> list[_Noted]:
        return [record for record in self._newest if record.reason]

    def _reasons(self) -> str:
        """Return the commonest reasons with their numbers of records; those of one kind are one."""
        newest_of: dict[str, str] = {}
        counts: Counter[str] = Counter()
        for record in self._malformed_ones():
            kind = kind_of(record.reason)
            newest_of[kind] = reason_in_log(record.reason)
            counts[kind] += 1
        told = [f"{count:,} x {newest_of[kind]}" for kind, count in counts.most_common(_MOST_REASONS)]
        more = sum(counts.values()) - sum(count for _, count in counts.most_common(_MOST_REASONS))
        return "; ".join([*told, f"{more:,} x others"] if more else told)

    def _skip(self) -> str:
        """Return the command that moves the group behind what was read of the partitions with malformed records."""
        kafka = self._settings.kafka
        concerned = {record.partition for record in self._malformed_ones()}
        # The newest of them, malformed or not: an older one may lie before what the group has committed.
        ends = {record.partition: record.offset + 1 for record in self._newest if record.partition in concerned}
        return " && ".join(
            f"kafka-consumer-groups.sh --bootstrap-server {kafka.bootstrap_servers} --group {kafka.group_id} "
            f"--topic {kafka.topic}:{partition} --reset-offsets --to-offset {offset} --execute"
            for partition, offset in sorted(ends.items())
        )


def _in_log(error: MalformedEvent) -> str:
    return str(MalformedEvent(reason_in_log(error.reason), location=error.location))
