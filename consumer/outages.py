"""Waiting out what is away: Redis, the dead-letter topic, whatever the decoder needs."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from types import TracebackType

from consumer.metrics import ConsumerMetrics
from consumer.polling import Polling
from recsys.errors import DecoderUnavailable, KafkaUnavailable, RecsysError, RedisError, WritesLost
from recsys.logger import logger
from recsys.redis.connection import Connection
from recsys.runtime.logs import LastingProblem

log = logger(__name__)
_LONGEST_BACKOFF_S = 2.0


class Attempt:
    """One try of a step, a context manager: an outage that ends the block is kept, any other error passes on."""

    def __init__(self) -> None:
        self.outage: RecsysError | None = None

    def __enter__(self) -> Attempt:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if isinstance(error, WritesLost) or not isinstance(error, RedisError | KafkaUnavailable | DecoderUnavailable):
            return False
        self.outage = error
        return True


class Outages:
    """Repeats steps while what they need is away: nothing is dropped, and this member stays in its group, paused."""

    def __init__(self, polling: Polling, metrics: ConsumerMetrics) -> None:
        self._polling = polling
        self._metrics = metrics

    def retry(self, step: str, *, needs: str = "Redis") -> Iterator[Attempt]:
        """Yield attempts at an idempotent step until one succeeds.

        Use it as ``for attempt in outages.retry("apply"): with attempt: ...``. Between two attempts the partitions are
        paused and the group is served, with jittered backoff.

        Raises
        ------
        Stopped
            When a stop was asked for meanwhile.
        """
        started, problem = time.monotonic(), LastingProblem()
        tries = 0
        while True:
            attempt = Attempt()
            yield attempt
            tries += 1
            if attempt.outage is None:
                break
            is_due = problem.is_due(attempt.outage)
            if tries == 1:
                self._metrics.outages.inc()
                log.warning(
                    "step_waits",
                    "{step}: {outage}; partitions paused, nothing is dropped",
                    step=step,
                    outage=attempt.outage,
                )
                self._polling.pause()
            elif is_due:
                log.warning(
                    "step_still_waits",
                    "{step}: still waiting after {waited_s:.0f} s: {outage}",
                    step=step,
                    waited_s=time.monotonic() - started,
                    outage=attempt.outage,
                )
            longest = min(_LONGEST_BACKOFF_S, 0.05 * 2**tries)
            self._polling.keep_alive(random.uniform(longest / 2, longest))  # noqa: S311 - jitter
        if tries > 1:
            waited_s = time.monotonic() - started
            log.info(
                "step_goes_on",
                "{step}: {needs} answers again after {waited_s:.1f} s and {tries} tries",
                step=step,
                needs=needs,
                waited_s=waited_s,
                tries=tries - 1,
            )
            self._polling.resume()


def on_one_server(connection: Connection) -> Iterator[None]:
    """Yield once, and again as long as another Redis server answers at the end than at the beginning.

    A server that has taken over may lack what the one before had acknowledged since the applied offsets last moved. So
    what is done meanwhile, which must be idempotent, is done again.
    """
    while True:
        epoch = connection.epoch
        yield
        if connection.epoch == epoch:
            return
        log.info(
            "redis_replaced",
            "another Redis server answers now; this batch is written again, because the new server may lack it",
        )
