"""What the gate leaves behind for operators to read."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from pydantic import BaseModel

from recsys.evaluation.compare import ALL, Score
from recsys.evaluation.metrics import Interval

CANDIDATE: Final = "candidate"
LIVE: Final = "live"
"""Names of what the gate compares, beside `recsys.evaluation.baselines.POPULAR`."""


class Decision(StrEnum):
    """What becomes of a candidate."""

    PUBLISHED = "published"
    UNJUDGED = "unjudged"
    """Published, for there was too little to judge it by."""
    FORCED = "forced"
    """Published by an operator against the gate."""
    REJECTED = "rejected"


class GateRecord(BaseModel):
    """How a candidate was judged."""

    decision: Decision
    reasons: list[str] = []
    """Why it was rejected, not judged, or forced against."""
    cut: str = ""
    """It was fitted on what came before and judged by what came from then on; RFC 3339, empty if it was not judged."""
    column: str = ALL
    """Which lists decide: ``new`` or ``all``, see `recsys.evaluation.compare.Score`."""
    live: str = ""
    """Version that it was compared with; empty = none."""
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

    def score(self, recommender: str, column: str) -> Score | None:
        """Return one recommender's row."""
        return next((row for row in self.scores if (row.recommender, row.column) == (recommender, column)), None)
