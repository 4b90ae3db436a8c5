"""What operators ask the HTTP API for, and what it answers: models, rounds, hidden items, users to be erased."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.types import JsonValue


class _OperatorSchema(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True, protected_namespaces=())


def _example(**fields: JsonValue) -> dict[str, JsonValue]:
    return {"examples": [fields]}


class ModelSummary(_OperatorSchema, extra="allow"):
    """One model that is kept."""

    version: str
    role: str
    """`live`, `previous`, `rejected`, or empty."""
    created_at: str | None = None
    """None = its manifest is damaged."""
    counts: dict[str, int] = {}
    metrics: dict[str, float] = {}


class RoundSummary(_OperatorSchema, extra="allow"):
    """One round of the trainer, or a rollback."""

    kind: str
    asked_by: str
    started_at: str
    finished_at: str
    state: str
    """`succeeded`, `rejected` or `failed`."""
    version: str
    error: str


class Models(BaseModel):
    """The models that are kept, and the last rounds, the newest first."""

    models: list[ModelSummary]
    rounds: list[RoundSummary]


class RetrainRequest(_OperatorSchema, json_schema_extra=_example(force=False)):
    """How a retrain is wanted."""

    force: Annotated[bool, Field(strict=True)] = False
    """Publish the model whatever the gate says; that is recorded."""


class RetrainState(StrEnum):
    """How far a retrain is."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    """The gate refused the model; the live one stays."""
    FAILED = "failed"
    UNKNOWN = "unknown"
    """It is done, and its record is no longer kept."""


class Retrain(
    _OperatorSchema,
    json_schema_extra=_example(id=7, state="running", stage="fit", done=3, total=15, version="", error="", reasons=[]),
):
    """A retrain that was asked for."""

    id: int
    """Requests that come before the next round starts share it."""
    state: RetrainState
    stage: str = ""
    done: int | None = None
    total: int | None = None
    version: str = ""
    """The model that was published or rejected."""
    error: str = ""
    reasons: list[str] = []
    """What the gate says."""


class RollbackAccepted(
    _OperatorSchema,
    json_schema_extra=_example(version="20261122T101500Z-1a2b3c", live_before="20261123T101500Z-4d5e6f"),
):
    """A rollback that the trainer will do."""

    version: str
    live_before: str
    """GET /v1/models says when `version` is live in its place, and how the rollback ended."""


class HiddenItem(_OperatorSchema, json_schema_extra=_example(item_id="sku-7", hidden=True, known=True)):
    """Whether an item is kept out of all lists."""

    item_id: str
    hidden: bool
    known: bool
    """Whether the model or the catalogue knows such an item."""


class ForgetAccepted(_OperatorSchema, json_schema_extra=_example(user_id="42")):
    """A user who is being erased."""

    user_id: str
