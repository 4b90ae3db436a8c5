"""What a round fits with: what an operator has set, else what tuning has found, else the defaults."""

from __future__ import annotations

from datetime import datetime, timedelta

from recsys.errors import RecsysError
from recsys.logger import logger
from recsys.runtime import threads
from recsys.runtime.progress import ProgressReporter
from recsys.settings import Settings
from recsys.storage.data_dir import DataDir
from recsys.storage.tuned import study_folder
from recsys.training.engine import Engine, Search
from recsys.training.parameters import Parameters

log = logger(__name__)


def parameters_for(
    settings: Settings,
    data_dir: DataDir,
    engine: Engine,
    cut_s: int,
    progress: ProgressReporter,
    at: datetime,
    *,
    may_tune: bool,
) -> Parameters:
    """Return the parameters of a round; if tuning is due, they are tuned first.

    Parameters
    ----------
    cut_s : int
        Where the hold-out begins, in epoch seconds: tuning does not look beyond it.
    may_tune : bool
        Whether the round may tune, because it is a scheduled one.
    """
    tuned, every = data_dir.tuned.read(), timedelta(days=settings.trainer.tune_every_days)
    current = data_dir.tuned.parameters(settings)
    if not may_tune or not every or (tuned is not None and at - tuned.moment < every):
        return current
    search = Search(
        until_s=cut_s,
        fixed=frozenset(settings.model.model_fields_set),
        trials=settings.trainer.tune_trials,
        jobs=threads.available(),
    )
    try:
        found = engine.tune(search, current, study_folder(data_dir.storage), progress)
    except RecsysError as error:
        log.warning("not_tuned", "not tuned: {error}", error=error)
        return current
    data_dir.tuned.write(found)
    log.info(
        "tuned",
        "tuned in {trials} trials: {objective:.4f}, before {before:.4f}",
        trials=found.trials,
        objective=found.objective,
        before=found.before,
    )
    return data_dir.tuned.parameters(settings)
