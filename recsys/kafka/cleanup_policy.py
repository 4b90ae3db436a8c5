"""Whether Kafka compacts the topic: then purchases vanish from it as soon as their key comes again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType

from recsys.errors import KafkaError, SettingsError
from recsys.kafka.topics import topic_config
from recsys.logger import logger
from recsys.runtime.logs import RepeatsLeftOut
from recsys.settings import KafkaSettings

log = logger(__name__)
logging.getLogger(__name__).addFilter(RepeatsLeftOut(every_s=3600.0))
_LOOK_EVERY_S = 60.0


def is_compacted(policy: str) -> bool:
    """Whether a cleanup.policy, such as "compact,delete", contains compaction."""
    return "compact" in (part.strip() for part in policy.split(","))


def cleanup_policy(settings: KafkaSettings) -> str:
    """Return the cleanup.policy of the topic, empty if it may not be read; it is said, once an hour, if it is wrong.

    Raises
    ------
    KafkaError
        When no broker answers, or there is no topic.
    """
    config = topic_config(settings, settings.topic)
    if config is None:
        log.warning(
            "compaction_unknown",
            "it cannot be told whether topic {topic} is compacted, which loses purchases: there is no right to "
            "describe its configuration (DescribeConfigs)",
            topic=settings.topic,
        )
        return ""
    policy = config.get("cleanup.policy", "")
    if is_compacted(policy):
        log.error(
            "topic_compacted",
            "topic {topic} is compacted (cleanup.policy={policy}): of each key only the newest purchase stays in "
            "Kafka, so what has not been read is lost, and the archive becomes incomplete; set it to delete at "
            "once: kafka-configs.sh --bootstrap-server {bootstrap_servers} --alter --entity-type topics "
            "--entity-name {topic} --add-config cleanup.policy=delete",
            topic=settings.topic,
            policy=policy,
            bootstrap_servers=settings.bootstrap_servers,
        )
    return policy


class PolicyWatch:
    """Looks at the topic's cleanup.policy at once and then every minute. Use it as a context manager.

    Parameters
    ----------
    settings : KafkaSettings
    note : callable
        Takes whether the topic is compacted: for a metric.
    """

    def __init__(self, settings: KafkaSettings, note: Callable[[bool], None]) -> None:
        self._settings = settings
        self._note = note
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="policy-watch", daemon=True)

    def __enter__(self) -> PolicyWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()

    def _run(self) -> None:
        is_known = False
        while True:
            try:
                is_now = is_compacted(cleanup_policy(self._settings))
            except (KafkaError, SettingsError) as error:  # those who read or write the topic say it
                log.debug("compaction_unknown", "cannot look at the cleanup.policy: {error}", error=error)
            else:
                if is_known and not is_now:
                    log.warning(
                        "topic_compacted_no_longer",
                        "topic {topic} is no longer compacted; what was lost stays lost",
                        topic=self._settings.topic,
                    )
                is_known = is_now
                self._note(is_now)
            if self._stop.wait(_LOOK_EVERY_S):
                return
