"""Models that somebody has planted or changes while they are used: nothing in their folders is believed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.errors import DataDirError, InvalidModel
from recsys.model.factor_model import FactorModel
from recsys.operations.model_versions import kept_models
from recsys.settings import Settings
from recsys.storage import private_copy
from recsys.storage.artifact import ArtifactFolder, load_model, load_popularity
from recsys.storage.data_dir import open_data_dir
from recsys.storage.files import NotAFile, Storage
from recsys.storage.manifest import Manifest
from recsys.storage.models import ModelStore
from tests.builders import make_draft, make_model
from tests.unit.test_models import forge, npy, rewrite_manifest, save

BIG = 1_000_000


class Planted:
    """A model on disk, to be tampered with."""

    def __init__(self, folder: Path) -> None:
        self.storage = Storage(str(folder))
        self.store = ModelStore(self.storage)
        self.data_dir = open_data_dir(Settings(data_dir=str(folder)))
        self.version, uri, self.sha256 = save(self.storage, make_model(), holdout_model=make_draft(make_model()))
        self.folder = Path(uri)

    def change_manifest(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the manifest, and publish it as it is then."""
        manifest = json.loads((self.folder / "manifest.json").read_bytes())
        change(manifest)
        self.sha256 = rewrite_manifest(self.storage, self.version, manifest)

    def replace(self, name: str, content: bytes) -> None:
        """Replace a file, and pin it."""
        self.sha256 = forge(self.storage, self.version, name, content)

    def load(self) -> FactorModel:
        """Load it as services do."""
        return self.store.load(self.version, manifest_sha256=self.sha256)


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    return Planted(tmp_path / "data")


@pytest.mark.parametrize("name", ["../../../dev/zero", "/dev/zero", "more.npy", "before-holdout/items.parquet", ""])
def test_no_name_in_the_manifest_is_opened(planted: Planted, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    planted.change_manifest(
        lambda manifest: manifest["files"].update({name: {"sha256": "0" * 64, "size_bytes": 2**40}})
    )
    opened: list[str] = []
    usual = Storage.opened

    def noting(self: Storage, relative: str) -> Any:
        opened.append(relative)
        return usual(self, relative)

    monkeypatch.setattr(Storage, "opened", noting)
    with pytest.raises(InvalidModel, match="which is no file of a model"):
        planted.load()
    assert opened == [f"{planted.version}/manifest.json"]


def as_link(path: Path) -> None:
    other = path.with_name("elsewhere")
    path.rename(other)
    path.symlink_to(other)


def as_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", ["manifest.json", "item_factors.npy", "items.parquet", "popular.json"])
@pytest.mark.parametrize("become", [as_link, as_device, as_pipe, as_folder])
def test_only_regular_files_of_the_folder_are_read(planted: Planted, become: Callable[[Path], None], name: str) -> None:
    become(planted.folder / name)
    with pytest.raises(InvalidModel, match=name):
        planted.load()


@pytest.mark.parametrize("become", [as_device, as_pipe])
def test_no_other_file_of_data_dir_is_a_device_or_a_pipe(tmp_path: Path, become: Callable[[Path], None]) -> None:
    (tmp_path / "file").write_bytes(b"content")
    become(tmp_path / "file")
    with pytest.raises(NotAFile, match="file: "):
        Storage(str(tmp_path)).read_file("file")


def test_a_version_that_leads_elsewhere_is_refused(planted: Planted) -> None:
    elsewhere = planted.folder.parent.parent / "elsewhere"
    planted.folder.rename(elsewhere)
    planted.folder.symlink_to(elsewhere)
    with pytest.raises(InvalidModel):
        planted.load()
    with pytest.raises(InvalidModel):
        planted.store.manifest(planted.version)


@pytest.mark.parametrize("version", ["..", ".", "", "a/../b", "/etc", "a..b", "a/b", "x" * 65, "a\nb", "\x1b[31m", "ä"])
def test_a_version_is_a_name_and_never_a_path(planted: Planted, version: str) -> None:
    for look in (
        lambda: planted.store.load(version, manifest_sha256=planted.sha256),
        lambda: planted.store.manifest(version),
        lambda: planted.store.address(version),
    ):
        with pytest.raises(InvalidModel, match="there is no model"):
            look()


def test_a_folder_with_another_name_than_versions_have_is_none(planted: Planted) -> None:
    (planted.folder.parent / "\x1b[31m").mkdir()
    (planted.folder.parent / "\x1b[31m" / "manifest.json").write_bytes(b"{}")
    assert planted.store.versions() == [planted.version]


def test_a_model_that_says_it_is_another_version_is_refused(planted: Planted) -> None:
    planted.change_manifest(lambda manifest: manifest.update(version="20300101T000000Z-abcdef"))
    with pytest.raises(InvalidModel, match="20300101T000000Z-abcdef"):
        planted.load()


def test_a_manifest_without_end_is_not_read(planted: Planted) -> None:
    with (planted.folder / "manifest.json").open("r+b") as file:
        file.truncate(2**40)  # takes no room on the disk
    with pytest.raises(InvalidModel, match="more than"):
        planted.load()
    with pytest.raises(InvalidModel, match="more than"):
        planted.store.manifest(planted.version)
    assert [(version, manifest) for version, _, manifest in kept_models(planted.data_dir, live="")] == [
        (planted.version, None)
    ]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"metrics": {f"m{n}": 1.0 for n in range(300_000)}}, "has more values than any model needs"),
        ({"metrics": {f"m{n}": 1.0 for n in range(5_000)}}, "values beside its archive"),
        ({"unknown": [[[1]] * 100] * 100}, "values beside its archive"),
        ({"created_at": "x" * 5_000_000}, "values beside its archive"),
        ({"gate": {"decision": "published", "reasons": ["x" * 3_000_000]}}, "values beside its archive"),
        ({"archive": {f"import-{n}": {"0": 1} for n in range(60_000)}}, "archive has more than"),
        ({"archive": {"topic": {str(n): "x" * 100 for n in range(2)}}}, r"archive\.topic"),
    ],
)
def test_a_manifest_that_holds_more_than_any_model_is_not_read(
    planted: Planted, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], why: str
) -> None:
    planted.change_manifest(lambda manifest: manifest.update(more))
    validated: list[Any] = []
    if why != r"archive\.topic":  # what is too much is not even looked at
        monkeypatch.setattr(Manifest, "model_validate", validated.append)
    for read in (planted.load, lambda: planted.store.manifest(planted.version)):
        with pytest.raises(InvalidModel, match=why):
            read()
    assert not validated


