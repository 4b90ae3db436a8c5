"""How operators and trainers meet in Redis: requests, the status of a round, a sign of life."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
from pydantic import TypeAdapter, ValidationError

from recsys.redis.connection import Connection
from recsys.redis.damage import damaged, json_object, whole_number
from recsys.redis.keys import Keys

_REQUEST = """
redis.call('HINCRBY', KEYS[1], 'forced', ARGV[1])
return redis.call('HINCRBY', KEYS[1], 'requested', 1)
"""
_TAKE_ROLLBACK = """
if redis.call('HGET', KEYS[1], 'rollback') == ARGV[1] then redis.call('HDEL', KEYS[1], 'rollback') end
"""


@dataclass(frozen=True, slots=True)
class RollbackRequest:
    """The wish to make an earlier model live again."""

    version: str
    live_before: str
    """The live version when the operator decided; empty if there was none."""
    asked_by: str

    def packed(self) -> bytes:
        """Return it as Redis keeps it."""
        return orjson.dumps(self)


_ROLLBACK_REQUEST = TypeAdapter(RollbackRequest)


class Requests(NamedTuple):
    """How many retrains were asked for, and how many of these requests are served."""

    requested: int = 0
    finished: int = 0
    forced: int = 0
    """How many of them to publish whatever the gate says."""
    forced_finished: int = 0

    @property
    def are_open(self) -> bool:
        """Whether one waits."""
        return self.requested > self.finished

    @property
    def force(self) -> bool:
        """Whether one that waits is to publish whatever the gate says."""
        return self.forced > self.forced_finished


class TrainerRequests:
    """Requests, status and sign of life of the trainer."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    def say_alive(self, *, ttl_s: float) -> None:
        """Tell `recsys retrain` that a trainer is here to take requests."""
        with self._connection.errors_translated(self._keys.trainer_alive):
            self._connection.client.set(self._keys.trainer_alive, b"1", px=int(ttl_s * 1000))

    def say_gone(self) -> None:
        """Take `say_alive` back."""
        with self._connection.errors_translated(self._keys.trainer_alive):
            self._connection.client.delete(self._keys.trainer_alive)

    def is_alive(self) -> bool:
        """Whether a trainer service runs."""
        with self._connection.errors_translated(self._keys.trainer_alive):
            return bool(self._connection.client.exists(self._keys.trainer_alive))

    def request(self, *, force: bool = False) -> int:
        """Ask for a retrain and return the request's number; requests before the next round share it.

        With ``force`` its model is to be published whatever the gate says.
        """
        with self._connection.errors_translated(self._keys.trainer_requests):
            return int(self._connection.client.eval(_REQUEST, 1, self._keys.trainer_requests, int(force)))

    def request_rollback(self, request: RollbackRequest) -> None:
        """Ask the trainer for a rollback; it takes the place of one that still waits."""
        with self._connection.errors_translated(self._keys.trainer_requests):
            self._connection.client.hset(self._keys.trainer_requests, "rollback", request.packed())

    def rollback_request(self) -> RollbackRequest | None:
        """Return the rollback that waits."""
        with self._connection.errors_translated(self._keys.trainer_requests):
            value = self._connection.client.hget(self._keys.trainer_requests, "rollback")
        if not value:
            return None
        key = self._keys.trainer_requests
        try:
            return _ROLLBACK_REQUEST.validate_json(value, strict=True)
        except ValidationError:
            raise damaged(self._keys, key, "rollback is no request") from None

    def take_rollback(self, request: RollbackRequest) -> None:
        """Note that a rollback is done, or cannot be; another one that came meanwhile goes on waiting."""
        with self._connection.errors_translated(self._keys.trainer_requests):
            self._connection.client.eval(_TAKE_ROLLBACK, 1, self._keys.trainer_requests, request.packed())

    def delete_damaged(self, key: str) -> None:
        """Delete a damaged key of the trainer's that it can do without: requests, or who is set aside."""
        if key in (self._keys.trainer_requests, self._keys.aside):
            self._connection.run([(key, ("DEL", key))])

    def requests(self) -> Requests:
        """Return how many requests there were, and how many are served."""
        names = ["requested", "finished", "forced", "forced_finished"]
        with self._connection.errors_translated(self._keys.trainer_requests):
            values = self._connection.client.hmget(self._keys.trainer_requests, names)
        key = self._keys.trainer_requests
        return Requests(*(whole_number(self._keys, key, value or b"0") for value in values))

    def finish(self, served: Requests, status: Mapping[str, Any]) -> None:
        """Record the outcome of the round that served all requests up to these.

        The status first: two keys need not share a slot of a Redis Cluster, so a crash may come between them, and a
        request that stays open is only served once more.
        """
        self.write_status(status)
        outcome: dict[Any, Any] = {
            "finished": str(served.requested),
            "forced_finished": str(served.forced),
            "outcome": orjson.dumps(status),
            "rounds": str(self.rounds() + 1),
        }
        with self._connection.errors_translated(self._keys.trainer_requests):
            self._connection.client.hset(self._keys.trainer_requests, mapping=outcome)

    def rounds(self) -> int:
        """Return how many rounds have finished; it only falls when Redis loses writes."""
        with self._connection.errors_translated(self._keys.trainer_requests):
            value = self._connection.client.hget(self._keys.trainer_requests, "rounds")
        return whole_number(self._keys, self._keys.trainer_requests, value or b"0")

    def write_status(self, status: Mapping[str, Any]) -> None:
        """Tell how far the round is."""
        with self._connection.errors_translated(self._keys.trainer_status):
            self._connection.client.set(self._keys.trainer_status, orjson.dumps(status))

    def outcome(self) -> dict[str, Any]:
        """Return how the newest finished round ended; empty before the first."""
        with self._connection.errors_translated(self._keys.trainer_requests):
            value = self._connection.client.hget(self._keys.trainer_requests, "outcome")
        return json_object(self._keys, self._keys.trainer_requests, value) if value else {}

    def status(self) -> dict[str, Any]:
        """Return how far the newest round is, or how it ended; empty before the first."""
        with self._connection.errors_translated(self._keys.trainer_status):
            value = self._connection.client.get(self._keys.trainer_status)
        return json_object(self._keys, self._keys.trainer_status, value) if value else {}
