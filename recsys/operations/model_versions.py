"""Which models are kept, and what each is: live, previous, rejected, or nothing of these."""

from __future__ import annotations

from typing import Any

from recsys.errors import InvalidModel, NoModel
from recsys.operations.rollback import previous_version
from recsys.storage.data_dir import DataDir
from recsys.storage.manifest import Manifest
from recsys.storage.models import ModelStore

_SUMMARY = {
    "version", "created_at", "factors", "alpha", "regularization", "half_life_days", "repeat_weight", "iterations",
    "seed", "reference_s", "counts", "metrics", "gate",
}  # fmt: skip


def roles(data_dir: DataDir, *, live: str) -> dict[str, str]:
    """Return version → ``live``, ``previous``, ``rejected`` or nothing, the newest first."""
    models = data_dir.models
    try:
        previous = previous_version(data_dir, live=live) if live else ""
    except NoModel:
        previous = ""
    found = {}
    for version in reversed(models.versions()):
        role = "live" if version == live else "previous" if version == previous else ""
        found[version] = role or ("rejected" if models.is_rejected(version) else "")
    return found


def summary(manifest: Manifest) -> dict[str, Any]:
    """Return what a list of models says of one."""
    return manifest.model_dump(mode="json", include=_SUMMARY)


def manifest_unless_damaged(models: ModelStore, version: str) -> Manifest | None:
    """Return a model's manifest, None if it cannot be read."""
    try:
        return models.manifest(version)
    except InvalidModel:
        return None
