"""The lines of `recsys status` about data: how far the stream is applied, models, lists, the archive."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from recsys.operations.status_facts import (
    ArchiveFacts,
    DeadLetterFacts,
    ListFacts,
    ModelFacts,
    PartitionFacts,
    RoundFacts,
)
from recsys.operations.status_line import Level, Line, rising
from recsys.operations.status_words import counted, duration, size
from recsys.settings.status import StatusSettings
from recsys.storage.verified import VerifyRecord

_MOST_REASONS = 3
REBUILD = "recsys rebuild, see Disaster recovery"
"""What to do about an emptied Redis, and so about all that is not well because of it."""
_WITHOUT_MODEL = ("failed", "rejected")
"""How a round ends that publishes nothing."""


def histories_line(is_missing: bool) -> Line:
    """Say whether Redis holds the histories that it should hold."""
    if is_missing:
        text = "Redis was emptied, or is the wrong one: no model is made and no list is written"
        return Line("histories", "histories", Level.BROKEN, text, REBUILD)
    return Line("histories", "histories", Level.OK, "there")


def lag_line(partitions: Sequence[PartitionFacts], settings: StatusSettings) -> Line:
    """Say how many records wait, and for how long."""
    lag = sum(partition.lag for partition in partitions)
    if lost := [partition for partition in partitions if partition.lost]:
        count = sum(partition.lost for partition in lost)
        text = f"{counted(count, 'record')} expired in Kafka before they were applied"
        return Line("lag", "lag", Level.BROKEN, text, "do what the consumer's log says, see Messages and what to do")
    oldest_s = max((partition.oldest_s or 0.0 for partition in partitions), default=0.0)
    text = f"{counted(lag, 'record')} to apply" + (f", the oldest {duration(oldest_s)} old" if oldest_s else "")
    remedy = "start consumers, up to one for each partition; if they run, look at their logs, see Supervision"
    return rising("lag", "lag", text, oldest_s, settings.lag_s, remedy)


def model_line(model: ModelFacts | None, settings: StatusSettings, at: datetime) -> Line:
    """Say which model is live, and how old it is."""
    said = "model", "live model"
    if model is None:
        text = "there is none: users get no lists of their own"
        return Line(*said, Level.BROKEN, text, "recsys retrain, or python -m trainer --once, see Models")
    age_h = max(0.0, (at - model.made_at).total_seconds() / 3600)
    events = "" if model.events is None else f", {counted(model.events, 'event')}"
    gate = f", {model.decision}" if model.decision else ""
    text = f"{model.version}, {duration(3600 * age_h)} old{events}{gate}"
    return rising(*said, text, age_h, settings.model_age_h, "look at the rounds, see Models")


def rounds_line(rounds: Sequence[RoundFacts], due: Sequence[datetime], at: datetime) -> Line:
    """Say how the newest round ended, and when the next one of any trainer is due."""
    after = ""
    if due:
        left_s = (min(due) - at).total_seconds()
        after = f"; the next is due in {duration(left_s)}" if left_s > 1 else "; the next is due now"
    if not rounds:
        return Line("rounds", "rounds", Level.OK, f"none yet{after}")
    newest = rounds[0]
    text = f"{newest.finished_at[:16].replace('T', ' ')} {newest.outcome}"
    if newest.outcome in _WITHOUT_MODEL:
        is_again = len(rounds) > 1 and rounds[1].outcome in _WITHOUT_MODEL
        again = ", and the one before was no better" if is_again else ""
        text = f"{text}{again}: {newest.reason or 'no reason is noted'}{after}"
        section = "Rejected models" if newest.outcome == "rejected" else "Models"
        remedy = f"do what the line says, see {section}"
        return Line("rounds", "rounds", Level.BROKEN if is_again else Level.WARNING, text, remedy)
    return Line("rounds", "rounds", Level.OK, f"{text}{after}")


def dead_letters_line(found: DeadLetterFacts, settings: StatusSettings) -> Line:
    """Say which share of the records is malformed, and why."""
    if not found.count:
        return Line("dead-letters", "dead letters", Level.OK, "none in the last hour")
    reasons = [f"{count:,} x {reason}" for reason, count in list(found.reasons.items())[:_MOST_REASONS]]
    text = f"{found.count:,} in the last hour"
    if found.looked_at < found.count:
        text += f"; of the newest {found.looked_at:,}"
    text += f": {'; '.join(reasons)}" if reasons else ""
    share = found.count / max(1, found.records, found.count)
    remedy = "repair the producer that the reasons tell of, see Messages and what to do"
    return rising("dead-letters", "dead letters", text, share, settings.dead_letter_share, remedy)


def lists_line(found: ListFacts, settings: StatusSettings) -> Line:
    """Say what users find."""
    of = "all" if found.is_all else "some"
    text = (
        f"of {of} {counted(found.users, 'user')}: {found.personal:,} personal, {found.popular:,} popular, "
        f"{found.expired:,} expired"
    )
    share = found.expired / max(1, found.users)
    remedy = "a round writes them again: recsys retrain, see Models"
    return rising("lists", "lists", text, share, settings.expired_share, remedy)


def archive_line(found: ArchiveFacts) -> Line:
    """Say what the archive holds."""
    newest = "" if found.newest_event is None else f", newest event {found.newest_event:%Y-%m-%d %H:%M} UTC"
    text = f"{size(found.size_bytes)} in {counted(found.segments, 'segment')}{newest}"
    return Line("archive", "archive", Level.OK, text if found.segments else "empty")


def verified_line(found: VerifyRecord | None) -> Line:
    """Say what the newest `recsys verify` has found."""
    said = "verify", "recsys verify"
    if found is None:
        return Line(*said, Level.OK, "was not run yet")
    text = f"{found.at:%Y-%m-%d %H:%M} UTC: {counted(found.users, 'user')}, {counted(found.differences, 'difference')}"
    if found.differences:
        return Line(*said, Level.BROKEN, text, "recsys verify says which; then recsys rebuild, see Disaster recovery")
    return Line(*said, Level.OK, text)
