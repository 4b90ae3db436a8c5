"""Running services make the checks of `recsys doctor` again and again, and say what has become wrong since."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Literal

from recsys.errors import RecsysError
from recsys.logger import logger
from recsys.operations.doctor import examine
from recsys.operations.finding import Finding
from recsys.operations.status_line import Level
from recsys.redis import Service, open_store
from recsys.runtime.repeating import repeated
from recsys.settings import Settings
from recsys.storage.data_dir import open_data_dir

log = logger(__name__)
LOOK_EVERY_S = 300.0
_SAID_ELSEWHERE = {"kafka", "redis", "topic-compacted", "redis-eviction"}
"""What a service says by itself, sooner: as it waits, `recsys.kafka.cleanup_policy`, `recsys.redis.eviction`."""
_SAID_WHEN_BROKEN = {"names", "ports", "tls"}
"""What keeps a service from its server it says as well; that one of several brokers is away, it does not."""
_NAMES: dict[Level, Literal["warning", "broken"]] = {Level.WARNING: "warning", Level.BROKEN: "broken"}
_LEVELS = {Level.WARNING: logging.WARNING, Level.BROKEN: logging.ERROR}
_AT_FIRST = {Level.WARNING: logging.INFO, Level.BROKEN: logging.ERROR}


class CheckWatch:
    """Looks in a thread of its own, with clients of its own, so that nothing else waits for it.

    A finding is logged once when it becomes wrong, or worse, and once when it is right again. What could be better, and
    was so at the first look already, may be meant so: it is told, and is no warning. What cannot be looked at for now
    stays as it was.

    Parameters
    ----------
    look : callable
        Returns all findings.
    note : callable
        Takes the code of each that could be looked at, and whether it is wrong: for a metric.
    """

    def __init__(self, look: Callable[[], Sequence[Finding]], note: Callable[[str, bool], None]) -> None:
        self._look = look
        self._note = note
        self._wrong: dict[str, Level] = {}
        self._failing: dict[str, Level] = {}
        self._has_looked = False

    def running(self) -> AbstractContextManager[None]:
        """Look at once and then every five minutes, until the block ends."""
        return repeated(self._try_to_look, name="checks of recsys doctor", every_s=LOOK_EVERY_S)

    def failing(self) -> dict[str, Literal["warning", "broken"]]:
        """Return the codes of all that is wrong, also of what the service says by itself, with how bad it is."""
        return {code: _NAMES[level] for code, level in self._failing.items()}

    def _try_to_look(self) -> None:
        try:
            self.look()
        except RecsysError as error:
            log.warning("checks_not_made", "the checks of recsys doctor cannot be made: {error}", error=error)

    def look(self) -> None:
        """Look once."""
        checked = [finding for finding in self._look() if finding.is_checked]
        levels = self._failing | {finding.code: finding.level for finding in checked}
        self._failing = {code: level for code, level in levels.items() if level}  # another thread reads it
        for finding in checked:
            self._note(finding.code, finding.level > Level.OK)
            self._tell(finding)
        self._has_looked = True

    def _tell(self, finding: Finding) -> None:
        is_said = finding.level is Level.BROKEN and finding.code in _SAID_WHEN_BROKEN
        if finding.code in _SAID_ELSEWHERE or is_said:
            return
        before = self._wrong.pop(finding.code, Level.OK)
        if finding.level:
            self._wrong[finding.code] = finding.level
        if finding.level > before:
            remedy = "; ".join(filter(None, (finding.command, finding.advice))) or "see recsys doctor"
            log.log(
                _LEVELS[finding.level] if self._has_looked else _AT_FIRST[finding.level],
                "check_failed",
                "check {check}: {finding}; endangered: {endangers}; {remedy}",
                check=finding.code,
                finding=finding.text,
                endangers=finding.kind.endangers,
                remedy=remedy,
            )
        elif before and not finding.level:
            log.warning(
                "check_passed", "check {check}: all is well again: {finding}", check=finding.code, finding=finding.text
            )


def checks_of(settings: Settings, service: Service, note: Callable[[str, bool], None]) -> CheckWatch:
    """Return the checks of a service, by the settings and with the rights that it has."""
    return CheckWatch(partial(_examine, settings, service), note)


def _examine(settings: Settings, service: Service) -> Sequence[Finding]:
    with open_store(settings) as store:
        return examine(settings, service, store, open_data_dir(settings), is_command=False)
