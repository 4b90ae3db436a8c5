"""`recsys retrain`, `recsys verify`, `recsys rebuild` and `recsys config`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.padding import Padding
from rich.table import Table

from recsys.cli.lock import held_lock
from recsys.cli.models import gate_table
from recsys.cli.output import BEHIND, REJECTED, counted, errors, is_narrow, new_table, results, settings_for_command
from recsys.errors import DataDirError, NoTrainer
from recsys.evaluation.gate_record import GateRecord
from recsys.evaluation.verdict import GATE_WORDS, gate_verdict, glossary
from recsys.operations.rebuild import rebuild
from recsys.operations.verify import verify
from recsys.redis import Store, open_store
from recsys.runtime.clock import now
from recsys.runtime.progress import ProgressReporter
from recsys.settings import variable_name
from recsys.settings.report import describe_settings
from recsys.storage.data_dir import open_data_dir
from recsys.storage.verified import VerifyRecord
from recsys.training.parameters import Tuned

_LOOK_EVERY_S = 0.5
_MOST_DIFFERENCES = 50


def retrain_command(
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Show progress and result; exit code 1 if it failed, 3 if the model was rejected."),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Publish the model even if the gate rejects it; this is recorded.")
    ] = False,
) -> None:
    """Ask the running trainer for a new model.

    Requests that arrive before the next round starts share that round.
    """
    settings = settings_for_command()
    with open_store(settings) as store:
        if not store.trainer.is_alive():
            raise NoTrainer(
                "no trainer is running; start one with python -m trainer, "
                "or make one model now with python -m trainer --once"
            )
        request = store.trainer.request(force=force)
        if not wait:
            results.print("requested; recsys retrain --wait shows progress and result")
            return
        status = _await(store, request)
    state = status.get("state")
    if state not in ("succeeded", "rejected"):
        errors.print(f"error: the retrain failed: {status.get('error', 'unknown')}", style="red", markup=False)
        raise typer.Exit(1)
    gate = GateRecord.model_validate(status["gate"])
    for line in gate_verdict(gate):
        results.print(line)
    if gate.scores:
        results.print(gate_table(gate))
        for line in glossary(GATE_WORDS):
            results.print(line, style="dim")
    if state == "rejected":
        version = f" {status['version']}" if status["version"] else ""
        errors.print(f"rejected: the new model{version} is not published, {gate.live} stays live", style="red")
        for reason in gate.reasons:
            errors.print(f"  {reason}")
        errors.print("to publish a model in spite of the gate: recsys retrain --force")
        raise typer.Exit(REJECTED)
    results.print(
        f"model {status['version']} is live: {counted(status['events'], 'event')}, {counted(status['users'], 'user')}, "
        f"{counted(status['items'], 'item')}; {counted(status['lists'], 'list')} refreshed"
    )
    for reason in gate.reasons:
        results.print(f"{gate.decision.value}: {reason}")
    table = new_table("Time per stage")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    for stage, seconds in status["durations_s"].items():
        table.add_row(stage, f"{seconds:.2f}")
    results.print(table)


def _await(store: Store, request: int) -> dict[str, Any]:
    shown = ""
    with errors.status("waiting for the trainer") as spinner:
        while True:
            served = store.trainer.requests().finished
            status = store.trainer.status()
            if served >= request:
                return store.trainer.outcome()
            if not store.trainer.is_alive():
                raise NoTrainer("the trainer stopped during the round; its next round starts from the beginning")
            if status.get("state") == "running":
                text = str(status["stage"])
                if not errors.is_terminal and text != shown:
                    errors.print(text, markup=False)
                shown = text
                if status.get("total"):
                    text += f" {status['done']:,} of {status['total']:,}"
                spinner.update(text)
            time.sleep(_LOOK_EVERY_S)


def verify_command(
    sample: Annotated[int, typer.Option("--sample", min=1, metavar="N", help="Check N random users.")] = 1000,
    all_users: Annotated[bool, typer.Option("--all", help="Check every user.")] = False,
    archive_only: Annotated[
        bool, typer.Option("--archive-only", help="Do not read the records of Kafka that are not archived yet.")
    ] = False,
) -> None:
    """Compute histories and lists independently and compare Redis with them.

    Compared is what Redis says is applied. Exit codes: 0 everything is equal, 1 there are differences, 2 there are none
    in what is applied, but the consumers are behind: records that were in Kafka at the beginning are not applied.
    """
    settings = settings_for_command()
    data_dir = open_data_dir(settings)
    with open_store(settings) as store:
        outcome = verify(
            settings,
            store,
            data_dir,
            ProgressReporter(console=errors),
            sample=None if all_users else sample,
            with_stream=not archive_only,
        )
    try:
        data_dir.verified.write(VerifyRecord(at=now(), users=outcome.users, differences=len(outcome.differences)))
    except DataDirError as error:  # whoever may only read checks as well
        errors.print(f"recsys status will not tell of this: {error}", markup=False)
    if outcome.lag:
        results.print(
            f"behind: the consumers have {counted(outcome.lag, 'record')} still to apply; compared is what is applied"
        )
    if outcome.differences:
        table = new_table("Differences")
        for column in ("user", "what", "expected", "found in Redis"):
            table.add_column(column, overflow="fold")
        for difference in outcome.differences[:_MOST_DIFFERENCES]:
            table.add_row(difference.user_id, difference.what, difference.expected, difference.found)
        results.print(table)
        if len(outcome.differences) > _MOST_DIFFERENCES:
            results.print(f"… and {len(outcome.differences) - _MOST_DIFFERENCES:,} more")
    results.print(
        f"{counted(outcome.users, 'history', 'histories')} and {counted(outcome.lists, 'list')} checked against model "
        f"{outcome.model}: {counted(len(outcome.differences), 'difference')}"
    )
    for compacted in outcome.compacted:
        results.print(f"the archive may lack purchases that Redis counts, do not wipe: {compacted}", markup=False)
    if outcome.differences:
        raise typer.Exit(1)
    if outcome.lag:
        raise typer.Exit(BEHIND)


def rebuild_command(
    wipe: Annotated[
        bool,
        typer.Option(
            "--wipe", help="First remove all data of users from Redis; until it is done apps find no list of a user."
        ),
    ] = False,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Continue although not everything can be restored.")
    ] = False,
) -> None:
    """Restore histories and lists in Redis from archive and model, for example after a FLUSHALL.

    Consumers can keep running: if Redis has lost their applied offsets they wait, and then read on from where the
    archive ends. After an interruption run it again. Exit code 1 if histories were left as they are, because the
    archive lacks purchases.
    """
    settings = settings_for_command()
    data_dir = open_data_dir(settings)
    with open_store(settings) as store:
        store.connection.check()
        try:
            with held_lock(settings, store, "recsys rebuild") as lock:
                outcome = rebuild(
                    settings,
                    store,
                    data_dir,
                    lock,
                    ProgressReporter(console=errors),
                    wipe=wipe,
                    accept_loss=accept_loss,
                    clock=now,
                )
        except KeyboardInterrupt:
            errors.print("interrupted; run recsys rebuild again to continue")
            raise typer.Exit(130) from None
    histories = outcome.histories
    applied = f"{counted(histories.applied, 'archived event')} applied"
    if histories.compared is None:
        results.print(f"{applied}, {histories.known:,} were known before")
    else:
        results.print(f"{counted(histories.compared, 'history', 'histories')} compared with the archive; {applied}")
    if histories.made_again:
        results.print(f"{counted(histories.made_again, 'user')} of whom Redis had lost a part made again")
    if histories.left:
        errors.print(
            f"{counted(histories.left, 'history', 'histories')} still differ from the archive, which lacks purchases: "
            f"left as they are; recsys rebuild --accept-loss makes them again from what there is",
            style="red",
        )
    if outcome.to_read is not None:
        results.print(
            f"the consumers read on from where the archive ends: {counted(outcome.to_read, 'record')} in Kafka"
        )
    if outcome.model:
        results.print(
            f"{counted(outcome.lists, 'list')} and {counted(outcome.similar, 'similar-items list')} written with model "
            f"{outcome.model}"
        )
    else:
        results.print(
            "there is no model yet, so there are no lists; make one with recsys retrain, or python -m trainer --once"
        )
    if histories.left:
        raise typer.Exit(1)


def config_command() -> None:
    """Print all settings, where each value comes from, and what it means; secrets are masked."""
    settings = settings_for_command()
    rows = list(describe_settings(settings))
    with _errors_told("cannot tell what was tuned"):
        rows = list(_with_tuned(rows, open_data_dir(settings).tuned.read()))
    if is_narrow():
        for variable, value, source, meaning in rows:
            results.print(f"{variable} = {value or 'empty'}  ({source})")
            results.print(Padding(meaning, (0, 0, 0, 4)))
        return
    results.print(settings_table(rows))


def settings_table(rows: Iterable[tuple[str, str, str, str]]) -> Table:
    """Return settings: (variable, value, source, meaning)."""
    table = new_table("Settings")
    table.add_column("variable", no_wrap=True)
    table.add_column("value", overflow="fold", min_width=12)
    table.add_column("source")
    table.add_column("meaning", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _with_tuned(rows: Iterable[tuple[str, str, str, str]], tuned: Tuned | None) -> Iterator[tuple[str, str, str, str]]:
    """Yield settings; those that tuning found count where nobody has set them."""
    found = {} if tuned is None else {variable_name(("model", name)): value for name, value in tuned.parameters.items()}
    for variable, value, source, meaning in rows:
        if source == "default" and variable in found:
            yield variable, f"{found[variable]:g}", "tuned", meaning
        else:
            yield variable, value, source, meaning


@contextmanager
def _errors_told(what: str) -> Iterator[None]:
    try:
        yield
    except DataDirError as error:
        errors.print(f"{what}: {error}", style="red")
