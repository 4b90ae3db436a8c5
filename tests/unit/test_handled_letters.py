from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import DataDirError
from recsys.storage.files import Storage
from recsys.storage.handled_letters import Handled, HandledLetters, Mark, OffsetRanges

ranges = st.tuples(st.integers(0, 40), st.integers(1, 6)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(added=st.lists(ranges, max_size=20), below=st.integers(0, 50))
def test_ranges_are_a_set_of_offsets(added: list[tuple[int, int]], below: int) -> None:
    found, expected = OffsetRanges(), set[int]()
    for first, end in added:
        found.add(first, end)
        expected |= set(range(first, end))
    assert [offset for offset in range(60) if offset in found] == sorted(expected)
    assert len(found) == len(expected)
    pairs = list(found)
    assert all(end < first for (_, end), (first, _) in pairwise(pairs)), "none touch"
    found.remove_below(below)
    assert [offset for offset in range(60) if offset in found] == sorted(
        offset for offset in expected if offset >= below
    )


REDRIVEN, PURGED, BEGUN = Mark(Handled.REDRIVEN, "a"), Mark(Handled.PURGED), Mark(Handled.BEGUN, "b")


def test_what_is_done_is_kept_for_one_topic_and_forgotten_with_its_letters(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    letters = HandledLetters(storage, "an id")
    assert letters.mark(0, 0) is None
    for offset in range(1_000):
        letters.add(BEGUN, 0, offset)
    for offset in range(700):
        letters.add(REDRIVEN, 0, offset)
    letters.add(PURGED, 1, 7)
    letters.write({0: 500})
    again = HandledLetters(storage, "an id")
    assert [again.mark(0, offset) for offset in (499, 500, 699, 700, 1_000)] == [None, REDRIVEN, REDRIVEN, BEGUN, None]
    assert again.mark(1, 7) == PURGED
    again.add(PURGED, 0, 700)
    assert again.mark(0, 700) == PURGED
    assert (again.readings(0, 500), again.readings(0, 700), again.readings(1, 7)) == ({"a", "b"}, {"b"}, set())
    assert HandledLetters(storage, "created again").mark(1, 7) is None


def test_one_process_at_a_time_handles_letters_and_knows_what_others_did(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    one, other = HandledLetters(storage, "an id"), HandledLetters(storage, "an id")
    with one.exclusively():
        with pytest.raises(DataDirError, match="another process redrives or purges"), other.exclusively():
            pass
        one.add(PURGED, 0, 0)
        one.write({})
    with other.exclusively():
        other.add(PURGED, 0, 1)
        other.write({})
    found = HandledLetters(storage, "an id")
    assert [found.mark(0, offset) for offset in (0, 1)] == [PURGED, PURGED]


@pytest.mark.parametrize("content", [b"", b"no parquet", b"PAR1PAR1"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    storage = Storage(str(tmp_path))
    letters = HandledLetters(storage, "an id")
    letters.add(PURGED, 0, 0)
    letters.write({})
    (file,) = (tmp_path / "dead-letters").glob("*.parquet")
    file.write_bytes(content)
    with pytest.raises(DataDirError, match="is damaged; remove it"):
        HandledLetters(storage, "an id")
