"""What the demo shows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from recsys.demo.stream import TOP, HitRates, Outcome, Progress, Story

_LINE_EVERY_S = 5.0
_LISTED = 6


class LiveView(Protocol):
    """Shows the stream while it runs."""

    def show(self, progress: Progress) -> None:
        """Show the newest figures."""


class _Terminal:
    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, progress: Progress) -> None:
        share = progress.published / progress.total
        bar = "━" * round(40 * share) + "╺" * (40 - round(40 * share))
        self._live.update(Group(Text(f"{bar} {share:4.0%}", style="cyan"), Text(_line(progress))))


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = 0.0

    def show(self, progress: Progress) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_EVERY_S
            self._console.print(f"{progress.published / progress.total:4.0%}  {_line(progress)}")


@contextmanager
def live_view(console: Console) -> Iterator[LiveView]:
    """Yield a display that updates in place on a terminal, and prints a line now and then elsewhere."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    with Live(console=console, refresh_per_second=4) as live:
        yield _Terminal(live)


def _line(progress: Progress) -> str:
    return (
        f"{progress.published:>7,} of {progress.total:,} events  {progress.events_per_s:>6,.0f}/s  "
        f"{progress.lists_per_s:>5,.0f} lists/s  event → list p50 {progress.p50_ms:.0f} ms, "
        f"p99 {progress.p99_ms:.0f} ms  {progress.dead_letters} dead letters"
    )


def story_table(story: Story, titles: Mapping[str, str]) -> Group:
    """Show what a household bought and how its list changed."""
    bought = set(story.bought)
    names = "; ".join(
        titles.get(item, item) + (f" (was number {story.before.index(item) + 1})" if item in story.before else "")
        for item in sorted(bought, key=lambda item: story.before.index(item) if item in story.before else 1000)
    )
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("", justify="right")
    table.add_column("list before", width=44, no_wrap=True)
    table.add_column("list after", width=44, no_wrap=True)
    for place in range(_LISTED):
        before = story.before[place] if place < len(story.before) else ""
        after = story.after[place] if place < len(story.after) else ""
        gone = Text(titles.get(before, before), style="strike dim" if before in bought else "")
        if before in bought:
            gone.append("  bought")
        came = Text(titles.get(after, after))
        if after and after not in story.before[:_LISTED]:
            place_before = story.before.index(after) + 1 if after in story.before else None
            came.append(f"  ↑ from {place_before}" if place_before else "  new", style="green")
        table.add_row(str(place + 1), gone, came)
    known = f"{story.known_items} products known" if story.known_items else "never seen before"
    return Group(
        Text(f"\nHousehold {story.household} ({known}) bought: {names}", style="bold"),
        Text(f"its list in Redis had changed {story.latency_ms:.0f} ms later"),
        table,
        Text(""),
    )


def summary_table(outcome: Outcome) -> Group:
    """Show what happened, and what the refreshing was worth."""
    facts = Table(title="December, replayed", title_justify="left", show_header=False)
    facts.add_column("")
    facts.add_column("", justify="right")
    rate = outcome.events / outcome.duration_s
    facts.add_row("events", f"{outcome.events:,} in {outcome.duration_s:.0f} s ({rate:,.0f}/s)")
    facts.add_row("lists refreshed", f"{outcome.lists:,}")
    facts.add_row("dead letters (the data has lines with quantity 0)", f"{outcome.dead_letters:,}")
    facts.add_row("event → list, p50", f"{outcome.p50_ms:.1f} ms")
    facts.add_row("event → list, p99", f"{outcome.p99_ms:.1f} ms")
    hits = Table(
        title=f"Hit rate@{TOP}: one of {TOP} is in the next basket, and new to the household",
        title_justify="left",
    )
    hits.add_column("households")
    hits.add_column("baskets", justify="right")
    hits.add_column("popular list", justify="right")
    hits.add_column("own list of 1 December", justify="right")
    hits.add_column("own list, refreshed", justify="right")
    for name, rates in (("all", outcome.everyone), ("with under 20 known products", outcome.newcomers)):
        hits.add_row(name, f"{rates.baskets:,}", *_shares(rates))
    return Group(facts, Text(""), hits)


def _shares(rates: HitRates) -> list[str]:
    baskets = max(1, rates.baskets)
    return [f"{count / baskets:.1%}" for count in (rates.popular, rates.stale, rates.refreshed)]
