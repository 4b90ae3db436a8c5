"""Draws what results.json has as curves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import BATCH
from benchmarks.results import Measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Series = dict[str, list[tuple[int, float]]]
"""Points of each line: how many, and what it costs."""

_STEPS = {
    "apply": "apply (Redis)",
    "publish": "publish (Redis)",
    "refresh": "refresh, all of it",
    "of it fold-in": "fold-in",
    "of it top-N": "top-N",
}


def draw_top_n(found: Sequence[Measured], file: Path) -> None:
    """Draw how the top-N grows with the catalogue, beside what else finds one."""
    series = _series(found, "top-n", r"([\d,]+) items.*batch \d{2,}", "µs/user")
    if not series:
        return
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for what, points in series.items():
        width = 2.5 if what.startswith("recsys") else 1.2
        axes.plot(*zip(*points, strict=True), marker="o", label=what, linewidth=width)
    axes.set(xscale="log", yscale="log", xlabel="items", ylabel="µs per user, batch of 512", title="Exact top-50")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=110, metadata={"Software": None})


def draw_growth(found: Sequence[Measured], file: Path) -> None:
    """Draw how cost grows with users, histories, items and pairs."""
    users = _series(found, "growth", r"([\d,]+) users in Redis", "lists/s")
    steps = _series(found, "growth", r"([\d,]+) items owned.*", "µs/user")
    similar = _series(found, "growth", r"([\d,]+) items", "CPU µs/item")
    fit = _series(found, "growth", r"([\d,]+) pairs.*", "CPU µs/pair")
    if not (users and steps and similar and fit):
        return
    figure, ((top_left, top_right), (left, right)) = _pyplot().subplots(2, 2, figsize=(10, 7.5), layout="constrained")
    _line(top_left, users, xlabel="users stored in Redis", ylabel="lists/s", title=f"Lists in batches of {BATCH}")
    _steps(top_right, steps)
    _line(left, similar, xlabel="items", ylabel="CPU µs per item", title="Finding an item's similar ones")
    _line(right, fit, xlabel="pairs of user and item", ylabel="CPU µs per pair", title="An iteration of the fit")
    for axes in figure.axes:
        axes.grid(visible=True, which="major", alpha=0.3)
    figure.savefig(file, dpi=110, metadata={"Software": None})


def _steps(axes: Axes, steps: Series) -> None:
    for what, name in _STEPS.items():
        whole = what == "refresh"
        axes.plot(
            *zip(*steps[what], strict=True), marker="o", color="grey" if whole else None, ls=":" if whole else "-"
        )
        length, cost = steps[what][-1]
        axes.annotate(name, (length, cost), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set(xscale="log", yscale="log", xlabel="items a user owns", ylabel=f"µs per user, batch of {BATCH}")
    axes.set_title("Steps of a batch, by length of the history")
    _name_ticks(axes, [length for length, _ in steps["refresh"]])
    axes.set_xlim(right=axes.get_xlim()[1] * 5)  # room for the names
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def _line(axes: Axes, series: Series, *, xlabel: str, ylabel: str, title: str) -> None:
    (points,) = series.values()
    axes.plot(*zip(*points, strict=True), marker="o")
    axes.set(xscale="log", xlabel=xlabel, ylabel=ylabel, title=title)
    smallest, largest = min(value for _, value in points), max(value for _, value in points)
    if largest > 3 * smallest:
        axes.set_yscale("log")
        axes.set_yticks([value for _, value in points])
    else:  # from zero on, so that what is flat looks flat
        axes.set_ylim(bottom=0, top=1.25 * largest)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.3g}" if value < 100 else f"{value:,.0f}")
    _name_ticks(axes, [size for size, _ in points])


def _name_ticks(axes: Axes, sizes: Sequence[int]) -> None:
    axes.set_xticks(sizes, labels=[f"{size:,}" for size in sizes])
    axes.minorticks_off()


def _series(found: Sequence[Measured], benchmark: str, case: str, unit: str) -> Series:
    series: Series = {}
    for one in found:
        match = re.fullmatch(case, one.case)
        if one.benchmark == benchmark and match and one.unit == unit:
            series.setdefault(one.what, []).append((int(match[1].replace(",", "")), one.value))
    return {what: sorted(points) for what, points in series.items()}


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    return pyplot
