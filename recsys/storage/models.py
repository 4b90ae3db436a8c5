"""Models on disk: a folder per version with a manifest that pins every file; no pickle on the load path."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

import numpy as np
import orjson
from numpy.typing import NDArray

from recsys.data.version import STAMP, is_model_version
from recsys.errors import DataDirError, InvalidModel
from recsys.evaluation.gate_record import GateRecord
from recsys.logger import logger
from recsys.model.factor_model import FactorModel
from recsys.recommend.user_lists import RankedList
from recsys.storage.artifact import (
    _HOLDOUT_FOLDER,
    ArtifactFolder,
    Draft,
    _files,
    _manifest,
    load_holdout_model,
    load_model,
    load_popularity,
    read_manifest,
)
from recsys.storage.files import NotAFile, Storage, TooLarge
from recsys.storage.manifest import _MANIFEST, Manifest, _parsed

log = logger(__name__)
_FOLDER = "models"
_DEPTH = 3  # of models/<version>/manifest.json
_VERSION = re.compile(r"(?P<stamp>[0-9]{8}T[0-9]{6}Z)-[0-9a-f]{6}")


class ModelStore:
    """Writes and lists the versions under ``data_dir``."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def save(
        self,
        draft: Draft,
        *,
        popular: RankedList,
        archive: dict[str, dict[int, int]],
        at: datetime,
        gate: GateRecord | None = None,
        holdout_model: Draft | None = None,
    ) -> tuple[str, str, str]:
        """Write a new version and return (version, uri, sha256 of the manifest).

        Parameters
        ----------
        archive : dict
            Next offset by source and partition: what the model has seen.
        gate : GateRecord or None
            How it was judged.
        holdout_model : Draft or None
            What was judged in its place: the same model, fitted on what precedes the hold-out.

        Raises
        ------
        DataDirError
            When it cannot be written, or its manifest would say more than `manifest` reads.
        """
        popular_json = [{"item_id": i, "score": s} for i, s in zip(popular.item_ids, popular.scores, strict=True)]
        files = {**_files(draft, with_index=True), "popular.json": orjson.dumps({"items": popular_json})}
        digest = hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in files.values())).hexdigest()
        version = f"{self._new_stamp(at)}-{digest[:6]}"
        created_at = at.astimezone(UTC).isoformat(timespec="seconds")
        holdout_files: dict[str, bytes] = {}
        if holdout_model is not None:
            holdout_files = _files(holdout_model, with_index=False)
            manifest = _manifest(
                holdout_model, holdout_files, version=f"{version}/{_HOLDOUT_FOLDER}", created_at=created_at
            )
            holdout_files[_MANIFEST] = manifest.model_dump_json(indent=2).encode()
        manifest = _manifest(draft, files, version=version, created_at=created_at).model_copy(
            update={
                "archive": archive,
                "gate": gate,
                "metrics": {} if gate is None else gate.metrics(),
                "twin_sha256": hashlib.sha256(holdout_files[_MANIFEST]).hexdigest() if holdout_files else "",
            }
        )
        content = manifest.model_dump_json(indent=2).encode()
        try:
            _parsed(content)
        except ValueError as error:
            raise DataDirError(f"model {version} was not written, for nothing could read it: {error}") from None
        relative = f"{_FOLDER}/{version}"
        files |= {f"{_HOLDOUT_FOLDER}/{name}": inner for name, inner in holdout_files.items()}
        self._storage.write_folder(relative, {**files, _MANIFEST: content}, last=_MANIFEST)
        return version, self._storage.uri(relative), hashlib.sha256(content).hexdigest()

    def _new_stamp(self, at: datetime) -> str:
        """Name a second that sorts after those of all versions, whatever the clock says."""
        found = [match["stamp"] for version in self.versions() if (match := _VERSION.fullmatch(version))]
        stamp = at.astimezone(UTC).strftime(STAMP)
        if found and found[-1] >= stamp:
            stamp = (datetime.strptime(found[-1], STAMP) + timedelta(seconds=1)).strftime(STAMP)
        return stamp

    def versions(self) -> list[str]:
        """Return all complete versions, oldest first."""
        paths = (path.split("/") for path in self._storage.files(_FOLDER, f"/{_MANIFEST}"))
        names = (parts[1] for parts in paths if len(parts) == _DEPTH and not parts[1].endswith(".tmp"))
        return sorted(filter(is_model_version, names))

    def manifest(self, version: str) -> Manifest:
        """Return what a version says of itself.

        Raises
        ------
        InvalidModel
            When there is no such version, or it is damaged.
        """
        try:
            return _parsed(read_manifest(self._artifact(version)))
        except (NotAFile, TooLarge) as error:
            raise InvalidModel(f"model {version}: {error}") from None
        except FileNotFoundError:
            known = self.versions()
            there = f"the newest is {known[-1]}" if known else "there is none yet"
            raise InvalidModel(f"there is no model {version} in {self._storage.url}; {there}") from None
        except ValueError as error:
            raise InvalidModel(f"model {version}: {error}") from None

    def address(self, version: str) -> tuple[str, str]:
        """Return a version's uri and the sha256 of its manifest, as `save` did."""
        content = read_manifest(self._artifact(version))
        return self._storage.uri(f"{_FOLDER}/{version}"), hashlib.sha256(content).hexdigest()

    def load(self, version: str, *, manifest_sha256: str) -> FactorModel:
        """Load a version, checking every byte; where it is follows from its name alone.

        Raises
        ------
        InvalidModel
            As `recsys.storage.artifact.load_model`; or when it says that it is another version.
        """
        model = load_model(self._artifact(version), manifest_sha256=manifest_sha256)
        if model.version != version:
            raise InvalidModel(f"model at {self._artifact(version).shown}: it says that it is {model.version[:80]!r}")
        return model

    def popularity(self, version: str, *, manifest_sha256: str) -> NDArray[np.float64]:
        """Return how popular the items of a version are, see `recsys.storage.artifact.load_popularity`."""
        return load_popularity(self._artifact(version), manifest_sha256=manifest_sha256)

    def _artifact(self, version: str) -> ArtifactFolder:
        """Return the folder of a version.

        Raises
        ------
        InvalidModel
            When no version can have this name.
        """
        if not is_model_version(version):
            raise InvalidModel(f"there is no model {version[:80]!r}: a version has letters, digits and - only")
        return ArtifactFolder(self._storage.inside(_FOLDER), version)

    def unpublished(self, *, live: str, published_at: datetime) -> list[str]:
        """Return the versions that were written after the live one was published, but for rejected ones.

        Rounds that were cut off left them.
        """
        stamp = published_at.astimezone(UTC).strftime(STAMP)
        later = [version for version in self.versions() if version > live and version[: len(stamp)] > stamp]
        return [version for version in later if not self.is_rejected(version)]

    def is_rejected(self, version: str) -> bool:
        """Whether the gate has refused a version."""
        try:
            return self.manifest(version).is_rejected
        except InvalidModel:
            return False

    def model_for_holdout(self, version: str, *, cut_s: int) -> FactorModel | None:
        """Return the model of a version that has not seen what came from a moment on: itself, or its holdout model.

        None if both have seen some of that, or cannot be loaded.

        Raises
        ------
        InvalidModel
            When there is no such version.
        DataDirError
            When it cannot be read now, which says nothing of it.
        """
        manifest = self.manifest(version)
        _, manifest_sha256 = self.address(version)

        def itself() -> FactorModel:
            return self.load(version, manifest_sha256=manifest_sha256)

        ways: list[Callable[[], FactorModel | None]] = []
        if manifest.is_rejected and not manifest.twin_sha256:  # never fitted on its hold-out: its own holdout model
            ways += [itself] if manifest.reference_s <= cut_s else []
        else:
            # 0: of an earlier release, which did not say up to when it was fitted
            ways += [itself] if 0 < manifest.reference_s < cut_s else []
            ways += [lambda: load_holdout_model(self._artifact(version), manifest)]
        for load in ways:
            try:
                model = load()
            except InvalidModel as error:
                if isinstance(error.__cause__, DataDirError) and not isinstance(error.__cause__, NotAFile):
                    raise error.__cause__ from None
                log.warning("model_passed_over", "{error}", error=error)
                continue
            if model is not None and model.reference_s <= cut_s:
                return model
        return None

    def remove_temporaries(self) -> None:
        """Remove what crashed writes left; call it only while holding the lock."""
        self._storage.remove_temporaries(_FOLDER)

    def remove(self, versions: Iterable[str]) -> None:
        """Delete versions."""
        for version in versions:
            self._storage.delete(f"{_FOLDER}/{version}")

    def prune(self, *, keep: int, live: str) -> list[str]:
        """Delete all but the newest ``keep`` published and as many rejected versions; return what was deleted.

        The live one stays whatever its age.
        """
        versions = [version for version in self.versions() if version != live]
        rejected = [version for version in versions if self.is_rejected(version)]
        published = [version for version in versions if version not in rejected]
        doomed = published[: max(0, len(published) - (keep - 1))] + rejected[: max(0, len(rejected) - keep)]
        self.remove(doomed)
        return doomed
