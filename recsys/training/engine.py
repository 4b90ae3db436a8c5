"""Engines make models of archived purchases. No event list and no matrix leaves an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from recsys.data.event_log import EventLog
from recsys.data.interactions import Interactions
from recsys.evaluation.split import Split, split_by_time
from recsys.model.boosts import BoostWeights
from recsys.runtime.progress import ProgressReporter
from recsys.training.fit import Fitted, fit_model
from recsys.training.parameters import Parameters, Tuned


class Engine(Protocol):
    """Makes models of the purchases that it was opened on."""

    @property
    def n_events(self) -> int:
        """Number of events about items in the archive; an event that was sent twice counts once."""
        ...

    def newest_s(self, now_s: int) -> int:
        """Return the time of the newest event that is not in the future, in epoch seconds; 0 if there is none."""
        ...

    def split(self, cut_s: int, *, end_s: int) -> Split:
        """Return the purchases before a moment and from it on, of users who have both: models are measured on these.

        What was bought from ``end_s`` on is left out: it is in the future.
        """
        ...

    def sample(self, n_users: int, *, seed: int) -> Interactions:
        """Return what some users own, drawn at random: models are looked at with these."""
        ...

    def fit(
        self,
        parameters: Parameters,
        *,
        reference_s: int,
        before_s: int | None = None,
        weights: BoostWeights | None = None,
        on_iteration: Callable[[], None] = lambda: None,
    ) -> Fitted:
        """Fit a model: vocabulary, item factors, demand and boosts, popularity.

        Parameters
        ----------
        parameters : Parameters
        reference_s : int
            The moment that ages are measured against, in epoch seconds.
        before_s : int or None
            Only events before this moment are used; None = all.
        weights : BoostWeights or None
            Boost weights that are known already; None = they are learned.
        on_iteration : callable
            Called after each of `recsys.training.parameters.iterations_of` iterations, or fewer if nothing is learned.

        Raises
        ------
        NotEnoughData
            When nobody owns anything.
        """
        ...

    def tune(self, search: Search, current: Parameters, folder: Path, progress: ProgressReporter) -> Tuned:
        """Search for better parameters; an interrupted search continues.

        Raises
        ------
        NotEnoughData
            When there are too few purchases to measure trials on.
        DataDirError
            When the trials cannot be written to ``folder``.
        """
        ...


@dataclass(frozen=True, slots=True)
class Search:
    """How to search for parameters.

    Attributes
    ----------
    until_s : int
        Start of the hold-out that the gate uses, in epoch seconds; later purchases are not used.
    fixed : frozenset of str
        Names of parameters that an operator has set: they stay as they are.
    trials : int
        Number of trials, those of an interrupted search included; at least 1.
    jobs : int
        Trials at the same time.
    """

    until_s: int
    fixed: frozenset[str]
    trials: int
    jobs: int


class InMemoryEngine:
    """Makes models in this process: the events are in memory, 34 bytes each.

    Parameters
    ----------
    events : EventLog
    """

    def __init__(self, events: EventLog) -> None:
        self._events = events

    @property
    def n_events(self) -> int:
        """Events about items."""
        return len(self._events)

    def newest_s(self, now_s: int) -> int:
        """See `Engine`."""
        return self._events.newest_s(now_s)

    def split(self, cut_s: int, *, end_s: int) -> Split:
        """See `Engine`."""
        return split_by_time(self._events, cut_s=cut_s, end_s=end_s)

    def sample(self, n_users: int, *, seed: int) -> Interactions:
        """See `Engine`."""
        events, rng = self._events, np.random.default_rng(seed)
        chosen = np.zeros(len(events.user_ids), np.bool_)
        chosen[rng.permutation(len(chosen))[:n_users]] = True
        return events.where(chosen[events.user_codes]).interactions()

    def fit(
        self,
        parameters: Parameters,
        *,
        reference_s: int,
        before_s: int | None = None,
        weights: BoostWeights | None = None,
        on_iteration: Callable[[], None] = lambda: None,
    ) -> Fitted:
        """See `Engine`."""
        events = self._events if before_s is None else self._events.where(self._events.seconds < before_s)
        return fit_model(events, parameters, reference_s=reference_s, weights=weights, on_iteration=on_iteration)

    def tune(self, search: Search, current: Parameters, folder: Path, progress: ProgressReporter) -> Tuned:
        """See `Engine`."""
        from recsys.training.tuning import Problem, tune  # which takes long to import, and is rarely needed

        problem = Problem.before_holdout(self._events, search.until_s, current, fixed=search.fixed)
        return tune(problem, folder, progress, trials=search.trials, jobs=search.jobs)
