"""What the demo shows; every line fits 80 columns."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from recsys.demo.hit_rates import FIRST_DAY, POPULAR, REFRESHED, TOP, HitRates
from recsys.demo.stories import AGAIN_SHOWN, NEW_SHOWN, Story
from recsys.demo.stream import Outcome, Progress
from recsys.runtime.escapes import escaped

WIDTH = 80
_LINE_EVERY_S = 5.0
_LIST_WIDTH = 36


class LiveView(Protocol):
    """Shows the stream while it runs."""

    def show(self, progress: Progress) -> None:
        """Show the newest figures."""


class _Terminal:
    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, progress: Progress) -> None:
        share = progress.published / progress.total
        bar = "━" * round(60 * share) + "╺" * (60 - round(60 * share))
        of_all = f"{progress.published:,} of {progress.total:,} purchases"
        self._live.update(
            Group(
                Text(f"{bar} {share:4.0%}", style="cyan"),
                Text(f"{of_all}, {progress.events_per_s:,.0f}/s; {progress.lists_per_s:,.0f} new lists/s"),
                Text(f"from purchase to new list: {_latency(progress)}; {progress.dead_letters:,} dead letters"),
            )
        )


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = 0.0

    def show(self, progress: Progress) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_EVERY_S
            self._console.print(
                f"{progress.published / progress.total:4.0%}  {progress.lists_per_s:>4,.0f} new lists/s  "
                f"{_latency(progress):<29}  {progress.dead_letters:>3,} dead letters"
            )


def _latency(progress: Progress) -> str:
    if not progress.lists_per_s:
        return "no list just now"
    return f"median {progress.p50_ms:.0f} ms, 99 % in {progress.p99_ms:.0f} ms"


@contextmanager
def live_view(console: Console) -> Iterator[LiveView]:
    """Yield a display that updates in place on a terminal, and prints a line now and then elsewhere."""
    if not console.is_terminal:
        yield _Lines(console)
        return
    with Live(console=console, refresh_per_second=4) as live:
        yield _Terminal(live)


def story_table(story: Story, titles: Mapping[str, str]) -> Group:
    """Show what a household bought and how its lists changed."""
    known = f"has bought {story.known_items} products so far" if story.known_items else "is new"
    names = "; ".join(escaped(titles[item]) for item in dict.fromkeys(story.bought))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1))
    table.add_column("", justify="right", width=2)
    for heading in ("before", "after"):
        table.add_column(heading, width=_LIST_WIDTH, no_wrap=True)
    first = "the popular products" if not story.known_items else "new to it"
    table.add_row("", Text(first, style="italic"), Text("new to it", style="italic"))
    _add_places(table, story.before.new, story.after.new, NEW_SHOWN, story.bought, titles)
    table.add_row("", Text("to buy again", style="italic"), Text("to buy again", style="italic"))
    _add_places(table, story.before.again, story.after.again, AGAIN_SHOWN, (), titles)
    return Group(
        Text(f"\nHousehold {story.household} {known}. It buys: {names}", style="bold"),
        Text(f"{story.latency_ms:.0f} ms later its lists in Redis have changed:"),
        table,
        Text(""),
    )


def _add_places(
    table: Table,
    before: Sequence[str],
    after: Sequence[str],
    places: int,
    bought: Sequence[str],
    titles: Mapping[str, str],
) -> None:
    for place in range(places):
        old = before[place] if place < len(before) else None
        new = after[place] if place < len(after) else None
        left = _entry(old, titles, "bought" if old in bought else "", "strike dim" if old in bought else "", "dim")
        table.add_row(str(place + 1), left, _entry(new, titles, _came_from(new, before, places), "", "green"))


def _came_from(item: str | None, before: Sequence[str], places: int) -> str:
    """Say where a product was that was not shown before."""
    if item is None or item in before[:places]:
        return ""
    return f"was no. {before.index(item) + 1}" if item in before else "new"


def _entry(item: str | None, titles: Mapping[str, str], mark: str, style: str, mark_style: str) -> Text:
    if item is None:
        return Text("–", style="dim")
    title = Text(escaped(titles[item]), style=style)
    title.truncate(_LIST_WIDTH - (len(mark) + 2 if mark else 0), overflow="ellipsis")
    return title.append(f"  {mark}", style=mark_style) if mark else title


def summary(outcome: Outcome) -> RenderableType:
    """Show what happened, and what the lists were worth."""
    facts = _table("The month, replayed")
    facts.add_column("", width=58)
    facts.add_column("", justify="right", width=18)
    facts.show_header = False
    for name, value in (
        ("purchases published", f"{outcome.events:,}"),
        ("seconds that took", f"{outcome.duration_s:,.0f}"),
        ("lists refreshed", f"{outcome.lists:,}"),
        ("from purchase to new list in Redis, median", f"{outcome.p50_ms:.1f} ms"),
        ("from purchase to new list in Redis, 99 % in", f"{outcome.p99_ms:.1f} ms"),
        ("dead letters", f"{outcome.dead_letters:,}"),
    ):
        facts.add_row(name, value)
    hits = _table(f"Of 100 baskets, so many hold at least one of the {TOP} products shown")
    hits.add_column("", width=44)
    hits.add_column("any product", justify="right", width=13)
    hits.add_column("new to household", justify="right", width=17)
    _add_rates(hits, "Households with a history", outcome.known, (POPULAR, FIRST_DAY, REFRESHED))
    hits.add_section()
    newcomers = f"{outcome.newcomer_households:,} new households, after the first basket"
    _add_rates(hits, newcomers, outcome.newcomers, (POPULAR, REFRESHED))
    return Group(facts, Text(""), hits, Text(_EXPLANATION), Text(""), Text(_conclusion(outcome), style="bold"))


_EXPLANATION = """\
Each basket is judged just before it is published: no model and no list has seen
it. "Any product": what an app shows are 5 products to buy again and 5 new ones,
or the 10 most popular. "New to household": 10 that it has never bought, judged
on the baskets that hold something new to it."""


def _conclusion(outcome: Outcome) -> str:
    def rate(rates: HitRates, row: str) -> str:
        return f"{100 * rates.any[row] / max(1, rates.baskets):.0f}"

    known, new = outcome.known, outcome.newcomers
    return (
        f"So {rate(known, REFRESHED)} of 100 baskets hold a product that their own list shows, where the popular\n"
        f"list has {rate(known, POPULAR)}; of new households, after one basket, {rate(new, REFRESHED)} instead of "
        f"{rate(new, POPULAR)}."
    )


def _table(title: str) -> Table:
    return Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False
    )


def _add_rates(table: Table, name: str, rates: HitRates, rows: Sequence[str]) -> None:
    table.add_row(Text(name, style="bold"))
    table.add_row("  baskets judged", f"{rates.baskets:,}", f"{rates.baskets_with_new:,}", style="dim")
    for row in rows:
        any_product = 100 * rates.any[row] / max(1, rates.baskets)
        new_product = 100 * rates.new[row] / max(1, rates.baskets_with_new)
        table.add_row(f"  {row}", f"{any_product:.1f}", f"{new_product:.1f}")