def test_a_manifest_may_name_many_imports(planted: Planted) -> None:
    planted.change_manifest(lambda manifest: manifest.update(archive={f"import-{n}": {"0": n} for n in range(40_000)}))
    assert len(planted.store.manifest(planted.version).archive) == 40_000
    planted.load()


def test_no_model_is_written_that_nothing_could_read(tmp_path: Path) -> None:
    archive = {f"import-{n}": {0: n} for n in range(60_000)}
    with pytest.raises(DataDirError, match=r"was not written, for nothing could read it: manifest\.json: archive"):
        save(Storage(str(tmp_path)), make_model(), archive=archive)
    assert not ModelStore(Storage(str(tmp_path))).versions()


@pytest.mark.parametrize(
    "name", ["item_factors.npy", "item_gram.npy", "index_rows.npy", "items.parquet", "popular.json"]
)
def test_no_file_is_larger_than_its_model_can_need(planted: Planted, name: str) -> None:
    with (planted.folder / name).open("r+b") as file:
        file.truncate(2**40)

    def declare(manifest: dict[str, Any]) -> None:
        manifest["files"][name]["size_bytes"] = 2**40

    planted.change_manifest(declare)
    with pytest.raises(InvalidModel, match=f"{name} has 1,099,511,627,776 bytes, too many"):
        planted.load()


@pytest.mark.parametrize("name", ["item_factors.npy", "items.parquet"])
def test_nothing_is_read_beyond_the_declared_size(planted: Planted, name: str) -> None:
    with (planted.folder / name).open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(InvalidModel, match=f"{name} is truncated or changed"):
        planted.load()


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("item_factors.npy", {"shape": [2**31, 6]}),
        ("item_factors.npy", {"shape": [0, 6]}),
        ("item_factors.npy", {"shape": [40, 7]}),
        ("item_factors.npy", {"dtype": "object"}),
        ("item_gram.npy", {"shape": [60_000, 60_000]}),
        ("index_rows.npy", {"shape": [41]}),
        ("index_factors.npy", {"dtype": "float64"}),
        ("items.parquet", {"sha256": "../../etc/passwd"}),
        ("items.parquet", {"size_bytes": -1}),
    ],
)
def test_what_the_manifest_says_of_files_must_agree(planted: Planted, name: str, record: dict[str, Any]) -> None:
    planted.change_manifest(lambda manifest: manifest["files"][name].update(record))
    with pytest.raises(InvalidModel):
        planted.load()


def parquet(ids: Any, **more: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"item_id": ids, **more}), buffer, compression="zstd")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        pytest.param(parquet(pa.array(["x" * 1_000] * BIG)), "1,000,000 rows", id="rows"),
        pytest.param(parquet(pa.array([f"{row:02d}" + "x" * BIG for row in range(40)])), "decompressed", id="ids"),
        pytest.param(
            parquet([f"{row:02d}" for row in range(40)], other=["y" * BIG + str(row) for row in range(40)]),
            "decompressed",
            id="another column",
        ),
        pytest.param(
            parquet([f"{row:02d}" for row in range(40)], **{f"c{n}": [0] * 40 for n in range(100)}),
            "columns",
            id="columns",
        ),
        pytest.param(parquet(pa.array(["x" * 1_000] * 40)), "not strictly increasing", id="repeated"),
    ],
)
def test_a_small_table_that_decodes_to_much_is_refused_by_its_metadata(
    planted: Planted, content: bytes, problem: str
) -> None:
    planted.replace("items.parquet", content)
    pa.default_memory_pool().release_unused()
    before = pa.total_allocated_bytes()
    with pytest.raises(InvalidModel, match=problem):
        planted.load()
    assert pa.total_allocated_bytes() - before < BIG


