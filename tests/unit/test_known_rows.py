"""Very many identities of purchases, in memory and on disk, beside plain sets and lists."""

from __future__ import annotations

import random
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from recsys.data.event import Event
from recsys.errors import InputFileError
from recsys.operations import hash_runs, known_rows
from recsys.operations.hash_runs import HashRuns
from recsys.operations.known_rows import IN_TOPIC, NEW, REPEATED, Identities, KnownRows
from recsys.storage.archive import Archive
from recsys.storage.files import Storage
from recsys.storage.segments import Segment
from tests.builders import NOON_MS, make_event


@pytest.fixture(params=["memory", "disk"])
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With small bounds, a few hundred hashes already go to disk, in many pieces."""
    if request.param == "disk":
        monkeypatch.setattr(hash_runs, "_IN_MEMORY_BYTES", 256)
        monkeypatch.setattr(hash_runs, "_MAPPED_BYTES", 512)
        monkeypatch.setattr(hash_runs, "_MERGED_AT_ONCE", 40)
    return str(request.param)


def hashes(rng: random.Random, count: int) -> np.ndarray:
    """Return some hashes, of which many are there more than once, and the least and the greatest."""
    values = [rng.getrandbits(64) for _ in range(count // 2)] + [0, 2**64 - 1]
    return np.array(rng.choices(values, k=count), np.uint64)


def is_on_disk(runs: HashRuns) -> bool:
    return any(run.hashes._map is not None for run in runs._runs)


@pytest.mark.parametrize("seed", range(4))
def test_a_set_says_what_was_met_before(where: str, seed: int) -> None:
    rng, runs, expected = random.Random(seed), HashRuns(), set()
    for _ in range(30):
        batch = hashes(rng, rng.randrange(0, 60))
        known = []
        for value in batch.tolist():
            known.append(value in expected)
            expected.add(value)
        assert runs.meet(batch).tolist() == known
        asked = np.concatenate([batch, hashes(rng, 20)])
        assert runs.contains(asked).tolist() == [value in expected for value in asked.tolist()]
    assert is_on_disk(runs) == (where == "disk")
    assert len(runs._runs) < 12


@pytest.mark.parametrize("seed", range(4))
def test_equal_hashes_stay_in_the_order_in_which_they_came(where: str, seed: int) -> None:
    rng, runs, came = random.Random(seed), HashRuns(), []
    for place in range(25):
        batch = hashes(rng, 30) & np.uint64(rng.choice([2**64 - 1, 0xF << 60]))
        runs.add(batch, np.full(len(batch), place, np.int32))
        came += [(value, place) for value in batch.tolist()]
    found = runs.in_one()
    expected = sorted(came, key=lambda entry: entry[0])
    values, places = found.at(np.arange(len(found)))
    assert list(zip(values.tolist(), places.tolist(), strict=True)) == expected
    asked = np.concatenate([values[::7], hashes(rng, 40)])
    starts, there = found.find(asked)
    ordered = [value for value, _ in expected]
    assert there.tolist() == [value in set(ordered) for value in asked.tolist()]
    assert starts.tolist() == [sum(one < value for one in ordered) for value in asked.tolist()]


def test_nothing_is_in_an_empty_set(where: str) -> None:
    assert not HashRuns().contains(hashes(random.Random(0), 9)).any()
    assert not HashRuns().in_one().find(hashes(random.Random(0), 9))[1].any()


def test_nothing_added_makes_no_run(where: str) -> None:
    """Each look goes through all runs: an archive of a thousand segments with ids would have as many empty ones."""
    runs, some = HashRuns(), hashes(random.Random(1), 9)
    for _ in range(5):
        runs.add(hashes(random.Random(0), 0))
        runs.meet(some)
    assert [len(run) for run in runs._runs] == [len(set(some.tolist()))]


def test_a_temporary_folder_that_cannot_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_runs, "_IN_MEMORY_BYTES", 256)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(InputFileError, match=r"cannot be kept in .*/nowhere: No such file .* set TMPDIR to"):
        HashRuns().add(hashes(random.Random(0), 100))


def random_events(rng: random.Random, count: int) -> list[Event]:
    """Return purchases of which many are equal, or have the same id."""
    return [
        make_event(
            f"u{rng.randrange(4)}", f"i{rng.randrange(3)}", timestamp=NOON_MS + 1000 * rng.randrange(3),
            event_id=rng.choice([None, None, f"e{rng.randrange(60)}"]),
        )
        for _ in range(count)
    ]  # fmt: skip


def expected_of(archived: list[tuple[str, int, Event]], batches: list[list[Event]]) -> list[list[int]]:
    """Say where each row is known, slowly."""
    left: dict[object, list[int]] = defaultdict(list)
    ids: dict[object, int] = {}
    in_topic, met = set(), set()
    for source, place, event in archived:
        if event.event_id is not None:
            if source.startswith("import-"):
                ids.setdefault((event.user_id, event.event_id), place)
            else:
                in_topic.add((event.user_id, event.event_id))
        elif source.startswith("import-"):
            left[event.user_id, event.item_id, event.timestamp].append(place)
    expected = []
    for batch in batches:
        found = []
        for event in batch:
            key = (event.user_id, event.event_id)
            if event.event_id is None:
                places = left[event.user_id, event.item_id, event.timestamp]
                found.append(places.pop(0) if places else NEW)
            else:
                found.append(
                    ids[key] if key in ids else REPEATED if key in met else IN_TOPIC if key in in_topic else NEW
                )
                met.add(key)
        expected.append(found)
    return expected


@pytest.mark.parametrize("seed", range(4))
def test_rows_are_known_where_a_slow_search_finds_them(
    where: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_rows, "_LARGE", 3)
    rng, archive = random.Random(seed), Archive(Storage(str(tmp_path)))
    archived: list[tuple[str, int, Event]] = []
    segments = []
    for place in range(12):
        source = rng.choice(["import-a", "import-b", "topic"])
        rows = list(enumerate(random_events(rng, 40), 1))
        segments.append(Segment("20260101T000000.000000Z", source, place, 1, 40))
        archive.write(segments[-1], rows)
        archived += [(source, place, event) for _, event in rows]
    known = KnownRows(archive, segments, lambda _: None)
    batches = [random_events(rng, 50) for _ in range(10)]
    assert [known.find(Identities.of_events(batch)).tolist() for batch in batches] == expected_of(archived, batches)
