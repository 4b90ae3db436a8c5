"""Swapping the model between two batches."""

from __future__ import annotations

import gc

from consumer.metrics import ConsumerMetrics
from consumer.outages import Outages, on_one_server
from consumer.polling import Polling
from consumer.refresher import Refresher
from recsys.logger import logger
from recsys.redis.connection import Connection
from recsys.runtime import fail_points
from recsys.settings import Settings

log = logger(__name__)


class ModelSwap:
    """Takes a newly published model, and refreshes the users whom its full refresh may have missed."""

    def __init__(
        self,
        refresher: Refresher,
        polling: Polling,
        outages: Outages,
        connection: Connection,
        metrics: ConsumerMetrics,
        settings: Settings,
    ) -> None:
        self._live = refresher.live
        self._refresher = refresher
        self._polling = polling
        self._outages = outages
        self._connection = connection
        self._metrics = metrics
        self._at_once = settings.consumer.batch_size
        self._served_sequence = refresher.live.current.stamp.sequence if refresher.live.current else -1
        metrics.model_sequence.set(self._served_sequence)

    def swap(self) -> bool:
        """Take the newest model, between two batches; return whether it is another one."""
        self._live.take_newest()
        users = self._live.served_unconfirmed()
        live = self._live.current
        if live is None or live.stamp.sequence == self._served_sequence:
            return False
        self._metrics.model_sequence.set(live.stamp.sequence)
        spare_collections()
        log.info(
            "model_live",
            "model {model} is live; refreshing {users} users served since the last check",
            model=live.stamp.version,
            users=len(users),
        )
        fail_points.reach("in-model-swap")
        many = len(users) > self._at_once  # as after a model that was refused for long
        if many:
            self._polling.pause()
        for start in range(0, len(users), self._at_once):
            for _ in on_one_server(self._connection):
                for attempt in self._outages.retry("refresh"):
                    with attempt:
                        self._refresher.read_and_refresh(users[start : start + self._at_once])
            if many:
                self._polling.keep_alive(0.01)
        if many:
            self._polling.resume()
        self._served_sequence = live.stamp.sequence
        return True


def spare_collections() -> None:
    """Let garbage collections be few, and none look at what lives long: libraries and model."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # a batch makes some 10,000 objects that reference counting frees