def test_popularity_is_that_of_the_model_that_was_loaded(planted: Planted) -> None:
    assert len(planted.store.popularity(planted.version, manifest_sha256=planted.sha256)) == 40
    (planted.folder / "items.parquet").write_bytes(parquet([f"{row:02d}" for row in range(40)], popularity=[1.0] * 40))
    with pytest.raises(InvalidModel, match=r"items\.parquet is truncated or changed"):
        planted.store.popularity(planted.version, manifest_sha256=planted.sha256)
    with pytest.raises(InvalidModel, match="not the published one"):
        load_popularity(ArtifactFolder.at(str(planted.folder)), manifest_sha256="0" * 64)


@pytest.mark.parametrize("values", [[np.nan] * 40, ["1"] * 40])
def test_popularity_that_is_no_number_is_refused(planted: Planted, values: list[Any]) -> None:
    planted.replace("items.parquet", parquet([f"{row:02d}" for row in range(40)], popularity=values))
    with pytest.raises(InvalidModel, match="popularity"):
        planted.store.popularity(planted.version, manifest_sha256=planted.sha256)


def test_a_file_that_is_changed_or_cut_off_after_the_check_changes_nothing(planted: Planted) -> None:
    model, path = planted.load(), planted.folder / "item_factors.npy"
    before = model.item_factors.copy()
    with path.open("r+b") as file:
        file.seek(256)
        file.write(b"\xff" * 64)
    assert np.array_equal(model.item_factors, before)
    os.truncate(path, 0)  # of a file that is mapped itself this ends the process when it is next looked at
    assert np.array_equal(model.item_factors, before)
    with pytest.raises(InvalidModel, match=r"item_factors\.npy is truncated or changed"):
        planted.load()


def copies() -> dict[str, int]:
    folder = private_copy._folder()
    return {path.name: path.stat().st_ino for path in folder.iterdir()}


@pytest.fixture
def own_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_processes_share_a_copy_and_the_last_one_is_removed(planted: Planted, own_temporary: Path) -> None:
    first = planted.load()
    found = copies()
    digest = hashlib.sha256((planted.folder / "item_factors.npy").read_bytes()).hexdigest()
    assert digest in found
    assert stat.S_IMODE(private_copy._folder().stat().st_mode) == 0o700
    second = planted.load()
    assert copies() == found, "one copy for both"
    private_copy.remove_unused_copies()
    assert copies() == found, "they are in use"
    assert np.array_equal(first.item_factors, second.item_factors)
    del first, second
    private_copy.remove_unused_copies()
    assert copies() == {}


def test_what_a_killed_process_left_is_removed_and_a_damaged_copy_made_anew(
    planted: Planted, own_temporary: Path
) -> None:
    digest = hashlib.sha256((planted.folder / "item_factors.npy").read_bytes()).hexdigest()
    (private_copy._folder() / "copying-left").write_bytes(b"half")
    (private_copy._folder() / digest).write_bytes(b"damaged")
    model = planted.load()
    assert np.array_equal(model.item_factors, np.load(planted.folder / "item_factors.npy"))
    assert "copying-left" not in copies()
    assert (private_copy._folder() / digest).read_bytes() == (planted.folder / "item_factors.npy").read_bytes()


@pytest.mark.parametrize("kind", ["of others", "a link", "full"])
def test_without_a_folder_of_its_own_a_process_keeps_the_copy_in_memory(
    planted: Planted, own_temporary: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    folder = own_temporary / f"recsys-models-{os.geteuid()}"
    if kind == "of others":
        folder.mkdir()
        folder.chmod(0o777)
    elif kind == "a link":
        (own_temporary / "other").mkdir(mode=0o700)
        folder.symlink_to(own_temporary / "other")
    else:
        monkeypatch.setattr("tempfile.mkstemp", raising_no_space)
    model = planted.load()
    assert np.array_equal(model.item_factors, np.load(planted.folder / "item_factors.npy"))
    assert "set TMPDIR" in caplog.text
    assert [path for path in own_temporary.rglob("*") if path.is_file()] == []


def raising_no_space(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_the_holdout_model_is_checked_alike(planted: Planted) -> None:
    as_link(planted.folder / "before-holdout" / "item_factors.npy")
    with pytest.raises(InvalidModel, match="item_factors"):
        load_model(
            ArtifactFolder.at(str(planted.folder / "before-holdout")),
            manifest_sha256=planted.store.manifest(planted.version).twin_sha256,
        )


def test_an_array_with_something_behind_it_is_refused(planted: Planted) -> None:
    planted.replace("item_gram.npy", npy(np.eye(6, dtype=np.float32)) + b"more")
    with pytest.raises(InvalidModel, match="item_gram has 148 bytes of numbers, not 144"):
        planted.load()
