"""Dead letters: which there are and why, and letters that go. How their records come back, says `redrive`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self

from recsys.errors import KafkaUnavailable
from recsys.kafka.clients import open_reader
from recsys.kafka.letters import FoundLetter
from recsys.kafka.records import offsets_at, read_range
from recsys.kafka.topics import describe_topic, end_offsets, erase_records
from recsys.runtime.progress import ProgressReporter
from recsys.settings import KafkaSettings
from recsys.storage.files import Storage
from recsys.storage.handled_letters import Handled, HandledLetters, Mark

_LARGE_STEP = 1_000


class LetterFilter(NamedTuple):
    """Which letters are meant; what is None or empty lets all pass.

    Attributes
    ----------
    codes : frozenset of str
        Why their records are malformed.
    since_ms, until_ms : int or None
        When they were sent, in epoch milliseconds: from the first on, and before the second.
    partitions : frozenset of int
        Of the topic that their records are from.
    place : (int, int) or None
        Partition and offset of the record.
    """

    codes: frozenset[str] = frozenset()
    since_ms: int | None = None
    until_ms: int | None = None
    partitions: frozenset[int] = frozenset()
    place: tuple[int, int] | None = None

    def takes(self, letter: FoundLetter) -> bool:
        """Whether a letter is meant."""
        record = letter.record
        return (
            (not self.codes or letter.code in self.codes)
            and (self.since_ms is None or letter.sent_ms >= self.since_ms)
            and (self.until_ms is None or letter.sent_ms < self.until_ms)
            and (not self.partitions or (bool(record.topic()) and record.partition() in self.partitions))
            and (self.place is None or (bool(record.topic()) and (record.partition(), record.offset()) == self.place))
        )


class DeadLetterTopic:
    """The dead-letter topic, as far as it reaches when it is opened. Use it as a context manager.

    Parameters
    ----------
    settings : KafkaSettings
    storage : Storage
        The folder that tells which letters were redriven or purged.

    Raises
    ------
    KafkaUnavailable, TopicMissing, DataDirError
        When there is no broker, no right, no topic, or that folder cannot be read.
    """

    def __init__(self, settings: KafkaSettings, storage: Storage) -> None:
        self.settings = settings
        self.name = settings.dead_letters
        self._topic = describe_topic(settings, settings.dead_letters)
        self.handled = HandledLetters(storage, self._topic.id)
        self._reader = open_reader(settings, "dead-letters")
        self._there = end_offsets(self._reader, settings, self._topic)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._reader.close()

    def letters(self, progress: ProgressReporter, *, since_ms: int | None = None) -> Iterator[FoundLetter]:
        """Yield the letters, by partition in their order; where the broker can tell, none older than a time."""
        ranges = dict(self._there)
        if since_ms is not None:
            firsts = offsets_at(self._reader, self.settings, self._topic, since_ms, self._there)
            ranges = {partition: (firsts[partition], end) for partition, (_, end) in self._there.items()}
        total = sum(max(0, end - first) for first, end in ranges.values())
        with progress.stage(f"read {self.name}", total, unit="letters") as advance:
            for number, letter in enumerate(read_range(self._reader, self.settings, self._topic, ranges), start=1):
                yield FoundLetter.read(letter)
                if number % _LARGE_STEP == 0:
                    advance(_LARGE_STEP)
            advance(total % _LARGE_STEP)

    def mark(self, letter: FoundLetter) -> Mark | None:
        """Return what was done with a letter, None if nothing was."""
        return self.handled.mark(letter.partition, letter.offset)

    def is_done(self, letter: FoundLetter) -> bool:
        """Whether a letter was redriven or purged."""
        mark = self.mark(letter)
        return mark is not None and mark.how is not Handled.BEGUN

    def keep(self) -> None:
        """Keep what was noted in `handled`."""
        self.handled.write({partition: first for partition, (first, _) in self._there.items()})

    def erase_before(self, offsets: dict[int, int]) -> None:
        """Erase all letters before an offset of each partition.

        Raises
        ------
        KafkaUnavailable
            When the brokers refuse it, or do not answer.
        """
        wanted = {partition: end for partition, end in offsets.items() if end > self._there[partition][0]}
        if not wanted:
            return
        erase_records(self.settings, self._topic, wanted)
        self._there |= {partition: (first, self._there[partition][1]) for partition, first in wanted.items()}

    @property
    def ends(self) -> dict[int, int]:
        """Where each partition ends."""
        return {partition: end for partition, (_, end) in self._there.items()}


@dataclass(slots=True)
class LetterCount:
    """Letters of one code.

    Attributes
    ----------
    letters : int
    first_ms, last_ms : int
        When the oldest and the newest were sent, in epoch milliseconds.
    newest : FoundLetter
        One of those that were sent last.
    """

    letters: int
    first_ms: int
    last_ms: int
    newest: FoundLetter


class LetterCounts(NamedTuple):
    """Letters by code, the most frequent first; and how many of those that are meant were redriven, and purged."""

    by_code: dict[str, LetterCount]
    redriven: int
    purged: int


def count_letters(
    topic: DeadLetterTopic, meant: LetterFilter, progress: ProgressReporter, *, with_done: bool = False
) -> LetterCounts:
    """Count the letters that are meant.

    Parameters
    ----------
    topic : DeadLetterTopic
    meant : LetterFilter
    progress : ProgressReporter
    with_done : bool
        Count those that were redriven or purged like the others.
    """
    found: dict[str, LetterCount] = {}
    done = dict.fromkeys(Handled, 0)
    for letter in topic.letters(progress, since_ms=meant.since_ms):
        if not meant.takes(letter):
            continue
        if (mark := topic.mark(letter)) is not None:
            done[mark.how] += 1
            if mark.how is not Handled.BEGUN and not with_done:
                continue
        count = found.get(letter.code)
        if count is None:
            found[letter.code] = LetterCount(1, letter.sent_ms, letter.sent_ms, letter)
            continue
        count.letters += 1
        count.first_ms = min(count.first_ms, letter.sent_ms)
        if letter.sent_ms >= count.last_ms:
            count.last_ms, count.newest = letter.sent_ms, letter
    ordered = sorted(found.items(), key=lambda item: (-item[1].letters, item[0]))
    return LetterCounts(dict(ordered), done[Handled.REDRIVEN], done[Handled.PURGED])


class PurgeOutcome(NamedTuple):
    """What a purge did, or would do.

    Attributes
    ----------
    letters : int
        That are no longer listed.
    erased : int
        That Kafka erases: these, and those that were redriven or purged before.
    behind : int
        That Kafka keeps although they are redriven or purged: it erases from the beginning only, and in their partition
        there is a letter before them that is neither.
    """

    letters: int
    erased: int
    behind: int


def purge_letters(
    topic: DeadLetterTopic, meant: LetterFilter, progress: ProgressReporter, *, dry_run: bool
) -> PurgeOutcome:
    """Purge the letters that are meant, and erase what Kafka can erase of all that are redriven or purged.

    Raises
    ------
    KafkaUnavailable
        When Kafka does not erase; the letters are no longer listed all the same.
    DataDirError
        When another process is at it, or the folder cannot be written.
    """
    needed_from: dict[int, int] = {}
    letters = erased = behind = 0
    with nullcontext() if dry_run else topic.handled.exclusively():
        for letter in topic.letters(progress):
            if not topic.is_done(letter):
                if not meant.takes(letter):
                    needed_from.setdefault(letter.partition, letter.offset)
                    continue
                letters += 1
                topic.handled.add(Mark(Handled.PURGED), letter.partition, letter.offset)
            if letter.partition in needed_from:
                behind += 1
            else:
                erased += 1
        if not dry_run and letters + erased:
            topic.keep()
            try:
                topic.erase_before(topic.ends | needed_from)
            except KafkaUnavailable as error:
                raise KafkaUnavailable(
                    f"the letters are no longer listed, but they stay in {topic.name}: {error}"
                ) from error
            topic.keep()
    return PurgeOutcome(letters, erased, behind)
