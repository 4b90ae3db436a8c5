"""`recsys tune`."""

from __future__ import annotations

from typing import Annotated

import typer

from recsys.cli.output import errors, new_table, results, settings_for_command
from recsys.operations.open_engine import holdout_begins, open_engine
from recsys.runtime import threads
from recsys.runtime.clock import now
from recsys.runtime.progress import ProgressReporter
from recsys.storage.data_dir import open_data_dir
from recsys.storage.tuned import study_folder
from recsys.training.engine import Search
from recsys.training.tuning import SEARCHED


def tune_command(
    trials: Annotated[
        int,
        typer.Option("--trials", min=1, metavar="N", help="Number of trials, those of an interrupted search included."),
    ] = 40,
    jobs: Annotated[
        int, typer.Option("--jobs", min=0, metavar="N", help="Trials at the same time; 0 means one per core.")
    ] = 0,
    reset: Annotated[
        bool, typer.Option("--reset", help="Search nothing: have the next retrains use the defaults again.")
    ] = False,
) -> None:
    """Search for better hyper-parameters on archived purchases; the next retrains use them.

    The search does not use the newest RECSYS_TRAINER__HOLDOUT_DAYS, which the gate compares models on. It does not
    change parameters that are set (RECSYS_MODEL__…). After an interruption run it again to continue. recsys config
    shows what is in use.
    """
    settings = settings_for_command()
    data_dir = open_data_dir(settings)
    data_dir.storage.check_writable()
    if reset:
        was_there = data_dir.tuned.remove()
        results.print(
            "the next retrain uses the defaults again" if was_there else "nothing was tuned: nothing to reset"
        )
        return
    progress = ProgressReporter(console=errors)
    with progress.stage("read the archive"):
        engine = open_engine(data_dir.archive)
    current = data_dir.tuned.parameters(settings)
    search = Search(
        until_s=holdout_begins(engine, now(), holdout_days=settings.trainer.holdout_days),
        fixed=frozenset(settings.model.model_fields_set),
        trials=trials,
        jobs=jobs or threads.available(),
    )
    try:
        found = engine.tune(search, current, study_folder(data_dir.storage), progress)
    except KeyboardInterrupt:
        errors.print("interrupted; run the same command again to continue after the trials that are done")
        raise typer.Exit(130) from None
    data_dir.tuned.write(found)
    table = new_table(f"Best of {found.trials} trials, on purchases before {found.validated_until[:10]}")
    for name in ("", "before", "tuned"):
        table.add_column(name, justify="right" if name else "left")
    for name in SEARCHED:
        tuned = found.parameters.get(name)
        before = found.parameters_before.get(name, getattr(current, name))
        table.add_row(name, f"{before:.4g}", "set by you" if tuned is None else f"{tuned:.4g}")
    table.add_section()
    table.add_row("NDCG@20, new to the user", f"{found.ndcg_new_before:.4f}", f"{found.ndcg_new:.4f}")
    table.add_row("NDCG@20, all items", f"{found.ndcg_all_before:.4f}", f"{found.ndcg_all:.4f}")
    table.add_row("geometric mean", f"{found.before:.4f}", f"{found.objective:.4f}")
    results.print(table)
    results.print(f"saved in {data_dir.url}; the next retrain uses them; recsys tune --reset takes them back")
