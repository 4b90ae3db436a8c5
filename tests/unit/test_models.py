from __future__ import annotations

import hashlib
import io
import json
import pickle
import subprocess
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.history import read_histories
from recsys.errors import DataDirError, InvalidModel
from recsys.evaluation.gate_record import Decision, GateRecord
from recsys.model.boosts import DEMAND, HABIT, NO_WEIGHTS, BoostWeights
from recsys.model.factor_model import FactorModel
from recsys.recommend.user_lists import RankedList, refresh, user_factors
from recsys.storage.artifact import ArtifactFolder, Draft, load_holdout_model, load_model
from recsys.storage.files import Storage
from recsys.storage.manifest import Manifest
from recsys.storage.models import ModelStore
from tests.builders import make_draft, make_history, make_model

AT = datetime(2026, 11, 22, 10, 15, 0, tzinfo=UTC)
FILES = (
    "item_factors.npy",
    "item_gram.npy",
    "index_rows.npy",
    "index_factors.npy",
    "items.parquet",
    "popular.json",
)
ALL_FILES = (*FILES, "manifest.json")


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}")


def save(
    storage: Storage,
    model: FactorModel,
    at: datetime = AT,
    *,
    weights: BoostWeights = NO_WEIGHTS,
    gate: GateRecord | None = None,
    holdout_model: Draft | None = None,
    archive: dict[str, dict[int, int]] | None = None,
) -> tuple[str, str, str]:
    return ModelStore(storage).save(
        make_draft(model, weights=weights),
        popular=RankedList(tuple(model.items.ids[:2]), (9.0, 4.0)),
        archive={"topic-id": {0: 12, 3: 7}} if archive is None else archive,
        at=at,
        gate=gate,
        holdout_model=holdout_model,
    )


def overwrite(storage: Storage, version: str, name: str, content: bytes) -> None:
    storage.fs.pipe_file(storage.path(f"models/{version}/{name}"), content)


def forge(storage: Storage, version: str, name: str, content: bytes) -> str:
    """Replace a file and pin it in a new manifest, as someone who can write to the shared disk would."""
    overwrite(storage, version, name, content)
    manifest = json.loads(storage.read_file(f"models/{version}/manifest.json"))
    manifest["files"][name] |= {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    return rewrite_manifest(storage, version, manifest)


def rewrite_manifest(storage: Storage, version: str, manifest: object) -> str:
    content = json.dumps(manifest).encode()
    overwrite(storage, version, "manifest.json", content)
    return hashlib.sha256(content).hexdigest()


def npy(array: Any, *, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, item_factors=np.ones((40, 6), np.float32))
    return buffer.getvalue()


def npy_header(shape: str) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def items_parquet(ids: Sequence[object], name: str = "item_id") -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({name: ids}), buffer)
    return buffer.getvalue()


