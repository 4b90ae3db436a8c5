"""How good a model's lists are for what users bought after it was fitted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import chain

import numpy as np
from pydantic import BaseModel, ConfigDict

from recsys.data.event import EventType
from recsys.data.event_log import EventLog
from recsys.errors import InputFileError, InvalidModel, NotEnoughData
from recsys.evaluation.baselines import baselines, model_lists
from recsys.evaluation.compare import Score, compare
from recsys.evaluation.split import split_by_time
from recsys.evaluation.verdict import evaluation_verdict
from recsys.files.batches import RowCounts
from recsys.files.event_file import EventFile
from recsys.model.factor_model import FactorModel
from recsys.storage.manifest import Manifest
from recsys.storage.models import ModelStore

LENGTHS = (10, 20)
MODEL = "the model"
_DAY_S = 24 * 3600
_EARLIER = "was made by an earlier release and does not say which purchases it was fitted on"


class Evaluation(BaseModel):
    """What was found."""

    model_config = ConfigDict(protected_namespaces=())

    model: str
    """Its version."""
    stands_in: bool
    """Whether the same model, fitted on what precedes its own hold-out, was judged in its place."""
    fitted_until: str
    cut: str
    """What was bought from then on is what lists should have held."""
    end: str
    users: int
    items: int
    """That could be listed."""
    scores: list[Score]

    def score(self, recommender: str, segment: str, column: str, n: int) -> Score | None:
        """Return one score."""
        wanted = (recommender, segment, column, n)
        return next((row for row in self.scores if (row.recommender, row.segment, row.column, row.n) == wanted), None)

    def users_of(self, segment: str, column: str, n: int) -> int:
        """Return by how many users one kind of lists was judged in a segment."""
        wanted = (segment, column, n)
        return max((row.ndcg.users for row in self.scores if (row.segment, row.column, row.n) == wanted), default=0)

    def verdict(self, n: int) -> list[str]:
        """Say in sentences how lists of this length compare with those that need no model."""
        return evaluation_verdict(self.scores, judged=MODEL, n=n, cut=self.cut, end=self.end)


def judged_model(models: ModelStore, version: str, cut_s: int) -> FactorModel:
    """Load what can be judged of a version by what came from the cut on.

    Raises
    ------
    InvalidModel
        When there is no such version, or all of it has seen some of that.
    """
    model = models.model_for_holdout(version, cut_s=cut_s)
    if model is None:
        fitted_until_s = models.manifest(version).reference_s
        until = f"was fitted on purchases up to {_time(fitted_until_s)}" if fitted_until_s else _EARLIER
        raise InvalidModel(
            f"model {version} {until}; it cannot be evaluated on purchases since {_time(cut_s)}. Give later "
            f"purchases with --data, or a later time with --since"
        )
    return model


def with_history(later: EventLog, archived: Callable[[], EventLog], cut_s: int) -> EventLog:
    """Return events of a file, with what was archived before the cut if the file holds nothing from before it."""
    if (later.seconds < cut_s).any():
        return later
    earlier = archived()
    return earlier.where(earlier.seconds < cut_s).joined(later)


def evaluate_model(
    version: str,
    model: FactorModel,
    events: EventLog,
    cut_s: int,
    *,
    on_recommender: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Judge a model's lists beside the baselines.

    Parameters
    ----------
    version : str
    model : FactorModel
        What is judged of this version, see `judged_model`.
    events : EventLog
        Before the cut: what users own by then; from it on: what their lists should have held.
    cut_s : int
        Epoch seconds.
    on_recommender : callable
        Called after each of the five.

    Raises
    ------
    NotEnoughData
        When nobody bought something afterwards that could have been known.
    """
    split = split_by_time(events, cut_s=cut_s)
    if not split.n_users:
        raise NotEnoughData(
            f"nobody who had bought something before {_time(cut_s)} bought an item of that time afterwards: "
            "there is nothing to evaluate on; give more purchases with --data, or an earlier time with --since"
        )
    n = max(LENGTHS)
    recommenders = {
        MODEL: lambda include_purchased: model_lists(model, split, n=n, include_purchased=include_purchased)
    }
    scores = compare(
        split,
        {**recommenders, **baselines(split, events, n=n)},
        lengths=LENGTHS,
        judged=MODEL,
        on_recommender=on_recommender,
    )
    return Evaluation(
        model=version,
        stands_in=model.version != version,
        fitted_until=_time(model.reference_s),
        cut=_time(cut_s),
        end=_time(int(events.seconds.max())),
        users=split.n_users,
        items=len(split.items),
        scores=scores,
    )


def cut_of_archive(events: EventLog, now_s: int, *, holdout_days: float) -> int:
    """Return where the hold-out of an archive begins, as for the trainer's gate."""
    if not holdout_days:
        raise NotEnoughData("there is no hold-out (RECSYS_TRAINER__HOLDOUT_DAYS is 0); give a time with --since")
    return events.newest_s(now_s) - round(holdout_days * _DAY_S)


def cut_of_file(events: EventLog, manifest: Manifest, *, holdout_days: float) -> int:
    """Return where a model's knowledge ends, if the file goes on beyond that; else where the hold-out begins."""
    if not len(events):
        raise NotEnoughData("the file holds no purchases")
    if not manifest.reference_s:
        raise InvalidModel(f"model {manifest.version} {_EARLIER}; give a time with --since")
    newest_s = int(events.seconds.max())
    if newest_s > manifest.reference_s:
        return manifest.reference_s + 1
    return newest_s - round(holdout_days * _DAY_S)


def read_events(file: EventFile, on_rows: Callable[[int], None] = lambda _: None) -> tuple[EventLog, RowCounts]:
    """Return a file's events about items, each event_id of a user once, and what became of its rows.

    Raises
    ------
    InputFileError
        When the file cannot be read, or no row is valid.
    """
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    seen: set[tuple[str, str]] = set()
    counts = RowCounts()

    def rows() -> Iterator[tuple[int, int, int, int]]:
        for batch in file.batches():
            counts.note(batch)
            for _, event in batch.events:
                if event.type is EventType.FORGET or event.item_id is None:
                    continue
                if event.event_id is not None:
                    if (event.user_id, event.event_id) in seen:
                        continue
                    seen.add((event.user_id, event.event_id))
                user = users.setdefault(event.user_id, len(users))
                item = items.setdefault(event.item_id, len(items))
                yield user, item, event.units, event.timestamp // 1000
            on_rows(batch.rows)

    found = np.fromiter(chain.from_iterable(rows()), np.int64).reshape(-1, 4)
    if not len(found):
        raise InputFileError(f"{file.label}: no row is a valid purchase; recsys import writes the reasons to a file")
    return EventLog(list(users), found[:, 0], list(items), found[:, 1], found[:, 2], found[:, 3]), counts


def _time(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat().replace("+00:00", "Z")
