"""How often something may be done: a bucket of tokens for each name."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from api.problems import Kind, ProblemError

_MOST_NAMES = 10_000
"""Names that are remembered; whose turn was longest ago is forgotten, so that no flood of names fills the memory."""


class RateLimiter:
    """A bucket of tokens for each name, filled at a rate.

    Parameters
    ----------
    rate : float
        Tokens a second; 0 = no limit.
    at_once : float or None
        Tokens in a full bucket; None = a second's worth, at least one.
    allowed : str
        What is allowed, for the detail of the problem.
    """

    def __init__(
        self,
        rate: float,
        *,
        at_once: float | None = None,
        allowed: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate = rate
        self._most = max(1.0, rate) if at_once is None else at_once
        self._allowed = allowed or f"{rate:g} requests per second are allowed"
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def has(self, name: str, weight: float = 1.0) -> bool:
        """Take tokens of a name, if there are enough; return whether there were.

        A weight above a full bucket takes a full one, and what is missing must be filled in before the next.
        """
        if not self._rate:
            return True
        tokens = self._tokens(name)
        is_enough = tokens >= min(weight, self._most)
        self._buckets[name] = (tokens - weight if is_enough else tokens, self._clock())
        self._buckets.move_to_end(name)
        if len(self._buckets) > _MOST_NAMES:
            self._buckets.popitem(last=False)
        return is_enough

    def is_empty(self, name: str) -> bool:
        """Whether there is no token left."""
        return name in self._buckets and self._tokens(name) < 1

    def spend(self, name: str, weight: float = 1.0) -> None:
        """Take tokens of a name; raise 429 if there are not enough."""
        if not self.has(name, weight):
            raise self.used_up(name, weight)

    def used_up(self, name: str, weight: float = 1.0) -> ProblemError:
        """Return the problem that says when there are enough tokens again."""
        wait_s = int((min(weight, self._most) - self._tokens(name)) / self._rate) + 1
        return ProblemError(
            Kind.TOO_MANY_REQUESTS, f"{self._allowed}; wait {wait_s} s", headers={"Retry-After": str(wait_s)}
        )

    def _tokens(self, name: str) -> float:
        now = self._clock()
        tokens, at = self._buckets.get(name, (self._most, now))
        return min(self._most, tokens + (now - at) * self._rate)
