"""How commands show what records or rows come to as events."""

from __future__ import annotations

from recsys.cli.output import new_table, results
from recsys.data.epoch import iso_time
from recsys.data.event import EventType
from recsys.files.remedies import Remedies
from recsys.operations.distinct import DistinctCounter
from recsys.operations.event_summary import EventSummary, ReasonCounts
from recsys.runtime.clock import now

_MOST_REASONS = 10
_WORDS = {EventType.PURCHASE: "purchases", EventType.RETURN: "returns", EventType.FORGET: "forgets"}


def new_summary(remedies: Remedies, most_ids: int | None = None) -> EventSummary:
    """Return one that has seen nothing yet; times after now lie ahead. ``most_ids`` is that of `EventSummary`."""
    return EventSummary(now_ms=round(now().timestamp() * 1000), remedies=remedies, most_ids=most_ids)


def print_summary(title: str, summary: EventSummary, *, unit: str) -> None:
    """Print it as tables, and what is suspicious in a line each.

    Parameters
    ----------
    title : str
    summary : EventSummary
    unit : str
        What was read: a record, or a row.
    """
    results.print(title, style="table.title")  # by itself: a table would wrap it to its own width
    table = new_table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right")
    table.add_column()
    table.add_row(f"{unit}s", f"{summary.records:,}")
    table.add_row("malformed" if unit == "record" else "rejected", *_with_share(summary.malformed, summary.records))
    table.add_row("events", f"{summary.events:,}")
    for kind, word in _WORDS.items():
        if summary.types[kind]:
            table.add_row(f"  {word}", f"{summary.types[kind]:,}")
    table.add_row("users", _number(summary.users))
    table.add_row("items", _number(summary.items))
    if summary.first_ms is not None and summary.last_ms is not None:
        table.add_row("first", iso_time(summary.first_ms))
        table.add_row("last", iso_time(summary.last_ms))
    ids, least = summary.ids, "" if summary.ids.is_exact else "at least "
    for name, count, meaning in (
        ("repeated", ids.recognized, "by event_id; these count once"),
        ("too late", ids.too_late, "repeated by event_id; these count again"),
    ):
        if count or (least and name == "repeated"):
            table.add_row(name, f"{least}{count:,}", meaning)
    alike = summary.without_id
    if alike.repeats is None:
        why = f"without event_id; all of these count; more than {alike.most_held:,} to tell apart"
        table.add_row("alike", "unknown", why)
    elif alike.repeats:
        table.add_row("alike", f"{alike.repeats:,}", "without event_id; all of these count")
    results.print(table)
    _print_reasons("Malformed" if unit == "record" else "Rejected", summary.malformed)
    _print_reasons("Passed over", summary.passed_over)
    notes, suspicions = summary.notes(), summary.suspicions()
    if notes or suspicions:
        results.print()
    for note in notes:
        results.print(f"note: {note}")
    for suspicion in suspicions:
        results.print(f"suspicious: {suspicion}", style="yellow")


def _with_share(counts: ReasonCounts, of: int) -> tuple[str, str]:
    return f"{counts.total:,}", f"{counts.total / of:.1%}" if of and counts.total else ""


def _number(counter: DistinctCounter) -> str:
    return f"{counter.distinct:,}" if counter.is_exact else f"about {counter.distinct:,}"


def _print_reasons(title: str, counts: ReasonCounts) -> None:
    found = counts.most_common()
    if not found:
        return
    results.print()
    table = new_table(title)
    table.add_column("why", overflow="fold")
    table.add_column("count", justify="right")
    table.add_column("the first", overflow="fold")
    for one in found[:_MOST_REASONS]:
        table.add_row(one.reason, f"{one.count:,}", one.place)
    if rest := sum(one.count for one in found[_MOST_REASONS:]):
        table.add_row("other reasons", f"{rest:,}", "")
    results.print(table)