class Bomb:
    """Unpickling it would fail the test in its own way."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return pytest.fail, ("a model ran code",)


def test_a_saved_model_loads_as_it_was(storage: Storage) -> None:
    model = make_model()
    version, uri, digest = save(storage, model)
    loaded = load_model(ArtifactFolder.at(uri), manifest_sha256=digest)
    assert loaded.version == version
    assert list(loaded.items.ids) == list(model.items.ids)
    assert (loaded.alpha, loaded.regularization) == (model.alpha, model.regularization)
    np.testing.assert_array_equal(loaded.item_factors, model.item_factors)
    np.testing.assert_array_equal(loaded.item_gram, model.item_gram)
    assert loaded.solver.fold_in is not None


def test_what_scores_have_beside_the_factors_is_saved(storage: Storage) -> None:
    demand = np.random.default_rng(0).normal(size=(40, len(DEMAND)))
    weights = BoostWeights((0.3, 0.2, -0.1), -0.4, (0.0, 0.1, 0.2), tuple(float(k) for k in range(len(HABIT))))
    model = replace(
        make_model(), half_life_days=30.0, reference_s=1_795_000_000, boosts=weights.boosts(demand, repeat_weight=0.5)
    )
    version, uri, digest = save(storage, model, weights=weights)
    loaded = load_model(ArtifactFolder.at(uri), manifest_sha256=digest)
    assert (loaded.half_life_days, loaded.reference_s) == (30.0, 1_795_000_000)
    assert loaded.boosts is not None
    assert model.boosts is not None
    np.testing.assert_array_equal(loaded.boosts.item_bias, model.boosts.item_bias)
    np.testing.assert_array_equal(loaded.boosts.repeat_bias, model.boosts.repeat_bias)
    np.testing.assert_array_equal(loaded.boosts.habit, model.boosts.habit)
    assert loaded.boosts.affinity == -0.4
    histories = [make_history({"item-0003": 1.0, "item-0020": 2.0})]
    owned = read_histories(histories, model.items)
    np.testing.assert_array_equal(user_factors(owned, loaded), user_factors(owned, model))
    (found,), (expected,) = (list(refresh(histories, one, n=9)) for one in (loaded, model))
    assert found.item_ids == expected.item_ids
    assert found.scores == expected.scores
    manifest = json.loads(storage.read_file(f"models/{version}/manifest.json"))
    assert manifest["weights"]["demand"] == {"demand_7d": 0.3, "demand_30d": 0.2, "demand_90d": -0.1}
    assert manifest["weights"]["habit"]["frequency_120d"] == 2.5
    assert set(manifest["files"]) == {*FILES, "item_bias.npy", "repeat_bias.npy"}


def test_an_item_bias_of_another_program_counts(storage: Storage) -> None:
    model = make_model()
    version, _, _ = save(storage, model)
    bias = np.linspace(-1, 1, 40).astype(np.float32)
    manifest = json.loads(storage.read_file(f"models/{version}/manifest.json"))
    for name in ("index_rows.npy", "index_factors.npy"):  # of a model without bias
        del manifest["files"][name]
    manifest["files"]["item_bias.npy"] = {}
    rewrite_manifest(storage, version, manifest)
    digest = forge(storage, version, "item_bias.npy", npy(bias))
    loaded = load_model(ArtifactFolder.at(storage.uri(f"models/{version}")), manifest_sha256=digest)
    assert loaded.boosts is not None
    np.testing.assert_array_equal(loaded.boosts.item_bias, bias)
    assert loaded.boosts.affinity == 0
    assert not loaded.boosts.habit.any()
    assert not loaded.boosts.repeat_bias.any()


@pytest.mark.parametrize(
    ("bias", "problem"),
    [
        (np.ones(39, np.float32), "item_bias has shape"),
        (np.ones(40), "item_bias has dtype"),
        (np.full(40, np.nan, np.float32), "NaN"),
        (np.zeros(40, np.float32) + 1, "index_factors are not those"),
    ],
    ids=["shape", "dtype", "finite", "index"],
)
def test_a_bias_that_is_not_sound_is_refused(storage: Storage, bias: np.ndarray[Any, Any], problem: str) -> None:
    boosts = BoostWeights(demand=(1.0, 0.0, 0.0)).boosts(np.zeros((40, len(DEMAND))))
    version, uri, _ = save(storage, replace(make_model(), boosts=boosts))
    digest = forge(storage, version, "item_bias.npy", npy(bias))
    with pytest.raises(InvalidModel, match=problem):
        load_model(ArtifactFolder.at(uri), manifest_sha256=digest)


def test_weights_that_this_release_does_not_know_are_refused(storage: Storage) -> None:
    version, uri, _ = save(storage, make_model())
    manifest = json.loads(storage.read_file(f"models/{version}/manifest.json"))
    manifest["weights"] = {"habit": {"phase_of_the_moon": 1.0}}
    digest = rewrite_manifest(storage, version, manifest)
    with pytest.raises(InvalidModel, match="phase_of_the_moon"):
        load_model(ArtifactFolder.at(uri), manifest_sha256=digest)


def test_what_was_judged_in_its_place_is_kept_beside_a_model(storage: Storage) -> None:
    holdout_model = make_model(30, seed=1)
    gate = GateRecord(decision=Decision.PUBLISHED, cut="2026-11-15T00:00:00Z")
    version, uri, digest = save(storage, make_model(), gate=gate, holdout_model=make_draft(holdout_model))
    manifest = ModelStore(storage).manifest(version)
    assert manifest.gate == gate
    loaded = load_holdout_model(ArtifactFolder.at(uri), manifest)
    assert loaded is not None
    np.testing.assert_array_equal(loaded.item_factors, holdout_model.item_factors)
    assert ModelStore(storage).versions() == [version]
    storage.delete(f"models/{version}/before-holdout")
    load_model(ArtifactFolder.at(uri), manifest_sha256=digest)  # consumers do not need it
    with pytest.raises(InvalidModel):
        load_holdout_model(ArtifactFolder.at(uri), manifest)


def test_a_model_that_was_not_judged_has_no_twin(storage: Storage) -> None:
    version, uri, _ = save(storage, make_model())
    assert load_holdout_model(ArtifactFolder.at(uri), ModelStore(storage).manifest(version)) is None


def test_what_can_be_judged_is_the_twin_or_what_ends_before(storage: Storage) -> None:
    store, holdout_model = ModelStore(storage), replace(make_model(seed=1), reference_s=100)
    rejected = GateRecord(decision=Decision.REJECTED)
    made = replace(make_model(), reference_s=200)
    version, _, _ = save(storage, made, holdout_model=make_draft(holdout_model))
    alone, _, _ = save(storage, made)
    refused, _, _ = save(storage, made, gate=rejected)

    def judged(version: str, cut_s: int) -> str:
        found = store.model_for_holdout(version, cut_s=cut_s)
        return "" if found is None else found.version

    assert [judged(version, cut_s) for cut_s in (99, 100, 200, 201)] == [
        "",
        *[f"{version}/before-holdout"] * 2,
        version,
    ]
    assert [judged(alone, cut_s) for cut_s in (200, 201)] == ["", alone]
    assert [judged(refused, cut_s) for cut_s in (199, 200)] == ["", refused]
    storage.delete(f"models/{version}/before-holdout/item_factors.npy")
    assert [judged(version, cut_s) for cut_s in (200, 201)] == ["", version]  # a damaged holdout_model


def test_a_storage_that_cannot_be_read_now_is_no_damaged_model(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, _, _ = save(storage, make_model(), holdout_model=make_draft(make_model()))

    def away(self: Storage, relative: str) -> bytes:
        raise DataDirError("timed out")

    monkeypatch.setattr(Storage, "opened", away)
    with pytest.raises(DataDirError, match="timed out"):
        ModelStore(storage).model_for_holdout(version, cut_s=10**10)


def test_a_version_that_is_not_there_is_named_with_one_that_is(storage: Storage) -> None:
    store = ModelStore(storage)
    with pytest.raises(InvalidModel, match=r"no model v1 .*there is none yet"):
        store.manifest("v1")
    version, _, _ = save(storage, make_model())
    with pytest.raises(InvalidModel, match=rf"no model v1 .*the newest is {version}"):
        store.manifest("v1")


def test_rejected_versions_are_kept_apart(storage: Storage) -> None:
    store = ModelStore(storage)
    rejected = GateRecord(decision=Decision.REJECTED, reasons=["worse"])
    made = [
        save(storage, make_model(seed=seed), AT + timedelta(hours=seed), gate=rejected if seed % 2 else None)[0]
        for seed in range(8)
    ]
    assert [store.is_rejected(version) for version in made] == [False, True] * 4
    live = made[4]
    assert store.unpublished(live=live, published_at=AT + timedelta(hours=4)) == [made[6]]
    assert store.prune(keep=2, live=live) == [made[0], made[2], made[1], made[3]]
    assert store.versions() == made[4:]


def test_a_local_model_is_memory_mapped(tmp_path: Path) -> None:
    _, uri, digest = save(Storage(str(tmp_path)), make_model())
    assert isinstance(load_model(ArtifactFolder.at(uri), manifest_sha256=digest).item_factors, np.memmap)


def test_loading_a_model_imports_no_library_that_only_other_services_need(tmp_path: Path) -> None:
    _, uri, digest = save(Storage(str(tmp_path)), make_model())
    code = (
        "import sys, consumer.main\n"
        "from recsys.lists.live_model import prepare\n"
        "from recsys.storage.artifact import ArtifactFolder, load_model\n"
        f"prepare(load_model(ArtifactFolder.at({uri!r}), manifest_sha256={digest!r}))\n"
        "others = {'implicit', 'joblib', 'pandas', 'pyarrow.dataset', 'sklearn', 'typer'}\n"
        "print(sorted(others & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_the_version_carries_the_time_and_the_manifest_pins_every_file(storage: Storage) -> None:
    model = make_model()
    version, uri, digest = save(storage, model, AT.astimezone().replace(microsecond=999))
    assert version.startswith("20261122T101500Z-")
    assert uri.endswith(f"/models/{version}")
    content = storage.read_file(f"models/{version}/manifest.json")
    assert hashlib.sha256(content).hexdigest() == digest
    manifest = json.loads(content)
    assert manifest["version"] == version
    assert (manifest["alpha"], manifest["regularization"]) == (model.alpha, model.regularization)
    assert (manifest["factors"], manifest["iterations"], manifest["seed"]) == (6, 15, 7)
    assert manifest["counts"] == {"users": 3, "items": 40, "events": 99, "pairs": 50}
    assert Manifest.model_validate_json(content).archive == {"topic-id": {0: 12, 3: 7}}
    assert set(manifest["files"]) == set(FILES)
    for name, record in manifest["files"].items():
        file = storage.read_file(f"models/{version}/{name}")
        assert (len(file), hashlib.sha256(file).hexdigest()) == (record["size_bytes"], record["sha256"])
    assert manifest["files"]["item_factors.npy"]["shape"] == [40, 6]
    assert manifest["files"]["item_factors.npy"]["dtype"] == "float32"


def test_other_programs_can_read_the_artifact(storage: Storage) -> None:
    model = make_model()
    version, _, _ = save(storage, model)
    items = pq.read_table(io.BytesIO(storage.read_file(f"models/{version}/items.parquet")))
    assert items.to_pydict() == {
        "item_id": list(model.items.ids), "buyers": list(range(40)), "popularity": [item / 2 for item in range(40)],
    }  # fmt: skip
    assert json.loads(storage.read_file(f"models/{version}/popular.json")) == {
        "items": [{"item_id": "item-0000", "score": 9.0}, {"item_id": "item-0001", "score": 4.0}]
    }


@pytest.mark.parametrize("place", [0, 40, -1])
@pytest.mark.parametrize("name", ALL_FILES)
def test_a_flipped_bit_in_any_file_is_refused(storage: Storage, name: str, place: int) -> None:
    version, uri, digest = save(storage, make_model())
    content = bytearray(storage.read_file(f"models/{version}/{name}"))
    content[place] ^= 1
    overwrite(storage, version, name, bytes(content))
    with pytest.raises(InvalidModel, match=name):
        load_model(ArtifactFolder.at(uri), manifest_sha256=digest)


@pytest.mark.parametrize("name", ALL_FILES)
@pytest.mark.parametrize("kept", [0, 10, -1])
def test_a_truncated_file_is_refused(storage: Storage, name: str, kept: int) -> None:
    version, uri, digest = save(storage, make_model())
    overwrite(storage, version, name, storage.read_file(f"models/{version}/{name}")[:kept])
    with pytest.raises(InvalidModel, match=name):
        load_model(ArtifactFolder.at(uri), manifest_sha256=digest)


@pytest.mark.parametrize("name", ALL_FILES)
def test_a_missing_file_is_refused(storage: Storage, name: str) -> None:
    version, uri, digest = save(storage, make_model())
    storage.delete(f"models/{version}/{name}")
    with pytest.raises(InvalidModel):
        load_model(ArtifactFolder.at(uri), manifest_sha256=digest)


def test_a_missing_folder_is_refused(storage: Storage) -> None:
    with pytest.raises(InvalidModel):
        load_model(ArtifactFolder.at(storage.uri("models/20261122T101500Z-1a2b3c")), manifest_sha256="0" * 64)


def test_an_address_that_nothing_can_open_is_refused() -> None:
    with pytest.raises(DataDirError, match="cannot be opened"):
        ArtifactFolder.at("no-such-protocol://bucket/models/x")


def test_a_manifest_other_than_the_published_one_is_refused(storage: Storage) -> None:
    version, uri, digest = save(storage, make_model())
    manifest = json.loads(storage.read_file(f"models/{version}/manifest.json"))
    changed = rewrite_manifest(storage, version, manifest | {"alpha": 40.0})
    with pytest.raises(InvalidModel, match="sha256"):
        load_model(ArtifactFolder.at(uri), manifest_sha256=digest)
    assert load_model(ArtifactFolder.at(uri), manifest_sha256=changed).alpha == 40.0


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"format_version": 2}, "format version"),
        ({"alpha": "much"}, "alpha"),
        ({"alpha": -1.0}, "alpha"),
        ({"regularization": 0.0}, "regularization"),
        ({"regularization": None}, "regularization"),
        ({"files": None}, "files"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(storage: Storage, changes: dict[str, object], problem: str) -> None:
    version, uri, _ = save(storage, make_model())
    manifest = json.loads(storage.read_file(f"models/{version}/manifest.json"))
    digest = rewrite_manifest(storage, version, manifest | changes)
    with pytest.raises(InvalidModel, match=problem):
        load_model(ArtifactFolder.at(uri), manifest_sha256=digest)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b"\xff\xfe", b"{", b"[" * 100_000])
def test_a_manifest_that_is_not_one_is_refused(storage: Storage, content: bytes) -> None:
    version, uri, _ = save(storage, make_model())
    overwrite(storage, version, "manifest.json", content)
    with pytest.raises(InvalidModel):
        load_model(ArtifactFolder.at(uri), manifest_sha256=hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("name", ["item_factors.npy", "item_gram.npy"])
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(npy(np.array([[Bomb()]], dtype=object), allow_pickle=True), id="objects"),
        pytest.param(pickle.dumps(Bomb()), id="pickle"),
        pytest.param(npz(), id="npz"),
        pytest.param(b"PK\x03\x04 is no zip file", id="broken zip"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\x93NUMPY", id="magic alone"),
        pytest.param(npy_header("(40, 6)"), id="no data"),
        pytest.param(npy_header("(4000000000000, 6)"), id="enormous"),
        pytest.param(npy_header("(-40, 6)"), id="negative shape"),
        pytest.param(npy_header("(40, 6"), id="broken header"),
        pytest.param(npy(np.float32(1.0)), id="scalar"),
        pytest.param(npy(np.ones((40, 6), np.float64)), id="float64"),
        pytest.param(npy(np.ones((39, 5), np.float32)), id="wrong shape"),
        pytest.param(npy(np.full((40, 6), np.nan, np.float32)), id="NaN"),
        pytest.param(npy(np.array([[("a", 1.0)]], dtype=[("x", "U1"), ("y", "<f4")])), id="records"),
    ],
)
def test_an_array_that_was_tampered_with_is_refused_and_runs_no_code(
    storage: Storage, name: str, content: bytes
) -> None:
    version, uri, _ = save(storage, make_model())
    digest = forge(storage, version, name, content)
    with pytest.raises(InvalidModel):
        load_model(ArtifactFolder.at(uri), manifest_sha256=digest)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"PAR1 is no parquet file PAR1", id="broken"),
        pytest.param(items_parquet([f"{row:02d}" for row in range(40)], "other"), id="no item_id"),
        pytest.param(items_parquet([f"{row:02d}" for row in range(39)]), id="too few"),
        pytest.param(items_parquet([f"{row:02d}" for row in reversed(range(40))]), id="not sorted"),
        pytest.param(items_parquet([None, *(f"{row:02d}" for row in range(39))]), id="null"),
        pytest.param(items_parquet(range(40)), id="numbers"),
        pytest.param(items_parquet([[row] for row in range(40)]), id="lists"),
    ],
)
def test_item_ids_that_were_tampered_with_are_refused(storage: Storage, content: bytes) -> None:
    version, uri, _ = save(storage, make_model())
    digest = forge(storage, version, "items.parquet", content)
    with pytest.raises(InvalidModel):
        load_model(ArtifactFolder.at(uri), manifest_sha256=digest)


@pytest.mark.parametrize("name", ["item_factors.npy", "item_gram.npy", "items.parquet"])
def test_a_file_that_the_manifest_does_not_pin_is_refused(storage: Storage, name: str) -> None:
    version, uri, _ = save(storage, make_model())
    manifest = json.loads(storage.read_file(f"models/{version}/manifest.json"))
    del manifest["files"][name]
    digest = rewrite_manifest(storage, version, manifest)
    with pytest.raises(InvalidModel):
        load_model(ArtifactFolder.at(uri), manifest_sha256=digest)


def test_every_refusal_is_one_line(storage: Storage) -> None:
    version, uri, _ = save(storage, make_model())
    digest = forge(storage, version, "items.parquet", items_parquet([f"{row:02d}" for row in range(40)], "other"))
    with pytest.raises(InvalidModel) as caught:
        load_model(ArtifactFolder.at(uri), manifest_sha256=digest)
    assert "\n" not in str(caught.value)
    assert uri in str(caught.value)


def saved_versions(storage: Storage, count: int) -> list[str]:
    return [save(storage, make_model(seed=day), AT + timedelta(days=day))[0] for day in range(count)]


def test_versions_are_listed_oldest_first(storage: Storage) -> None:
    versions = saved_versions(storage, 3)
    assert ModelStore(storage).versions() == versions
    assert versions == sorted(versions)


def test_an_empty_store_has_no_versions(storage: Storage) -> None:
    assert ModelStore(storage).versions() == []
    assert ModelStore(storage).prune(keep=2, live="none") == []


@pytest.mark.parametrize(
    ("keep", "live", "kept"),
    [(2, 4, [3, 4]), (3, 4, [2, 3, 4]), (5, 4, [0, 1, 2, 3, 4]), (9, 0, [0, 1, 2, 3, 4]), (2, 0, [0, 4]), (1, 4, [4])],
)
def test_prune_keeps_the_live_version_and_the_newest(storage: Storage, keep: int, live: int, kept: list[int]) -> None:
    versions = saved_versions(storage, 5)
    deleted = ModelStore(storage).prune(keep=keep, live=versions[live])
    remaining = [versions[place] for place in kept]
    assert ModelStore(storage).versions() == remaining
    assert sorted(deleted) == sorted(set(versions) - set(remaining))
    for version in deleted:
        assert storage.files(f"models/{version}", "") == []


def test_pruning_again_deletes_nothing(storage: Storage) -> None:
    versions = saved_versions(storage, 4)
    ModelStore(storage).prune(keep=2, live=versions[1])
    assert ModelStore(storage).prune(keep=2, live=versions[1]) == []


@pytest.mark.parametrize("later", [timedelta(days=-1), timedelta(0), timedelta(milliseconds=5)])
def test_a_new_version_sorts_after_all_others_whatever_the_clock_says(storage: Storage, later: timedelta) -> None:
    versions = saved_versions(storage, 2)
    for number in range(8):  # the digests after the time would sort by chance
        versions.append(save(storage, make_model(seed=100 + number), AT + timedelta(days=1) + later)[0])
    assert versions == sorted(set(versions))
    assert ModelStore(storage).versions() == versions


def test_the_newest_version_outlives_older_ones_when_the_clock_was_set_back(storage: Storage) -> None:
    saved_versions(storage, 4)
    first, _, _ = save(storage, make_model(seed=8), AT - timedelta(days=1))
    second, _, _ = save(storage, make_model(seed=9), AT - timedelta(days=1))
    ModelStore(storage).prune(keep=2, live=second)
    assert ModelStore(storage).versions() == [first, second]


def test_the_same_content_in_the_same_second_is_a_version_of_its_own(storage: Storage) -> None:
    (one, _, first), (other, uri, second) = save(storage, make_model()), save(storage, make_model())
    assert one != other
    assert first != second
    assert load_model(ArtifactFolder.at(uri), manifest_sha256=second).version == other


def test_versions_that_never_were_live_are_those_written_after_the_live_one_was_published(storage: Storage) -> None:
    store, versions = ModelStore(storage), saved_versions(storage, 4)
    minute = timedelta(minutes=1)
    assert store.unpublished(live=versions[3], published_at=AT + timedelta(days=3) + minute) == []
    assert store.unpublished(live=versions[1], published_at=AT + timedelta(days=1) + minute) == versions[2:]
    rolled_back = AT + timedelta(days=3) + minute  # to an older one: what was live in between is kept
    assert store.unpublished(live=versions[1], published_at=rolled_back) == []


def test_removed_versions_are_gone_with_all_their_files(storage: Storage) -> None:
    store, versions = ModelStore(storage), saved_versions(storage, 4)
    store.remove(versions[1:3])
    assert store.versions() == [versions[0], versions[3]]
    assert storage.files(f"models/{versions[1]}", "") == []


def test_what_a_crashed_save_left_is_no_version_and_is_removed(tmp_path: Path) -> None:
    store = ModelStore(Storage(str(tmp_path)))
    (version,) = saved_versions(Storage(str(tmp_path)), 1)
    leftover = tmp_path / "models" / "20261123T101500Z-abcdef.tmp"
    leftover.mkdir()
    (leftover / "manifest.json").write_bytes(b"{}")
    assert store.versions() == [version]
    store.remove_temporaries()
    assert not leftover.exists()
    assert store.versions() == [version]


def test_a_save_that_fails_leaves_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(DataDirError, match="No space left"):
        save(Storage(str(tmp_path)), make_model())
    assert ModelStore(Storage(str(tmp_path))).versions() == []
    assert list((tmp_path / "models").iterdir()) == []
