"""The manifest of a model: what it is, where it comes from, and what each of its files must be."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.evaluation.gate_record import Decision, GateRecord
from recsys.model.boosts import DEMAND, HABIT, Boosts, BoostWeights

_MANIFEST = "manifest.json"


class FileRecord(BaseModel):
    """What a file of the artifact must be."""

    sha256: str
    size_bytes: int
    shape: list[int] | None = None
    dtype: str | None = None


class Weights(BaseModel):
    """What scores have beside x_u·y_i, see `recsys.model.boosts.Boosts`, by the names of what is weighed."""

    demand: dict[str, float] = {}
    """What item_bias.npy was made with."""
    affinity: float = 0.0
    repeat_demand: dict[str, float] = {}
    """What repeat_bias.npy was made with."""
    habit: dict[str, float] = {}

    @classmethod
    def of(cls, learned: BoostWeights, boosts: Boosts) -> Weights:
        """Build from what was learned and what became of it."""
        return cls(
            demand=dict(zip(DEMAND, learned.demand, strict=True)),
            affinity=boosts.affinity,
            repeat_demand=dict(zip(DEMAND, learned.repeat_demand, strict=True)),
            habit=dict(zip(HABIT, boosts.habit.tolist(), strict=True)),
        )


class Manifest(BaseModel):
    """What a model is and where it comes from."""

    model_config = ConfigDict(protected_namespaces=(), extra="ignore")

    format_version: int
    version: str
    created_at: str
    alpha: float
    regularization: float
    half_life_days: float = 0.0
    reference_s: int = 0
    """The moment that ages are measured against, in epoch seconds."""
    factors: int
    iterations: int
    seed: int
    repeat_weight: float = 0.0
    """Part of the weights."""
    weights: Weights | None = None
    """Of what a score has beside x_u·y_i and b_i; None = nothing."""
    counts: dict[str, int]
    """users, items, events, pairs."""
    archive: dict[str, dict[int, int]]
    """Next offset by source and partition: what the model has seen."""
    metrics: dict[str, float] = {}
    """Of the gate: NDCG, recall and hit rate, as ``ndcg@20_new``."""
    gate: GateRecord | None = None
    """How it was judged; None where that is not known."""
    twin_sha256: str = ""
    """Of the manifest of the same model, fitted on what precedes the hold-out; empty = there is none."""
    files: dict[str, FileRecord]

    @property
    def is_rejected(self) -> bool:
        """Whether the gate has refused it."""
        return self.gate is not None and self.gate.decision is Decision.REJECTED


def _parsed(content: bytes) -> Manifest:
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{_MANIFEST}: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None
