"""Models on disk: a folder per version with a manifest that pins every file; no pickle on the load path."""

from __future__ import annotations

import hashlib
import io
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.data.vocabulary import Vocabulary
from recsys.errors import InvalidModel, StorageError
from recsys.evaluation.gate_record import Decision, GateRecord
from recsys.model.boosts import DEMAND, HABIT, NO_WEIGHTS, Boosts, RankerWeights
from recsys.model.factor_model import FactorModel
from recsys.model.top_n import ItemIndex
from recsys.recommend.user_lists import RankedList
from recsys.storage.files import Storage

log = logging.getLogger(__name__)
_FOLDER = "models"
_MANIFEST = "manifest.json"
_TWIN = "before-holdout"
_DEPTH = 3  # of models/<version>/manifest.json
_FORMAT_VERSION = 1
_STAMP = "%Y%m%dT%H%M%SZ"
_VERSION = re.compile(r"(?P<stamp>[0-9]{8}T[0-9]{6}Z)-[0-9a-f]{6}")
_INDEX_FILES = {"index_rows.npy", "index_factors.npy"}
_BIAS_FILES = {"item_bias.npy": None, "repeat_bias.npy": None}.keys()
_REQUIRED_FILES = {"item_factors.npy", "item_gram.npy", "items.parquet"}


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
    def of(cls, learned: RankerWeights, boosts: Boosts) -> Weights:
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


@dataclass(frozen=True, eq=False)
class Draft:
    """A model to be written, and what is known of it.

    Attributes
    ----------
    model : FactorModel
        Its version is not that of the artifact.
    buyers : int64, (n_items,)
        Users who own each item.
    popularity : float64, (n_items,)
        See `recsys.recommend.item_lists.popularity`.
    parameters : dict
        What it was fitted with and the model itself does not say: iterations, seed, repeat_weight.
    counts : dict
        users, items, events, pairs.
    weights : RankerWeights
        That its boosts were made with.
    """

    model: FactorModel
    buyers: NDArray[np.int64]
    popularity: NDArray[np.float64]
    parameters: dict[str, Any]
    counts: dict[str, int]
    weights: RankerWeights = NO_WEIGHTS


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
        twin: Draft | None = None,
    ) -> tuple[str, str, str]:
        """Write a new version and return (version, uri, sha256 of the manifest).

        Parameters
        ----------
        archive : dict
            Next offset by source and partition: what the model has seen.
        gate : GateRecord or None
            How it was judged.
        twin : Draft or None
            What was judged in its place: the same model, fitted on what precedes the hold-out.
        """
        popular_json = [{"item_id": i, "score": s} for i, s in zip(popular.item_ids, popular.scores, strict=True)]
        files = {**_files(draft, with_index=True), "popular.json": orjson.dumps({"items": popular_json})}
        digest = hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in files.values())).hexdigest()
        version = f"{self._new_stamp(at)}-{digest[:6]}"
        created_at = at.astimezone(UTC).isoformat(timespec="seconds")
        twin_files: dict[str, bytes] = {}
        if twin is not None:
            twin_files = _files(twin, with_index=False)
            manifest = _manifest(twin, twin_files, version=f"{version}/{_TWIN}", created_at=created_at)
            twin_files[_MANIFEST] = manifest.model_dump_json(indent=2).encode()
        manifest = _manifest(draft, files, version=version, created_at=created_at).model_copy(
            update={
                "archive": archive,
                "gate": gate,
                "metrics": {} if gate is None else gate.metrics(),
                "twin_sha256": hashlib.sha256(twin_files[_MANIFEST]).hexdigest() if twin_files else "",
            }
        )
        content = manifest.model_dump_json(indent=2).encode()
        relative = f"{_FOLDER}/{version}"
        files |= {f"{_TWIN}/{name}": inner for name, inner in twin_files.items()}
        self._storage.write_folder(relative, {**files, _MANIFEST: content}, last=_MANIFEST)
        return version, self._storage.uri(relative), hashlib.sha256(content).hexdigest()

    def _new_stamp(self, at: datetime) -> str:
        """Name a second that sorts after those of all versions, whatever the clock says."""
        found = [match["stamp"] for version in self.versions() if (match := _VERSION.fullmatch(version))]
        stamp = at.astimezone(UTC).strftime(_STAMP)
        if found and found[-1] >= stamp:
            stamp = (datetime.strptime(found[-1], _STAMP) + timedelta(seconds=1)).strftime(_STAMP)
        return stamp

    def versions(self) -> list[str]:
        """Return all complete versions, oldest first."""
        paths = (path.split("/") for path in self._storage.files(_FOLDER, f"/{_MANIFEST}"))
        return sorted(parts[1] for parts in paths if len(parts) == _DEPTH and not parts[1].endswith(".tmp"))

    def manifest(self, version: str) -> Manifest:
        """Return what a version says of itself.

        Raises
        ------
        InvalidModel
            When there is no such version, or it is damaged.
        """
        try:
            return _parsed(self._storage.read_file(f"{_FOLDER}/{version}/{_MANIFEST}"))
        except FileNotFoundError:
            known = self.versions()
            there = f"the newest is {known[-1]}" if known else "there is none yet"
            raise InvalidModel(f"there is no model {version} in {self._storage.url}; {there}") from None
        except ValueError as error:
            raise InvalidModel(f"model {version}: {error}") from None

    def address(self, version: str) -> tuple[str, str]:
        """Return a version's uri and the sha256 of its manifest, as `save` did."""
        relative = f"{_FOLDER}/{version}"
        content = self._storage.read_file(f"{relative}/{_MANIFEST}")
        return self._storage.uri(relative), hashlib.sha256(content).hexdigest()

    def unpublished(self, *, live: str, published_at: datetime) -> list[str]:
        """Return the versions that were written after the live one was published, but for rejected ones.

        Rounds that were cut off left them.
        """
        stamp = published_at.astimezone(UTC).strftime(_STAMP)
        later = [version for version in self.versions() if version > live and version[: len(stamp)] > stamp]
        return [version for version in later if not self.is_rejected(version)]

    def is_rejected(self, version: str) -> bool:
        """Whether the gate has refused a version."""
        try:
            return self.manifest(version).is_rejected
        except InvalidModel:
            return False

    def unaware_of(self, version: str, *, cut_s: int) -> FactorModel | None:
        """Return what can be judged of a version by what came from a moment on: the version itself, or its twin.

        None if both have seen some of that, or cannot be loaded.

        Raises
        ------
        InvalidModel
            When there is no such version.
        StorageError
            When it cannot be read now, which says nothing of it.
        """
        manifest = self.manifest(version)
        uri, manifest_sha256 = self.address(version)

        def itself() -> FactorModel:
            return load_model(uri, manifest_sha256=manifest_sha256)

        ways: list[Callable[[], FactorModel | None]] = []
        if manifest.is_rejected:  # never fitted on its hold-out, it is its own twin
            ways += [itself] if manifest.reference_s <= cut_s else []
        else:
            # 0: of an earlier release, which did not say up to when it was fitted
            ways += [itself] if 0 < manifest.reference_s < cut_s else []
            ways += [lambda: load_twin(uri, manifest)]
        for load in ways:
            try:
                model = load()
            except InvalidModel as error:
                if isinstance(error.__cause__, StorageError):
                    raise error.__cause__ from None
                log.warning("%s", error)
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


