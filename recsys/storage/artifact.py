"""The files of one model: written from a draft, loaded with every byte checked; no pickle on the load path."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.data.vocabulary import Vocabulary
from recsys.errors import InvalidModel
from recsys.model.boosts import HABIT, NO_WEIGHTS, Boosts, BoostWeights
from recsys.model.factor_model import FactorModel
from recsys.model.top_n import ItemIndex
from recsys.storage.files import Storage
from recsys.storage.manifest import _MANIFEST, FileRecord, Manifest, Weights, _parsed

if TYPE_CHECKING:  # it brings the libraries of the trainer
    from recsys.training.fit import Fitted

_HOLDOUT_FOLDER = "before-holdout"
_FORMAT_VERSION = 1
_INDEX_FILES = {"index_rows.npy", "index_factors.npy"}
_BIAS_FILES = {"item_bias.npy": None, "repeat_bias.npy": None}.keys()
_REQUIRED_FILES = {"item_factors.npy", "item_gram.npy", "items.parquet"}


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
    weights : BoostWeights
        That its boosts were made with.
    """

    model: FactorModel
    buyers: NDArray[np.int64]
    popularity: NDArray[np.float64]
    parameters: dict[str, Any]
    counts: dict[str, int]
    weights: BoostWeights = NO_WEIGHTS


def draft_of(fitted: Fitted) -> Draft:
    """Return what is to be saved of a fitted model."""
    parameters = fitted.parameters
    return Draft(
        fitted.model,
        fitted.buyers,
        fitted.popularity,
        parameters={
            "iterations": parameters.iterations,
            "seed": parameters.seed,
            "repeat_weight": parameters.repeat_weight,
        },
        counts=dict(fitted.counts),
        weights=fitted.weights,
    )


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
        raise ValueError(f"{_MANIFEST} is not the published one (its sha256 differs)")
    manifest = _parsed(content)
    if manifest.format_version != _FORMAT_VERSION:
        raise ValueError(f"its format version is {manifest.format_version}; this release reads {_FORMAT_VERSION}")
    if missing := sorted(_REQUIRED_FILES - manifest.files.keys()):
        raise ValueError(f"{_MANIFEST} does not list {', '.join(missing)}")
    for name, record in manifest.files.items():
        if _size_and_digest(folder, name) != (record.size_bytes, record.sha256):
            raise ValueError(f"{name} is truncated or changed (size or sha256 differs from the manifest)")
    with _file_named("items.parquet"):
        items = _column(folder.read_file("items.parquet"), "item_id")
    if items.column_names != ["item_id"] or items["item_id"].type != pa.string() or items["item_id"].null_count:
        raise ValueError("items.parquet needs a column item_id of strings without nulls")
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


def load_holdout_model(uri: str, manifest: Manifest) -> FactorModel | None:
    """Load what was judged in a version's place; None if there is none.

    Raises
    ------
    InvalidModel
        As `load_model`.
    """
    if not manifest.twin_sha256:
        return None
    return load_model(f"{uri}/{_HOLDOUT_FOLDER}", manifest_sha256=manifest.twin_sha256)


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
