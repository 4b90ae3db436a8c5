"""Which models are kept, and what each is: live, previous, rejected, or nothing of these."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
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


def kept_models(data_dir: DataDir, *, live: str, most: int | None = None) -> Iterator[tuple[str, str, Manifest | None]]:
    """Yield version, role and manifest of the models that are kept, the newest first.

    The role is ``live``, ``previous``, ``rejected`` or nothing; a manifest that cannot be read is None.

    Parameters
    ----------
    data_dir : DataDir
    live : str
        Version of the live model; empty = none.
    most : int or None
        How many are looked at; each is read.
    """
    models = data_dir.models
    try:
        previous = previous_version(data_dir, live=live) if live else ""
    except NoModel:
        previous = ""
    for version in islice(reversed(models.versions()), most):
        manifest = _manifest_unless_damaged(models, version)
        role = "live" if version == live else "previous" if version == previous else ""
        yield version, role or ("rejected" if manifest is not None and manifest.is_rejected else ""), manifest


def summary(manifest: Manifest) -> dict[str, Any]:
    """Return what a list of models says of one."""
    return manifest.model_dump(mode="json", include=_SUMMARY)


def _manifest_unless_damaged(models: ModelStore, version: str) -> Manifest | None:
    try:
        return models.manifest(version)
    except InvalidModel:
        return None