def _files(draft: Draft, *, with_index: bool) -> dict[str, bytes]:
    model = draft.model
    arrays: dict[str, NDArray[Any]] = {"item_factors.npy": model.item_factors, "item_gram.npy": model.item_gram}
    if with_index:
        arrays |= {"index_rows.npy": model.index.rows, "index_factors.npy": model.index.factors}
    if model.boosts is not None:
        arrays |= {"item_bias.npy": model.boosts.item_bias, "repeat_bias.npy": model.boosts.repeat_bias}
    columns = {"item_id": list(model.items.ids), "buyers": draft.buyers, "popularity": draft.popularity}
    return {**{name: _npy(array) for name, array in arrays.items()}, "items.parquet": _parquet(columns)}


def _manifest(draft: Draft, files: Mapping[str, bytes], *, version: str, created_at: str) -> Manifest:
    model = draft.model
    return Manifest(
        format_version=_FORMAT_VERSION,
        version=version,
        created_at=created_at,
        alpha=model.alpha,
        regularization=model.regularization,
        half_life_days=model.half_life_days,
        reference_s=model.reference_s,
        factors=model.item_factors.shape[1],
        counts=draft.counts,
        archive={},
        weights=None if model.boosts is None else Weights.of(draft.weights, model.boosts),
        files={name: _record(name, content) for name, content in files.items()},
        **draft.parameters,
    )


def _record(name: str, content: bytes) -> FileRecord:
    shape, dtype = None, None
    if name.endswith(".npy"):
        header = io.BytesIO(content)
        np.lib.format.read_magic(header)
        found, _, kind = np.lib.format.read_array_header_1_0(header)
        shape, dtype = list(found), str(kind)
    return FileRecord(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content), shape=shape, dtype=dtype)


def _parsed(content: bytes) -> Manifest:
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{_MANIFEST}: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None


def load_model(uri: str, *, manifest_sha256: str) -> FactorModel:
    """Load a model, checking every byte against the manifest and the manifest against the pointer.

    Parameters
    ----------
    uri : str
        The version's folder.
    manifest_sha256 : str
        From the pointer.

    Returns
    -------
    FactorModel
        Memory-mapped when the folder is local.

    Raises
    ------
    InvalidModel
        When anything is missing, truncated, changed, or not finite.
    """
    try:
        return _load(Storage(uri), manifest_sha256)
    except InvalidModel:
        raise
    except FileNotFoundError as error:
        raise InvalidModel(f"model at {uri}: a file is missing: {error.filename or error}") from error
    except Exception as error:  # whatever a damaged or forged file provokes in the libraries that read it
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InvalidModel(f"model at {uri}: {reason}") from error


