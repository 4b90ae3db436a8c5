"""The report of an evaluation: a self-contained HTML page with plots."""

from __future__ import annotations

import html
import io
from collections.abc import Iterator, Sequence

from recsys.evaluation.compare import ALL, NEW, Score
from recsys.evaluation.metrics import NOBODY, Interval
from recsys.evaluation.split import EVERYBODY, NEWCOMERS, SEGMENTS
from recsys.evaluation.verdict import GLOSSARY, TOO_FEW, is_telling
from recsys.operations.evaluate import LENGTHS, MODEL, Evaluation

TITLES = {NEW: "Items new to the user", ALL: "All items, owned ones as well"}
_FEW_ALPHA = 0.25
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 2rem } th, td { padding: .25rem .7rem; text-align: right }
th:first-child, td:first-child { text-align: left } thead th { border-bottom: 2px solid #888 }
tbody tr:nth-child(odd) { background: #f5f5f5 } tr.model td { font-weight: 600 } .interval { color: #777 }
tr.few th, tr.few td, tr.few .interval { color: #aaa; font-weight: 400 }
figure { margin: 1rem 0 } svg { max-width: 100%; height: auto }
.verdict { font-size: 1.1rem } dt { font-weight: 600 } dd { margin: 0 0 .4rem 1rem }
"""


def html_report(found: Evaluation) -> str:
    """Return the page."""
    n = max(LENGTHS)
    stands_in = " (the same model, fitted on what precedes its own hold-out, in its place)" if found.stands_in else ""
    parts = [
        f"<h1>Model {html.escape(found.model)}</h1>",
        f'<div class="verdict">{"".join(f"<p>{html.escape(line)}</p>" for line in found.verdict(n))}</div>',
        f"<p>Fitted on purchases up to {found.fitted_until}{stands_in}, judged by what {found.users:,} users bought "
        f"from {found.cut} to {found.end}, among {found.items:,} items. Means over users and 95 % bootstrap "
        f"intervals.</p>",
    ]
    for column, title in TITLES.items():
        parts += [f"<h2>{title}</h2>", f"<figure>{_plot(found, column, n)}</figure>"]
        for length in LENGTHS:
            parts.append(_table(found, column, length))
    words = "".join(f"<dt>{html.escape(word)}</dt><dd>{html.escape(text)}</dd>" for word, text in GLOSSARY.items())
    parts.append(f"<h2>Words</h2><dl>{words}</dl>")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Model {html.escape(found.model)}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _plot(found: Evaluation, column: str, n: int) -> str:
    """Draw NDCG and hit rate by segment, as SVG."""
    from matplotlib.figure import Figure  # takes a second to import

    figure = Figure(figsize=(10, 4), layout="constrained")
    segments = [name for name in (*SEGMENTS, NEWCOMERS) if found.users_of(name, column, n)]
    telling = [is_telling(found.users_of(name, column, n)) for name in segments]
    names = _recommenders(found, column)
    for axes, (metric, label) in zip(
        figure.subplots(1, 2), (("ndcg", f"NDCG@{n}"), ("hit_rate", f"hit rate@{n}")), strict=True
    ):
        width = 0.8 / max(1, len(names))
        for place, name in enumerate(names):
            means = [_mean(found.score(name, segment, column, n), metric) for segment in segments]
            at = [x + (place - (len(names) - 1) / 2) * width for x in range(len(segments))]
            heights = [mean.mean for mean in means]
            errors = [[mean.mean - mean.low for mean in means], [mean.high - mean.mean for mean in means]]
            bars = axes.bar(at, heights, width, yerr=errors, label=name, error_kw={"elinewidth": 0.8, "ecolor": "#444"})
            for bar, tells in zip(bars, telling, strict=True):
                bar.set_alpha(1.0 if tells else _FEW_ALPHA)
        labels = [
            f"{segment}\n{found.users_of(segment, column, n):,}" + ("" if tells else "\n(too few)")
            for segment, tells in zip(segments, telling, strict=True)
        ]
        axes.set_xticks(range(len(segments)), labels, fontsize=8)
        axes.set_ylabel(label)
        axes.grid(axis="y", alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    drawn = buffer.getvalue()
    return drawn[drawn.index("<svg") :]


def _table(found: Evaluation, column: str, n: int) -> str:
    head = "".join(
        f"<th>{name}</th>" for name in ("", f"NDCG@{n}", f"recall@{n}", f"hit rate@{n}", "coverage", "novelty")
    )
    rows: list[str] = []
    for segment in (*SEGMENTS, NEWCOMERS):
        if not (users := found.users_of(segment, column, n)):
            continue
        few = "" if is_telling(users) else "few"
        rows.append(f'<tr class="{few}"><th colspan="6">{segment}: {users:,}{few and f", {TOO_FEW}"}</th></tr>')
        for score in _scores(found, segment, column, n):
            cells = "".join(f"<td>{_cell(mean)}</td>" for mean in (score.ndcg, score.recall, score.hit_rate))
            kind = few or ("model" if score.recommender == MODEL else "")
            rows.append(
                f'<tr class="{kind}"><td>{html.escape(score.recommender)}</td>{cells}'
                f"<td>{score.coverage:.3f}</td><td>{score.novelty:.2f}</td></tr>"
            )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _cell(mean: Interval) -> str:
    if not mean.users:
        return "–"
    return f'{mean.mean:.4f} <span class="interval">{mean.low:.4f}–{mean.high:.4f}</span>'


def _scores(found: Evaluation, segment: str, column: str, n: int) -> Iterator[Score]:
    for score in found.scores:
        if (score.segment, score.column, score.n) == (segment, column, n):
            yield score


def _recommenders(found: Evaluation, column: str) -> Sequence[str]:
    return [score.recommender for score in _scores(found, EVERYBODY, column, max(LENGTHS))]


def _mean(score: Score | None, metric: str) -> Interval:
    found: Interval = NOBODY if score is None else getattr(score, metric)
    return found
