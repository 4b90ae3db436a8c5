"""How far a rebuild is, kept in Redis, so that one that was interrupted can go on."""

from __future__ import annotations

import uuid
from enum import StrEnum

from recsys.errors import WritesLost
from recsys.logger import logger
from recsys.redis.connection import Connection
from recsys.redis.damage import damaged
from recsys.redis.keys import Keys

log = logger(__name__)
_STAGE, _RUN = "stage", "run"


class RebuildStage(StrEnum):
    """What a rebuild is at."""

    WIPE = "wipe"
    """Removing what Redis still holds of users."""
    APPLY = "apply"
    """Applying the archive, segment by segment, after that."""
    AMEND = "amend"
    """Comparing what is there with the archive, and bringing back what differs."""


class RebuildState:
    """The state of the rebuild at work, or of one that was interrupted.

    Every part of Redis holds the run's id, so that what is emptied on the way does not go unnoticed.
    """

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys
        self._run = ""

    def begin(self, stage: RebuildStage) -> None:
        """Begin a rebuild; what is left of another one is removed."""
        self.end()
        self._run = uuid.uuid4().hex
        self._connection.run([(key, ("SET", key, self._run)) for key in self._run_keys()])
        self._write(_RUN, self._run)
        self.enter(stage)

    def resume(self) -> RebuildStage | None:
        """Take over a rebuild that was interrupted; None if there is none, or Redis has lost a part of it."""
        with self._connection.errors_translated(self._keys.rebuild):
            run, stage = self._connection.client.hmget(self._keys.rebuild, [_RUN, _STAGE])
        if run is None or stage is None:
            return None
        try:
            self._run, found = run.decode(), RebuildStage(stage.decode())
        except ValueError:
            log.warning(
                "rebuild_state_damaged",
                "{problem}",
                problem=damaged(self._keys, self._keys.rebuild, "it holds no stage of a rebuild"),
            )
            return None
        return found if self._is_whole() else None

    def ensure_whole(self) -> None:
        """Raise `WritesLost` if any part of Redis has been emptied since the rebuild began."""
        if not self._is_whole():
            raise WritesLost("Redis was emptied during the rebuild; run recsys rebuild again")

    def enter(self, stage: RebuildStage) -> None:
        """Go on to a stage."""
        self._write(_STAGE, stage.value)

    def note_done(self, segment: str) -> None:
        """Remember that a segment of the archive has been applied."""
        self._write(segment, "1")

    def segments_done(self) -> frozenset[str]:
        """Return the segments that have been applied."""
        with self._connection.errors_translated():
            fields: list[bytes] = self._connection.client.hkeys(self._keys.rebuild)
        return frozenset(field.decode(errors="replace") for field in fields) - {_STAGE, _RUN}

    def forget_segments(self) -> None:
        """All segments are to be applied again."""
        if done := self.segments_done():
            with self._connection.errors_translated():
                self._connection.client.hdel(self._keys.rebuild, *done)

    def end(self) -> None:
        """Nothing is left to do."""
        keys = [self._keys.rebuild, *self._run_keys()]
        self._connection.run([(key, ("DEL", key)) for key in keys])

    def _run_keys(self) -> list[str]:
        return [self._keys.rebuild_run(shard) for shard in self._connection.shard_tags()]

    def _is_whole(self) -> bool:
        runs = self._connection.run([(key, ("GET", key)) for key in self._run_keys()])
        return all(run is not None and run == self._run.encode() for run in runs)

    def _write(self, field: str, value: str) -> None:
        with self._connection.errors_translated():
            self._connection.client.hset(self._keys.rebuild, field, value)