def _load(folder: Storage, manifest_sha256: str) -> FactorModel:
    content = folder.read_file(_MANIFEST)
    if hashlib.sha256(content).hexdigest() != manifest_sha256:
        raise ValueError(f"{_MANIFEST} is not the one that was published (sha256 differs)")
    manifest = _parsed(content)
    if manifest.format_version != _FORMAT_VERSION:
        raise ValueError(f"its format version is {manifest.format_version}; this release reads {_FORMAT_VERSION}")
    if missing := sorted(_REQUIRED_FILES - manifest.files.keys()):
        raise ValueError(f"{_MANIFEST} does not pin {', '.join(missing)}")
    for name, record in manifest.files.items():
        if _size_and_digest(folder, name) != (record.size_bytes, record.sha256):
            raise ValueError(f"{name} is truncated or changed (size or sha256 differs from the manifest)")
    with _file_named("items.parquet"):
        items = _column(folder.read_file("items.parquet"), "item_id")
    if items.column_names != ["item_id"] or items["item_id"].type != pa.string() or items["item_id"].null_count:
        raise ValueError("items.parquet needs a column item_id of texts without nulls")
    ids = items["item_id"].to_pylist()
    del items
    pa.default_memory_pool().release_unused()
    boosts = _boosts(folder, manifest, len(ids))
    index = None
    if _INDEX_FILES <= manifest.files.keys():  # absent where another program has written the model
        index = ItemIndex(_array(folder, "index_rows.npy"), _array(folder, "index_factors.npy"), boosts is not None)
    return FactorModel(
        version=manifest.version,
        items=Vocabulary(ids),
        item_factors=_array(folder, "item_factors.npy"),
        item_gram=_array(folder, "item_gram.npy"),
        alpha=manifest.alpha,
        regularization=manifest.regularization,
        half_life_days=manifest.half_life_days,
        reference_s=manifest.reference_s,
        boosts=boosts,
        stored_index=index,
    )


def _boosts(folder: Storage, manifest: Manifest, n_items: int) -> Boosts | None:
    weights, files = manifest.weights, manifest.files
    if weights is None and _BIAS_FILES.isdisjoint(files):
        return None
    weights = weights or Weights()
    if unknown := sorted(weights.habit.keys() - set(HABIT)):
        raise ValueError(f"{_MANIFEST}: weights of {', '.join(unknown)} are unknown to this release")
    item_bias, repeat_bias = (
        _array(folder, name) if name in files else np.zeros(n_items, np.float32) for name in _BIAS_FILES
    )
    habit = np.array([weights.habit.get(name, 0.0) for name in HABIT])
    return Boosts(item_bias, repeat_bias, weights.affinity, habit)


def load_twin(uri: str, manifest: Manifest) -> FactorModel | None:
    """Load what was judged in a version's place; None if there is none.

    Raises
    ------
    InvalidModel
        As `load_model`.
    """
    if not manifest.twin_sha256:
        return None
    return load_model(f"{uri}/{_TWIN}", manifest_sha256=manifest.twin_sha256)


def load_popularity(uri: str) -> NDArray[np.float64]:
    """Return how popular the items of a model are that `load_model` has checked: float64, (n_items,).

    Of a model that another program has written without it: the number of buyers.
    """
    content = Storage(uri).read_file("items.parquet")
    names = pq.ParquetFile(io.BytesIO(content)).schema_arrow.names
    name = "popularity" if "popularity" in names else "buyers"
    popularity: NDArray[np.float64] = _column(content, name)[name].to_numpy().astype(np.float64)
    return popularity


def _size_and_digest(folder: Storage, name: str) -> tuple[int, str]:
    size, digest = 0, hashlib.sha256()
    for piece in folder.pieces(name):
        size += len(piece)
        digest.update(piece)
    return size, digest.hexdigest()


def _column(content: bytes, name: str) -> pa.Table:
    # Not pq.read_table(), which imports pandas: 40 MiB. Not in Arrow's threads, which keep memory of their own.
    return pq.ParquetFile(io.BytesIO(content)).read([name], use_threads=False)


def _array(folder: Storage, name: str) -> NDArray[Any]:
    with _file_named(name):
        if folder.is_local:
            array: NDArray[Any] = np.load(Path(folder.path(name)), mmap_mode="r", allow_pickle=False)
            return array
        array = np.load(io.BytesIO(folder.read_file(name)), allow_pickle=False)
        return array


@contextmanager
def _file_named(name: str) -> Iterator[None]:
    """Let errors of the libraries that read a file name it."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{name}: {error}") from error


def _npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _parquet(columns: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd")
    return buffer.getvalue()
