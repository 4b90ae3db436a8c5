"""Search for hyper-parameters with Optuna's TPE, on the purchases before the hold-out of the gate."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import optuna
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from recsys.data.event_log import EventLog
from recsys.errors import DataDirError, InvalidModel, NotEnoughData
from recsys.evaluation.baselines import model_lists
from recsys.evaluation.metrics import user_metrics
from recsys.evaluation.split import EVERYBODY, RelevantItems, Split, split_by_time
from recsys.runtime import threads
from recsys.runtime.full_disk import problem_of
from recsys.runtime.progress import ProgressReporter
from recsys.training.fit import fit_model
from recsys.training.parameters import Parameters, Tuned

N: Final = 20
WINDOWS: Final = 2
WINDOW_DAYS: Final = 14
"""A trial is measured on two windows of two weeks, the newer one first; it may be pruned after that one."""
SEARCHED: Final = ("factors", "regularization", "alpha", "iterations", "half_life_days", "repeat_weight")
_REPEAT_WEIGHTS: Final = (0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5)
"""Every trial compares these: they need no other fit, and change only lists with already purchased items."""
_LEAST_USERS = 50
_STARTUP_TRIALS = 10
_DAY_S = 24 * 3600
_NEW, _ALL, _REPEAT_WEIGHT, _CURRENT = "ndcg_new", "ndcg_all", "repeat_weight", "current"
_TRIED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.WAITING)


@dataclass(frozen=True, slots=True)
class Problem:
    """What to search, and the purchases to search on.

    Attributes
    ----------
    events : EventLog
        The events before the hold-out.
    until_s : int
        Start of the hold-out, in epoch seconds.
    current : Parameters
        The parameters in use, which are tried first.
    fixed : frozenset of str
        Names of parameters that an operator has set: they stay as they are.
    """

    events: EventLog
    until_s: int
    current: Parameters
    fixed: frozenset[str]

    @classmethod
    def before_holdout(cls, events: EventLog, until_s: int, current: Parameters, *, fixed: frozenset[str]) -> Problem:
        """Leave out the hold-out of the gate.

        Raises
        ------
        NotEnoughData
            When too few users bought something in one of the windows.
        """
        if not len(events):
            raise NotEnoughData("there are no purchases to tune on yet; publish some, or use recsys import")
        known = events.where(events.seconds < until_s)
        problem = cls(known, until_s, current, fixed)
        for cut_s in problem.cuts_s:
            split = problem.split(cut_s)
            users = int((split.segment(EVERYBODY) & (split.new.sizes > 0)).sum())
            if users < _LEAST_USERS:
                since, until = (_day(second) for second in (cut_s, cut_s + WINDOW_DAYS * _DAY_S))
                raise NotEnoughData(
                    f"too few purchases to tune on: from {since} to {until} only {users:,} users bought something "
                    f"new to them that was known before; {_LEAST_USERS} are needed"
                )
        return problem

    @property
    def cuts_s(self) -> list[int]:
        """Starts of the windows, the newest first."""
        return [self.until_s - (window + 1) * WINDOW_DAYS * _DAY_S for window in range(WINDOWS)]

    def split(self, cut_s: int) -> Split:
        """Return the split of one window."""
        return split_by_time(self.events, cut_s=cut_s, end_s=cut_s + WINDOW_DAYS * _DAY_S)

    def name(self) -> str:
        """Return the name of the problem: a later search adds trials to a study of the same name."""
        kept = {
            name: value for name, value in asdict(self.current).items() if name in self.fixed or name not in SEARCHED
        }
        data = f"{self.until_s} {len(self.events)} {int(self.events.seconds.sum())}"
        text = f"{data} {sorted(self.fixed)} {kept} {_REPEAT_WEIGHTS}"
        return f"{_day(self.until_s)}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def tune(problem: Problem, folder: Path, progress: ProgressReporter, *, trials: int, jobs: int) -> Tuned:
    """Search until the study of this problem has this many trials; return the best parameters.

    Trials run in parallel processes and are written to a journal in ``folder`` as they end, so an interrupted search
    continues.

    Parameters
    ----------
    trials : int
        Number of trials, those of earlier calls included; at least 1.
    jobs : int
        Number of processes; 1 = this process.

    Raises
    ------
    DataDirError
        When the journal cannot be written.
    NotEnoughData
        When no trial was completed.
    """
    try:
        return _tune(problem, folder, progress, trials=trials, jobs=jobs)
    except OSError as error:
        raise DataDirError(f"{folder}: the trials cannot be written: {problem_of(error, folder)}") from error
    except TerminatedWorkerError as error:
        raise NotEnoughData(
            f"a process of the tuning was killed, perhaps because memory ran out; try --jobs 1: {error}"
        ) from error


def _tune(problem: Problem, folder: Path, progress: ProgressReporter, *, trials: int, jobs: int) -> Tuned:
    folder.mkdir(parents=True, exist_ok=True)
    journal = folder / f"{problem.name()}.journal"
    study = _study(journal, problem)
    done = len(_finished(study))
    if not any(_CURRENT in trial.user_attrs and trial.state in _TRIED for trial in study.get_trials(deepcopy=False)):
        study.enqueue_trial(_as_suggested(problem), user_attrs={_CURRENT: True})
    with progress.stage("tune", trials) as advance:
        advance(min(done, trials))
        # The first trial runs alone: it is the parameters in use, the reference for the others.
        for batch, processes in ((range(done, min(trials, 1)), 1), (range(max(done, 1), trials), jobs)):
            runs = Parallel(n_jobs=processes, return_as="generator_unordered", mmap_mode="r")(
                delayed(_run)(journal, problem, seed, processes) for seed in batch
            )
            for _ in runs:
                advance(1)
    finished = _finished(study)
    complete = [trial for trial in finished if trial.state is TrialState.COMPLETE]
    if not complete:
        raise NotEnoughData("no trial was completed: see the messages above")
    best = max(complete, key=_value)
    current = next((trial for trial in complete if _CURRENT in trial.user_attrs), None)
    return Tuned(
        parameters=_searched(_parameters(best, problem), problem),
        objective=_value(best),
        ndcg_new=best.user_attrs[_NEW],
        ndcg_all=best.user_attrs[_ALL],
        before=0.0 if current is None else _value(current),
        ndcg_new_before=0.0 if current is None else current.user_attrs[_NEW],
        ndcg_all_before=0.0 if current is None else current.user_attrs[_ALL],
        parameters_before={} if current is None else _searched(_parameters(current, problem), problem),
        validated_until=datetime.fromtimestamp(problem.until_s, UTC).isoformat(),
        events=len(problem.events),
        trials=len(finished),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _searched(parameters: Parameters, problem: Problem) -> dict[str, float]:
    return {name: getattr(parameters, name) for name in SEARCHED if name not in problem.fixed}


def _run(journal: Path, problem: Problem, seed: int, processes: int) -> None:
    """Run one trial, in this process or in a worker process."""
    study = _study(journal, problem, seed=seed)
    trial = study.ask()
    parameters = _suggested(trial, problem)
    weights: Sequence[float] = _REPEAT_WEIGHTS
    if _REPEAT_WEIGHT in problem.fixed or _CURRENT in trial.user_attrs:
        weights = (problem.current.repeat_weight,)
    found = _Found()
    try:
        with threads.limit(max(1, threads.available() // processes)):
            for step, cut_s in enumerate(problem.cuts_s):
                found.add(*_judged(problem, parameters, cut_s, weights))
                trial.report(found.objective, step)
                if step < WINDOWS - 1 and trial.should_prune():
                    study.tell(trial, state=TrialState.PRUNED)
                    return
    except InvalidModel:  # such as a regularization too small for these factors
        study.tell(trial, state=TrialState.PRUNED)
        return
    for name, value in ((_NEW, found.new), (_ALL, found.all), (_REPEAT_WEIGHT, found.repeat_weight)):
        trial.set_user_attr(name, value)
    study.tell(trial, found.objective)


class _Found:
    """NDCG@20 of both kinds of lists over the windows so far; for lists with purchased items, by repeat weight."""

    def __init__(self) -> None:
        self._new: list[float] = []
        self._all: dict[float, list[float]] = defaultdict(list)

    def add(self, new: float, everything: Mapping[float, float]) -> None:
        """Add a window."""
        self._new.append(new)
        for weight, ndcg in everything.items():
            self._all[weight].append(ndcg)

    @property
    def new(self) -> float:
        return float(np.mean(self._new))

    @property
    def repeat_weight(self) -> float:
        """The best one."""
        return max(self._all, key=lambda weight: np.mean(self._all[weight]))

    @property
    def all(self) -> float:
        return float(np.mean(self._all[self.repeat_weight]))

    @property
    def objective(self) -> float:
        """The geometric mean of both: improving one kind of list at the cost of the other does not pay."""
        return float(np.sqrt(self.new * self.all))


def _judged(
    problem: Problem, parameters: Parameters, cut_s: int, repeat_weights: Sequence[float]
) -> tuple[float, dict[float, float]]:
    """Fit on the events before a window and return NDCG@20 on it: of new items, and of all items by repeat weight."""
    split = problem.split(cut_s)
    before = problem.events.where(problem.events.seconds < cut_s)
    fitted = fit_model(before, parameters, reference_s=cut_s)
    known = np.flatnonzero(split.segment(EVERYBODY))

    def ndcg(wanted: RelevantItems, *, repeat_weight: float, include_purchased: bool) -> float:
        model = replace(fitted.model, boosts=fitted.weights.boosts(fitted.demand, repeat_weight=repeat_weight))
        lists = model_lists(model, split, n=N, include_purchased=include_purchased, users=known)
        return float(user_metrics(lists, wanted.of(known), n=N).ndcg.mean())

    new = ndcg(split.new, repeat_weight=0.0, include_purchased=False)
    return new, {
        weight: ndcg(split.everything, repeat_weight=weight, include_purchased=True) for weight in repeat_weights
    }


def _suggested(trial: Trial, problem: Problem) -> Parameters:
    changes: dict[str, Any] = {}
    for name in SEARCHED:
        if name in problem.fixed or name == _REPEAT_WEIGHT:
            continue
        if name == "half_life_days":
            ages = trial.suggest_categorical("ages", [True, False])
            changes[name] = trial.suggest_float(name, 7, 730, log=True) if ages else 0.0
        elif name == "factors":
            changes[name] = trial.suggest_int(name, 16, 128, step=16)
        elif name == "iterations":
            changes[name] = trial.suggest_int(name, 5, 25)
        else:
            low, high = {"regularization": (0.3, 300), "alpha": (0.1, 50)}[name]
            changes[name] = trial.suggest_float(name, low, high, log=True)
    return replace(problem.current, **changes)


def _as_suggested(problem: Problem) -> dict[str, Any]:
    """Return the parameters in use, in the form that `_suggested` reads."""
    current = {name: value for name, value in asdict(problem.current).items() if name in SEARCHED}
    suggested = {name: value for name, value in current.items() if name not in {*problem.fixed, _REPEAT_WEIGHT}}
    if "half_life_days" in suggested:
        suggested["ages"] = bool(suggested["half_life_days"])
        if not suggested["ages"]:
            del suggested["half_life_days"]
    return suggested


def _parameters(trial: FrozenTrial, problem: Problem) -> Parameters:
    changes = {name: value for name, value in trial.params.items() if name != "ages"}
    changes[_REPEAT_WEIGHT] = trial.user_attrs[_REPEAT_WEIGHT]
    if not trial.params.get("ages", True):
        changes["half_life_days"] = 0.0
    return replace(problem.current, **changes)


def _study(journal: Path, problem: Problem, *, seed: int = 0) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("optuna").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is experimental in it
        return optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal))),
            study_name=problem.name(),
            load_if_exists=True,
            direction="maximize",
            sampler=optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=_STARTUP_TRIALS, multivariate=True, group=True, constant_liar=True
            ),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=5),
        )


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def _value(trial: FrozenTrial) -> float:
    return float(trial.value or 0.0)


def _day(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d")
