"""Models on disk: a folder per version with a manifest that pins every file; no pickle on the load path."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.errors import InvalidModel
from recsys.model import FactorModel
from recsys.ranking import ItemIndex
from recsys.refresh import RankedList
from recsys.storage import Storage
from recsys.vocabulary import Vocabulary

_FOLDER = "models"
_MANIFEST = "manifest.json"
_FORMAT_VERSION = 1
_STAMP = "%Y%m%dT%H%M%SZ"
_VERSION = re.compile(r"(?P<stamp>[0-9]{8}T[0-9]{6}Z)-[0-9a-f]{6}")
_INDEX_FILES = {"index_rows.npy", "index_factors.npy"}
_REQUIRED_FILES = {"item_factors.npy", "item_gram.npy", "items.parquet"}


class FileRecord(BaseModel):
    """What a file of the artifact must be."""

    sha256: str
    size_bytes: int
    shape: list[int] | None = None
    dtype: str | None = None


class Manifest(BaseModel):
    """What a model is and where it comes from."""

    model_config = ConfigDict(protected_namespaces=(), extra="ignore")

    format_version: int
    version: str
    created_at: str
    alpha: float
    regularization: float
    factors: int
    iterations: int
    seed: int
    counts: dict[str, int]
    """users, items, events, pairs."""
    archive: dict[str, dict[int, int]]
    """Next offset by source and partition: what the model has seen."""
    metrics: dict[str, float] = {}
    files: dict[str, FileRecord]


class ModelStore:
    """Writes and lists the versions under ``data_dir``."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def save(
        self,
        item_ids: Vocabulary,
        item_factors: NDArray[np.float32],
        item_gram: NDArray[np.float32],
        *,
        buyers: NDArray[np.int64],
        popular: RankedList,
        parameters: dict[str, Any],
        counts: dict[str, int],
        archive: dict[str, dict[int, int]],
        at: datetime,
    ) -> tuple[str, str, str]:
        """Write a new version and return (version, uri, sha256 of the manifest).

        Parameters
        ----------
        parameters : dict
            alpha, regularization, factors, iterations, seed.
        """
        popular_json = [{"item_id": i, "score": s} for i, s in zip(popular.item_ids, popular.scores, strict=True)]
        index = ItemIndex.build(item_factors)
        arrays = {
            "item_factors.npy": item_factors,
            "item_gram.npy": item_gram,
            "index_rows.npy": index.rows,
            "index_factors.npy": index.factors,
        }
        files = {
            **{name: _npy(array) for name, array in arrays.items()},
            "items.parquet": _parquet({"item_id": list(item_ids.ids), "buyers": buyers}),
            "popular.json": orjson.dumps({"items": popular_json}),
        }
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        version = f"{self._new_stamp(at)}-{hashlib.sha256(''.join(digests.values()).encode()).hexdigest()[:6]}"
        manifest = Manifest(
            format_version=_FORMAT_VERSION,
            version=version,
            created_at=at.astimezone(UTC).isoformat(timespec="seconds"),
            counts=counts,
            archive=archive,
            files={
                name: FileRecord(
                    sha256=digests[name],
                    size_bytes=len(content),
                    shape=list(arrays[name].shape) if name in arrays else None,
                    dtype=str(arrays[name].dtype) if name in arrays else None,
                )
                for name, content in files.items()
            },
            **parameters,
        )
        content = manifest.model_dump_json(indent=2).encode()
        relative = f"{_FOLDER}/{version}"
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
        paths = self._storage.files(_FOLDER, f"/{_MANIFEST}")
        return sorted(path.split("/")[-2] for path in paths if not path.split("/")[-2].endswith(".tmp"))

    def address(self, version: str) -> tuple[str, str]:
        """Return a version's uri and the sha256 of its manifest, as `save` did."""
        relative = f"{_FOLDER}/{version}"
        content = self._storage.read_file(f"{relative}/{_MANIFEST}")
        return self._storage.uri(relative), hashlib.sha256(content).hexdigest()

    def unpublished(self, *, live: str, published_at: datetime) -> list[str]:
        """Return the versions that were written after the live one was published: cut-off rounds left them."""
        stamp = published_at.astimezone(UTC).strftime(_STAMP)
        return [version for version in self.versions() if version > live and version[: len(stamp)] > stamp]

    def remove_temporaries(self) -> None:
        """Remove what crashed writes left; call it only while holding the lock."""
        self._storage.remove_temporaries(_FOLDER)

    def remove(self, versions: Iterable[str]) -> None:
        """Delete versions."""
        for version in versions:
            self._storage.delete(f"{_FOLDER}/{version}")

    def prune(self, *, keep: int, live: str) -> list[str]:
        """Delete all but the newest ``keep`` versions, never the live one; return what was deleted."""
        versions = [version for version in self.versions() if version != live]
        doomed = versions[: max(0, len(versions) - (keep - 1))]
        self.remove(doomed)
        return doomed


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
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{_MANIFEST}: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from None
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
    index = None
    if _INDEX_FILES <= manifest.files.keys():  # absent where another program has written the model
        index = ItemIndex(_array(folder, "index_rows.npy"), _array(folder, "index_factors.npy"))
    return FactorModel(
        version=manifest.version,
        items=Vocabulary(ids),
        item_factors=_array(folder, "item_factors.npy"),
        item_gram=_array(folder, "item_gram.npy"),
        alpha=manifest.alpha,
        regularization=manifest.regularization,
        stored_index=index,
    )


def load_buyers(uri: str) -> NDArray[np.int64]:
    """Return the number of users who own each item of a model that `load_model` has checked: int64, (n_items,)."""
    content = Storage(uri).read_file("items.parquet")
    buyers: NDArray[np.int64] = _column(content, "buyers")["buyers"].to_numpy()
    return buyers


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
