"""The manifest of a model: what it is, where it comes from, and what each of its files must be."""

from __future__ import annotations

import math
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from recsys.data.epoch import LAST_MS
from recsys.evaluation.gate_record import Decision, GateRecord
from recsys.model.boosts import DEMAND, HABIT, Boosts, BoostWeights

_MANIFEST = "manifest.json"
_MOST_MANIFEST_BYTES = 8 * 2**20
_MOST_POSITIONS = 100_000
"""Of an archive: it names every import with its positions, and a thousand imports are a tenth of a megabyte."""
_MOST_OTHER_VALUES = 2_000
_CHARACTERS_OF_A_VALUE = 1_000
MOST_ITEMS = 2**31 - 1
MOST_FACTORS = 4096
_MOST_HEADER_BYTES = 64 * 1024
_BYTES_PER_ITEM = 4 * 256 + 64
"""In items.parquet: an id has at most 256 characters."""
_SLACK_BYTES = 2**20
_MOST_FILE_BYTES = 2**36
_NUMBER_BYTES = 4
"""Of every number in an array of a model."""
_OTHER_FILES = frozenset(("items.parquet", "popular.json"))
_Size = Annotated[int, Field(ge=0, lt=2**53)]
_Count = Annotated[int, Field(ge=0, lt=2**63)]


_BIAS_FILES = {"item_bias.npy": None, "repeat_bias.npy": None}.keys()


def _dtypes_and_shapes(n_items: int, factors: int, *, biased: bool) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {
        "item_factors.npy": ("float32", (n_items, factors)),
        "item_gram.npy": ("float32", (factors, factors)),
        "index_rows.npy": ("int32", (n_items,)),
        "index_factors.npy": ("float32", (n_items, factors + biased)),
        **dict.fromkeys(_BIAS_FILES, ("float32", (n_items,))),
    }


class FileRecord(BaseModel):
    """What a file of the artifact must be."""

    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: _Size
    shape: Annotated[list[_Size], Field(max_length=2)] | None = None
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
    reference_s: Annotated[int, Field(ge=0, le=LAST_MS // 1000 + 1)] = 0
    """The moment that ages are measured against, in epoch seconds."""
    factors: Annotated[int, Field(ge=1, le=MOST_FACTORS)]
    iterations: int
    seed: int
    repeat_weight: float = 0.0
    """Part of the weights."""
    weights: Weights | None = None
    """Of what a score has beside x_u·y_i and b_i; None = nothing."""
    counts: dict[str, _Count]
    """users, items, events, pairs."""
    archive: dict[str, dict[_Count, _Count]]
    """Next offset by source and partition: what the model has seen."""
    metrics: dict[str, float] = {}
    """Of the gate: NDCG, recall and hit rate, as ``ndcg@20_new``."""
    gate: GateRecord | None = None
    """How it was judged; None where that is not known."""
    twin_sha256: str = ""
    """Of the manifest of the same model, fitted on what precedes the hold-out; empty = there is none."""
    files: dict[str, FileRecord]

    def arrays(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return the dtype and shape that each array must have, by the name of its file.

        They follow from the number of items, of factors and whether items have biases. Before any file is opened, what
        the manifest says of it is compared with that, so that nothing is read that no model can have.

        Raises
        ------
        ValueError
            When names, sizes, shapes or dtypes cannot be, or do not agree.
        """
        for name in self.files.keys() - _OTHER_FILES - _dtypes_and_shapes(0, 0, biased=False).keys():
            raise ValueError(f"{_MANIFEST} lists {name[:80]!r}, which is no file of a model")
        factors = self.files["item_factors.npy"]
        n_items = factors.shape[0] if factors.shape else factors.size_bytes // (_NUMBER_BYTES * self.factors)
        if not 1 <= n_items <= MOST_ITEMS:
            raise ValueError(f"item_factors.npy: a model has no {n_items:,} items")
        biased = self.weights is not None or not _BIAS_FILES.isdisjoint(self.files)
        arrays = _dtypes_and_shapes(n_items, self.factors, biased=biased)
        for name, record in self.files.items():
            most_bytes = n_items * _BYTES_PER_ITEM + _SLACK_BYTES
            if name in arrays:
                dtype, shape = arrays[name]
                if (record.dtype or dtype, tuple(record.shape or shape)) != (dtype, shape):
                    raise ValueError(
                        f"{name} has dtype {record.dtype} and shape {record.shape}, not {dtype} and {list(shape)}"
                    )
                most_bytes = _NUMBER_BYTES * math.prod(shape) + _MOST_HEADER_BYTES
            if record.size_bytes > min(most_bytes, _MOST_FILE_BYTES):
                raise ValueError(f"{name} has {record.size_bytes:,} bytes, too many for {n_items:,} items")
        return {name: arrays[name] for name in self.files if name in arrays}

    @property
    def is_rejected(self) -> bool:
        """Whether the gate has refused it."""
        return self.gate is not None and self.gate.decision is Decision.REJECTED


def _parsed(content: bytes) -> Manifest:
    """Read a manifest that may have been planted.

    How much it holds is looked at step by step, each step before one that costs more: decoding, validating.

    Raises
    ------
    ValueError
        When it holds more than any model needs, or is no manifest.
    """
    if len(content) > _MOST_MANIFEST_BYTES:
        raise ValueError(f"{_MANIFEST} has more than {_MOST_MANIFEST_BYTES:,} bytes")
    if content.count(b",") > _MOST_POSITIONS + _MOST_OTHER_VALUES:
        raise ValueError(f"{_MANIFEST} has more values than any model needs")
    try:
        given = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{_MANIFEST} is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise ValueError(f"{_MANIFEST} is no JSON object")
    positions = _n_values(given.get("archive"))
    if positions > _MOST_POSITIONS:
        raise ValueError(f"{_MANIFEST}: archive has more than {_MOST_POSITIONS:,} positions")
    if _n_values(given) - positions > _MOST_OTHER_VALUES:
        raise ValueError(f"{_MANIFEST} has more than {_MOST_OTHER_VALUES:,} values beside its archive")
    try:
        return Manifest.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise ValueError(f"{_MANIFEST}: {'.'.join(str(part) for part in first['loc'])[:200]}: {first['msg']}") from None


def _n_values(value: Any) -> int:
    """Count what a decoded JSON value holds, at any depth: members, elements, and every 1,000 characters of text."""
    found, waiting = 0, [value]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, dict):
            found += len(inner)
            waiting += inner.values()
        elif isinstance(inner, list):
            found += len(inner)
            waiting += inner
        elif isinstance(inner, str):
            found += len(inner) // _CHARACTERS_OF_A_VALUE
    return found
