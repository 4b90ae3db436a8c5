"""`recsys models`: list, show and roll back versions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated

import orjson
import typer
from rich.table import Table

from recsys.cli.lock import held_lock
from recsys.cli.output import counted, errors, is_narrow, new_table, print_json, results, settings_for_command
from recsys.errors import InvalidModel, NoModel, RedisError
from recsys.evaluation.compare import ALL, NEW
from recsys.evaluation.gate_record import GateRecord
from recsys.evaluation.metrics import Interval
from recsys.evaluation.verdict import GATE_WORDS, gate_verdict, glossary, holdout_marks
from recsys.operations.histories import ensure_histories
from recsys.operations.model_versions import kept_models, summary
from recsys.operations.rollback import previous_version, roll_back
from recsys.redis import open_store
from recsys.runtime.clock import now
from recsys.runtime.progress import ProgressReporter
from recsys.settings import Settings
from recsys.storage.data_dir import open_data_dir
from recsys.storage.manifest import Manifest
from recsys.storage.rounds import RoundRecord

models_app = typer.Typer(
    help="List, show and roll back models.", invoke_without_command=True, add_completion=False, rich_markup_mode=None
)
_ROUNDS_SHOWN = 10
_ROUND_NAMES = ("finished (UTC)", "asked by", "outcome", "version")
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@models_app.callback()
def list_command(context: typer.Context, as_json: Json = False) -> None:
    """List the models that are kept, the newest first, and the last rounds."""
    if context.invoked_subcommand is not None:
        return
    settings = settings_for_command()
    data_dir = open_data_dir(settings)
    found = list(kept_models(data_dir, live=_live(settings)))
    rounds = list(_first(data_dir.rounds.newest_first(), _ROUNDS_SHOWN))
    if as_json:
        rows = [
            {"role": role, **({"version": version} if manifest is None else summary(manifest))}
            for version, role, manifest in found
        ]
        _print_json({"models": rows, "rounds": [record.model_dump(mode="json") for record in rounds]})
        return
    if not found:
        raise NoModel("there is no model yet; make one with recsys retrain, or python -m trainer --once")
    for version, role, manifest in found:
        if role == "live" and manifest is not None and manifest.gate is not None:
            results.print(f"Model {version} is live.")
            _print_verdict(manifest.gate)
    results.print(models_table(data_dir.url, found))
    results.print(rounds_table(rounds))
    for line in reasons(rounds):
        results.print(line)


@models_app.command("show")
def show_model_command(
    version: Annotated[str, typer.Argument(metavar="VERSION", help="A version, or `live`.")], as_json: Json = False
) -> None:
    """Show the data and parameters of a model, how the gate compared it, and its learned weights."""
    settings = settings_for_command()
    data_dir = open_data_dir(settings)
    models = data_dir.models
    if version == "live":
        version = _live(settings) or _no_live()
    manifest = models.manifest(version)
    role = next((role for kept, role, _ in kept_models(data_dir, live=_live(settings)) if kept == version), "")
    if as_json:
        _print_json({"role": role, **manifest.model_dump(mode="json")})
        return
    if manifest.gate is not None:
        _print_verdict(manifest.gate)
    table = new_table(f"Model {version}" + (f" ({role})" if role else ""), show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("made", manifest.created_at)
    counts = manifest.counts
    table.add_row("fitted on", ", ".join(f"{count:,} {name}" for name, count in counts.items()))
    table.add_row("ages measured from", datetime.fromtimestamp(manifest.reference_s, UTC).isoformat())
    table.add_row("parameters", _parameters(manifest, named=True))
    table.add_row("size", f"{sum(file.size_bytes for file in manifest.files.values()) / 2**20:,.1f} MiB")
    results.print(table)
    if (gate := manifest.gate) is not None:
        if gate.scores:
            results.print(gate_table(gate))
        results.print("; ".join([gate.decision.value, *gate.reasons]))
    if (weights := manifest.weights) is not None:
        results.print(weights_table(manifest))
        results.print(f"x·y is multiplied by {1 + weights.affinity:.3f} for owned items, by 1 for others")
    else:
        results.print("no learned weights: scores are x·y alone")
    if gate is not None and gate.scores:
        for line in glossary(GATE_WORDS):
            results.print(line, style="dim")


@models_app.command("rollback")
def rollback_command(
    version: Annotated[
        str | None, typer.Argument(metavar="VERSION", help="Version; default: the one that was live before.")
    ] = None,
) -> None:
    """Make an earlier model live again and refresh every list.

    It stays live until another model passes the gate against it, or an operator changes it. After an interruption,
    run it again with the version.
    """
    if version == "":
        raise InvalidModel("VERSION is empty; leave it out to roll back to the model that was live before")
    settings = settings_for_command()
    data_dir = open_data_dir(settings)
    with open_store(settings) as store:
        store.connection.check()
        pointer = store.pointer.read_unless_damaged()
        live = "" if pointer is None else pointer.version
        target = version or previous_version(data_dir, live=live)  # as things are now
        try:
            with held_lock(settings, store, "recsys models rollback") as lock:
                ensure_histories(settings, store, data_dir)
                progress = ProgressReporter(console=errors)
                done = roll_back(settings, store, data_dir, lock, progress, target, live_before=live, clock=now)
        except KeyboardInterrupt:
            errors.print("interrupted; recsys models shows what is live, recsys models rollback VERSION continues")
            raise typer.Exit(130) from None
    before = f"; {done.live_before} was live before" if done.live_before not in ("", done.version) else ""
    results.print(
        f"model {done.version} is live{before}; {counted(done.written.lists, 'list')} and "
        f"{counted(done.written.similar, 'similar-items list')} written"
    )


def models_table(url: str, found: Iterable[tuple[str, str, Manifest | None]]) -> Table:
    """Return the models that are kept: (version, role, manifest or None if it is damaged)."""
    found = list(found)
    judged = [(version, manifest.gate) for version, _, manifest in found if manifest is not None and manifest.metrics]
    marks, meanings = holdout_marks(gate for _, gate in judged)
    mark_of = dict(zip((version for version, _ in judged), marks, strict=True))
    what = "new, all: NDCG@20 of items new to the user, and of all items"
    table = new_table(f"Models in {url}", caption="\n".join([what, *meanings]))
    for name in ("version", "role") if is_narrow() else ("version", "role", "made (UTC)"):
        table.add_column(name, no_wrap=True)
    counted = ("events",) if is_narrow() else ("events", "users", "items")
    for name in counted:
        table.add_column(name, justify="right")
    if not is_narrow():
        table.add_column("factors, α, λ, half-life")
    for name in ("new", "all"):
        table.add_column(name, justify="right")
    for version, role, manifest in found:
        if manifest is None:
            table.add_row(version, f"{role} (damaged)".strip())
            continue
        counts = [f"{manifest.counts.get(name, 0):,}" for name in counted]
        means = [manifest.metrics.get(f"ndcg@20_{column}") for column in (NEW, ALL)]
        mark = mark_of.get(version, "")
        quality = ["–" if mean is None else f"{_number(mean)} {mark}".strip() for mean in means]
        made = [] if is_narrow() else [manifest.created_at[:16].replace("T", " ")]
        parameters = [] if is_narrow() else [_parameters(manifest)]
        table.add_row(version, role, *made, *counts, *parameters, *quality)
    return table


def gate_table(gate: GateRecord) -> Table:
    """Return what the gate compared."""
    judged = next(iter(gate.scores))
    table = new_table(
        f"On {judged.ndcg.users:,} users' purchases since {gate.cut[:16].replace('T', ' ')} UTC",
        caption="means and 95 % intervals; the column with * decides",
    )
    table.add_column("")
    titles = {NEW: "new to the user", ALL: "all items"}
    for column, title in titles.items():
        star = "*" if column == gate.column else ""
        table.add_column(f"NDCG@{judged.n}, {title}{star}", justify="right")
        if not is_narrow():
            table.add_column("hit rate", justify="right")
    for name in dict.fromkeys(score.recommender for score in gate.scores):
        cells = []
        for column in titles:
            score = gate.score(name, column)
            cells.append("–" if score is None else _with_interval(score.ndcg))
            if not is_narrow():
                cells.append("–" if score is None else _number(score.hit_rate.mean))
        table.add_row(name, *cells)
    if (difference := gate.difference) is not None:
        cells = [_with_interval(difference, signed=True) if column == gate.column else "" for column in titles]
        table.add_row("candidate − live", *(cells if is_narrow() else [cells[0], "", cells[1], ""]))
    return table


def rounds_table(rounds: Iterable[RoundRecord]) -> Table:
    """Return what rounds were like; why they ended so is said by `reasons`."""
    table = new_table("Last rounds")
    for name in ("finished (UTC)", "outcome", "version") if is_narrow() else _ROUND_NAMES:
        table.add_column(name, no_wrap=True)
    table.add_column("events", justify="right")
    table.add_column("seconds", justify="right")
    for record in rounds:
        events = f"{record.counts['events']:,}" if "events" in record.counts else ""
        seconds = f"{sum(record.durations_s.values()):,.1f}"
        asked_by = [] if is_narrow() else [record.asked_by]
        table.add_row(_finished(record), *asked_by, _outcome(record), record.version, events, seconds)
    return table


def reasons(rounds: Iterable[RoundRecord]) -> Iterator[str]:
    """Yield a line for each reason why a round ended as it did."""
    for record in rounds:
        found = [record.error] if record.error else [] if record.gate is None else record.gate.reasons
        yield from (f"{_finished(record)} {_outcome(record)}: {reason}" for reason in found)


def _finished(record: RoundRecord) -> str:
    return record.finished_at[:19].replace("T", " ")


def _outcome(record: RoundRecord) -> str:
    if record.kind == "rollback":
        return "rolled back"
    return record.state if record.gate is None else record.gate.decision.value


def weights_table(manifest: Manifest) -> Table:
    """Return the weights that a model has learned."""
    weights = manifest.weights
    table = new_table("Learned weights, in units of x·y")
    table.add_column("feature")
    for name in ("every item (b)", "owned item (g)"):
        table.add_column(name, justify="right")
    if weights is not None:
        for name, weight in weights.demand.items():
            table.add_row(name, f"{weight:+.4f}", f"{weights.repeat_demand.get(name, 0.0):+.4f}")
        for name, weight in weights.habit.items():
            table.add_row(name, "", f"{weight:+.4f}")
    return table


def _print_verdict(gate: GateRecord) -> None:
    """Say how a model compared when it was made; what was live then may not be now."""
    live = f"model {gate.live}" if gate.live else "the live model"
    for line in gate_verdict(gate, subject="this model", live=live):
        results.print(line)


def _live(settings: Settings) -> str:
    """Return the live version; empty if there is none, or Redis does not say."""
    try:
        with open_store(settings) as store:
            pointer = store.pointer.read()
    except (RedisError, InvalidModel) as error:
        errors.print(f"cannot tell which model is live: {error}", style="red")
        return ""
    return "" if pointer is None else pointer.version


def _no_live() -> str:
    raise NoModel("no model is live; recsys models lists the models that are kept")


def _parameters(manifest: Manifest, *, named: bool = False) -> str:
    half_life = f"{manifest.half_life_days:g} d" if manifest.half_life_days else "none"
    if not named:
        return f"{manifest.factors}, {manifest.alpha:g}, {manifest.regularization:g}, {half_life}"
    return (
        f"{manifest.factors} factors, alpha {manifest.alpha:g}, regularization {manifest.regularization:g}, "
        f"half-life {half_life}, repeat weight {manifest.repeat_weight:g}, {manifest.iterations} iterations, "
        f"seed {manifest.seed}"
    )


def _with_interval(mean: Interval, *, signed: bool = False) -> str:
    if not mean.users:
        return "–"
    sign = "+" if signed else ""
    return f"{mean.mean:{sign}.4f} ({mean.low:{sign}.4f} to {mean.high:{sign}.4f})"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _first(records: Iterable[RoundRecord], count: int) -> list[RoundRecord]:
    return [record for _, record in zip(range(count), records, strict=False)]


def _print_json(value: object) -> None:
    print_json(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())
