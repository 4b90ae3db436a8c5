"""The files of one model: written from a draft, loaded with every byte checked; no pickle on the load path."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

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
from recsys.storage.items_table import item_ids, item_popularity
from recsys.storage.manifest import (
    _BIAS_FILES,
    _MANIFEST,
    _MOST_MANIFEST_BYTES,
    FileRecord,
    Manifest,
    Weights,
    _parsed,
)
from recsys.storage.private_copy import Changed, checked_pieces, ensure_unchanged, private_copy, remove_unused_copies

if TYPE_CHECKING:  # it brings the libraries of the trainer
    from recsys.training.fit import Fitted

_HOLDOUT_FOLDER = "before-holdout"
_FORMAT_VERSION = 1
_INDEX_FILES = {"index_rows.npy", "index_factors.npy"}
_REQUIRED_FILES = {"item_factors.npy", "item_gram.npy", "items.parquet"}
_HEADERS: dict[tuple[int, int], Callable[[Any], Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


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


@dataclass(frozen=True, slots=True)
class ArtifactFolder:
    """A folder of a model: below ``storage``, whose own path alone may lead over symbolic links."""

    storage: Storage
    relative: str = ""

    @classmethod
    def at(cls, url: str) -> ArtifactFolder:
        """Return the folder at an address that this program itself has chosen, a local path or an fsspec URL."""
        return cls(Storage(url))

    @property
    def shown(self) -> str:
        """Its address, for people."""
        return self.storage.uri(self.relative) if self.relative else self.storage.url

    def path(self, name: str) -> str:
        """Return the path of a file in it, below ``storage``."""
        return f"{self.relative}/{name}" if self.relative else name

    def inside(self, name: str) -> ArtifactFolder:
        """Return a folder in it."""
        return ArtifactFolder(self.storage, self.path(name))


def load_model(folder: ArtifactFolder, *, manifest_sha256: str) -> FactorModel:
    """Load a model, checking every byte against the manifest and the manifest against the pointer.

    Nothing in the folder is believed: only files with the fixed names are opened, none is read beyond the size that
    the manifest says and a model can have, and what was checked is a private copy, which is then used.

    Parameters
    ----------
    folder : ArtifactFolder
        It must follow from ``data_dir`` and the version, see `recsys.storage.models.ModelStore.load`, never from what
        Redis or a file calls an address.
    manifest_sha256 : str
        From the pointer.

    Returns
    -------
    FactorModel
        Memory-mapped.

    Raises
    ------
    InvalidModel
        When anything is missing, truncated, changed, not finite, or no regular file.
    """
    with _errors_as_invalid(folder):
        return _load(folder, manifest_sha256)


@contextmanager
def _errors_as_invalid(folder: ArtifactFolder) -> Iterator[None]:
    try:
        yield
    except InvalidModel:
        raise
    except FileNotFoundError as error:
        raise InvalidModel(f"model at {folder.shown}: a file is missing: {error.filename or error}") from error
    except Exception as error:  # whatever a damaged or forged file provokes in the libraries that read it
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InvalidModel(f"model at {folder.shown}: {reason}") from error


def read_manifest(folder: ArtifactFolder) -> bytes:
    """Return the manifest of a model; FileNotFoundError if there is none."""
    return folder.storage.read_at_most(folder.path(_MANIFEST), _MOST_MANIFEST_BYTES)


def _checked_manifest(folder: ArtifactFolder, manifest_sha256: str) -> Manifest:
    content = read_manifest(folder)
    if hashlib.sha256(content).hexdigest() != manifest_sha256:
        raise ValueError(f"{_MANIFEST} is not the published one (its sha256 differs)")
    manifest = _parsed(content)
    if manifest.format_version != _FORMAT_VERSION:
        raise ValueError(f"its format version is {manifest.format_version}; this release reads {_FORMAT_VERSION}")
    if missing := sorted(_REQUIRED_FILES - manifest.files.keys()):
        raise ValueError(f"{_MANIFEST} does not list {', '.join(missing)}")
    if unknown := sorted((manifest.weights or Weights()).habit.keys() - set(HABIT)):
        raise ValueError(f"{_MANIFEST}: weights of {', '.join(unknown)[:200]} are unknown to this release")
    return manifest


def _load(folder: ArtifactFolder, manifest_sha256: str) -> FactorModel:
    manifest = _checked_manifest(folder, manifest_sha256)
    arrays: dict[str, NDArray[Any]] = {}
    for name, (dtype, shape) in manifest.arrays().items():
        with _unchanged(name), _opened(folder, name, manifest) as file:
            record = manifest.files[name]
            copy = private_copy(file, size=record.size_bytes, sha256=record.sha256)
        with copy:
            arrays[name] = _mapped(name, copy, np.dtype(dtype), shape, size=record.size_bytes)
    remove_unused_copies()
    if "popular.json" in manifest.files:
        record = manifest.files["popular.json"]
        with _unchanged("popular.json"), _opened(folder, "popular.json", manifest) as file:
            ensure_unchanged(file, size=record.size_bytes, sha256=record.sha256)
    n_items = len(arrays["item_factors.npy"])
    content = _items_parquet(folder, manifest)
    with _file_named("items.parquet"):
        ids = item_ids(content, n_items)
    del content
    pa.default_memory_pool().release_unused()
    boosts = _boosts(manifest, arrays, n_items)
    index = None
    if _INDEX_FILES <= arrays.keys():  # absent where another program has written the model
        index = ItemIndex(arrays["index_rows.npy"], arrays["index_factors.npy"], boosts is not None)
    return FactorModel(
        version=manifest.version,
        items=Vocabulary(ids),
        item_factors=arrays["item_factors.npy"],
        item_gram=arrays["item_gram.npy"],
        alpha=manifest.alpha,
        regularization=manifest.regularization,
        half_life_days=manifest.half_life_days,
        reference_s=manifest.reference_s,
        boosts=boosts,
        stored_index=index,
    )


def _boosts(manifest: Manifest, arrays: Mapping[str, NDArray[Any]], n_items: int) -> Boosts | None:
    weights = manifest.weights
    if weights is None and _BIAS_FILES.isdisjoint(arrays):
        return None
    weights = weights or Weights()
    item_bias, repeat_bias = (arrays[name] if name in arrays else np.zeros(n_items, np.float32) for name in _BIAS_FILES)
    habit = np.array([weights.habit.get(name, 0.0) for name in HABIT])
    return Boosts(item_bias, repeat_bias, weights.affinity, habit)


def load_holdout_model(folder: ArtifactFolder, manifest: Manifest) -> FactorModel | None:
    """Load what was judged in a version's place; None if there is none.

    Raises
    ------
    InvalidModel
        As `load_model`.
    """
    if not manifest.twin_sha256:
        return None
    return load_model(folder.inside(_HOLDOUT_FOLDER), manifest_sha256=manifest.twin_sha256)


def load_popularity(folder: ArtifactFolder, *, manifest_sha256: str = "") -> NDArray[np.float64]:
    """Return how popular the items of a model are: float64, (n_items,).

    Of a model that another program has written without it: the number of buyers.

    Parameters
    ----------
    folder : ArtifactFolder
        As for `load_model`.
    manifest_sha256 : str
        Of the model that was loaded; empty = whichever is there.

    Raises
    ------
    InvalidModel
        When it cannot be read, or is not the one that the manifest pins.
    """
    with _errors_as_invalid(folder):
        expected = manifest_sha256 or hashlib.sha256(read_manifest(folder)).hexdigest()
        manifest = _checked_manifest(folder, expected)
        _, (n_items, *_) = manifest.arrays()["item_factors.npy"]
        content = _items_parquet(folder, manifest)
        with _file_named("items.parquet"):
            return item_popularity(content, n_items)


@contextmanager
def _opened(folder: ArtifactFolder, name: str, manifest: Manifest) -> Iterator[BinaryIO]:
    """Open a file that has the size that the manifest says."""
    with folder.storage.opened(folder.path(name)) as (file, size):
        if size != manifest.files[name].size_bytes:
            raise Changed
        yield file


def _items_parquet(folder: ArtifactFolder, manifest: Manifest) -> bytes:
    record = manifest.files["items.parquet"]
    with _unchanged("items.parquet"), _opened(folder, "items.parquet", manifest) as file:
        return b"".join(checked_pieces(file, size=record.size_bytes, sha256=record.sha256))


def _mapped(name: str, copy: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...], *, size: int) -> NDArray[Any]:
    """Map an array that has this dtype and shape, and nothing behind it."""
    what = name.removesuffix(".npy")
    with _file_named(name):
        version = np.lib.format.read_magic(copy)
        if version not in _HEADERS:
            raise ValueError(f"format {version} of .npy is unknown to this release")
        found, is_fortran, kind = _HEADERS[version](copy)
    if kind != dtype:
        raise ValueError(f"{what} has dtype {kind}, not {dtype}")
    if tuple(found) != shape:
        raise ValueError(f"{what} has shape {tuple(found)}, not {shape}")
    if is_fortran and len(shape) > 1:
        raise ValueError(f"{what} is not in C order")
    if (start := copy.tell()) + (needed := math.prod(shape) * dtype.itemsize) != size:
        raise ValueError(f"{what} has {size - start:,} bytes of numbers, not {needed:,}")
    return np.memmap(copy, dtype, mode="r", offset=start, shape=shape)


@contextmanager
def _unchanged(name: str) -> Iterator[None]:
    try:
        yield
    except Changed:
        raise ValueError(f"{name} is truncated or changed (size or sha256 differs from the manifest)") from None


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
