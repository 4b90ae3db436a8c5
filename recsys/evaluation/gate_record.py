"""The record of the gate, for operators."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from pydantic import BaseModel

from recsys.evaluation.compare import ALL, POPULAR, Score
from recsys.evaluation.metrics import Interval

CANDIDATE: Final = "candidate"
LIVE: Final = "live"
"""Names of the recommenders that the gate compares, beside `recsys.evaluation.compare.POPULAR`."""


class Decision(StrEnum):
    """The gate's decision about a candidate."""

    PUBLISHED = "published"
    UNJUDGED = "unjudged"
    """Published without a comparison, because there were too few purchases."""
    FORCED = "forced"
    """Published by an operator in spite of the gate."""
    REJECTED = "rejected"


class GateRecord(BaseModel):
    """How the gate compared a candidate."""

    decision: Decision
    reasons: list[str] = []
    """Why it was rejected or not compared, or what an operator has overruled."""
    cut: str = ""
    """It was fitted on purchases before this time and compared on those from it on; RFC 3339, empty if not compared."""
    column: str = ALL
    """Which lists decide: ``new`` or ``all``, see `recsys.evaluation.compare.Score`."""
    live: str = ""
    """Version of the live model that it was compared with; empty = none."""
    difference: Interval | None = None
    """NDCG of the candidate minus that of the live model, for the same users."""
    scores: list[Score] = []

    def metrics(self) -> dict[str, float]:
        """Return the candidate's means, by names such as ``ndcg@20_new``."""
        found: dict[str, float] = {}
        for row in self.scores:
            for name, mean in (("ndcg", row.ndcg), ("recall", row.recall), ("hit_rate", row.hit_rate)):
                if row.recommender == CANDIDATE and mean.users:
                    found[f"{name}@{row.n}_{row.column}"] = mean.mean
        return found

    def holdout(self) -> tuple[object, ...]:
        """Return what tells one hold-out from another: its beginning, and what the popular list was worth on it.

        The same purchases before and after the cut give the same popular list and, but for rounding, the same value.
        """
        popular = (
            (row.column, row.ndcg.users, round(row.ndcg.mean, 9)) for row in self.scores if row.recommender == POPULAR
        )
        return (self.cut, *popular)

    def score(self, recommender: str, column: str) -> Score | None:
        """Return one recommender's row."""
        return next((row for row in self.scores if (row.recommender, row.column) == (recommender, column)), None)
