"""How far each partition of the stream is in Redis, kept in Redis itself, beside the effects.

A server that fails over to a replica, or restarts from an older copy, loses its newest writes; those that it keeps
are a prefix of all, in order. So a mark that was written after a batch's effects proves that they are there, and a
mark that is lower than the one written last tells where to read again from.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from typing import Any

from redis.exceptions import AskError, ResponseError

from recsys.errors import WritesLost
from recsys.redis.connection import Connection
from recsys.redis.damage import is_wrong_kind, whole_number, whole_or_none
from recsys.redis.keys import Keys


class AppliedOffsets:
    """The marks of this process's partitions: the next offset whose effects are not yet in Redis.

    They are compared with what this process wrote last whenever they are moved, and on every new connection to
    Redis before anything is written on it.
    """

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys
        self._lock = threading.Lock()
        self._followed: dict[str, int] = {}
        """source → how far this process knows it to be."""
        self._written: dict[str, dict[str, int]] = {}
        """shard → source → the mark that this process knows to be there."""
        connection.on_connect(self._compare)

    def read(self, sources: Collection[str]) -> dict[str, int | None]:
        """Return the marks of some sources; None where there is none."""
        marks: dict[str, int | None] = dict.fromkeys(sources)
        if not sources:
            return marks
        shards = self._connection.shard_tags()
        keys = [self._keys.marks(shard) for shard in shards]
        found: list[list[bytes | None]] = self._connection.run([(key, ("HMGET", key, *marks)) for key in keys])
        for source, *values in zip(marks, *found, strict=True):
            known = [
                whole_number(self._keys, key, value)
                for key, value in zip(keys, values, strict=True)
                if value is not None
            ]
            marks[source] = min(known) if len(known) == len(shards) else None
        return marks

    def everything(self) -> dict[str, int]:
        """Return all marks that are there, also those of topics that are no more."""
        keys = [self._keys.marks(shard) for shard in self._connection.shard_tags()]
        marks: dict[str, int] = {}
        for key, flat in zip(keys, self._connection.run([(key, ("HGETALL", key)) for key in keys]), strict=True):
            pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
            for source, value in pairs:
                name = source.decode(errors="replace")
                marks[name] = max(marks.get(name, 0), whole_number(self._keys, key, value))
        return marks

    def counts(self) -> list[int]:
        """Return how many marks each shard holds."""
        keys = [self._keys.marks(shard) for shard in self._connection.shard_tags()]
        return [int(count) for count in self._connection.run([(key, ("HLEN", key)) for key in keys])]

    def follow(self, starts: Mapping[str, tuple[int, int | None]]) -> None:
        """Take over sources: where reading starts, and the mark from which that was decided.

        Raises
        ------
        WritesLost
            When that mark is there no more.
        """
        marks = {source: offset for source, (offset, _) in starts.items()}
        seen = {source: mark for source, (_, mark) in starts.items() if mark is not None}
        there = self._move(marks, expected=dict.fromkeys(self._connection.shard_tags(), seen))
        for moved in there.values():
            _raise_if_lost(seen, moved)
        with self._lock:
            self._followed.update(marks)
            for shard, moved in there.items():
                self._written.setdefault(shard, {}).update(moved)

    def followed(self) -> dict[str, int]:
        """Return how far the sources that this process follows are applied: source → next offset."""
        with self._lock:
            return dict(self._followed)

    def leave(self, sources: Collection[str]) -> None:
        """Give sources up: another process may move their marks now."""
        with self._lock:
            for marks in (self._followed, *self._written.values()):
                for source in sources:
                    marks.pop(source, None)

    def leave_all(self) -> None:
        """Give all sources up and forget what was written: the next one to follow them starts from what is there."""
        with self._lock:
            self._followed.clear()
            self._written.clear()

    def advance(self, marks: Mapping[str, int]) -> None:
        """Move marks forward, after the effects of everything below them have been written.

        Without any, just compare. A mark that is further on already stays; sources that were given up are left out.

        Raises
        ------
        WritesLost
            When Redis does not hold what was written last.
        """
        with self._lock:
            targets = {source: max(known, marks.get(source, known)) for source, known in self._followed.items()}
            expected = {shard: dict(marks) for shard, marks in self._written.items()}
        there = self._move(targets, expected)
        for shard, moved in there.items():
            _raise_if_lost(expected.get(shard, {}), moved)
        with self._lock:
            for shard, moved in there.items():
                written = self._written.setdefault(shard, {})
                written.update({source: mark for source, mark in moved.items() if source in self._followed})
            self._followed.update({source: to for source, to in targets.items() if source in self._followed})

    def _move(self, marks: Mapping[str, int], expected: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
        """Move marks on all shards and return those that are there then: shard → source → mark."""
        if not marks:
            return {}
        shards = self._connection.shard_tags()
        calls = []
        for shard in shards:
            here = expected.get(shard, {})
            arguments = [part for source, mark in marks.items() for part in (source, here.get(source, ""), mark)]
            calls.append(((self._keys.marks(shard),), arguments))
        moved = self._connection.run_script("mark", calls)
        return {
            shard: dict(zip(marks, map(int, there), strict=True)) for shard, there in zip(shards, moved, strict=True)
        }

    def remove(self) -> None:
        """Remove all marks: consumers then wait until there are marks again."""
        keys = [self._keys.marks(shard) for shard in self._connection.shard_tags()]
        self._connection.run([(key, ("DEL", key)) for key in keys])

    def write_missing(self, marks: Mapping[str, int]) -> None:
        """Write marks for consumers to start from, where there are none."""
        keys = [self._keys.marks(shard) for shard in self._connection.shard_tags()]
        self._connection.run([(key, ("HSETNX", key, source, mark)) for key in keys for source, mark in marks.items()])

    def _compare(self, connection: Any) -> None:
        """Compare the marks on a new connection, before anything else is sent on it."""
        with self._lock:
            written = {shard: dict(marks) for shard, marks in self._written.items() if marks}
        if not written:
            return
        commands = [("HMGET", self._keys.marks(shard), *marks) for shard, marks in written.items()]
        connection.send_packed_command(connection.pack_commands(commands))
        for expected in written.values():
            try:
                values = connection.read_response()
            except AskError:  # or MOVED: another node of the cluster has this shard
                continue
            except ResponseError as error:
                if is_wrong_kind(error):
                    raise WritesLost(
                        "Redis has lost the applied offsets: another kind of key is in their place"
                    ) from None
                raise
            there = [-1 if (mark := whole_or_none(value)) is None else mark for value in values]
            _raise_if_lost(expected, dict(zip(expected, there, strict=True)))


def _raise_if_lost(expected: Mapping[str, int], found: Mapping[str, int]) -> None:
    for source, mark in expected.items():
        there = found.get(source, mark)
        if there < mark:
            holds = "nothing of it" if there < 0 else f"only what was applied below offset {there}"
            raise WritesLost(
                f"Redis has lost writes: {source} was applied up to offset {mark}, but Redis holds {holds}"
            )
