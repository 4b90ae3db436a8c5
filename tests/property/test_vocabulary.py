from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.epoch import LAST_MS
from recsys.data.history import Entry, History, read_histories
from recsys.data.vocabulary import Texts, Vocabulary
from tests.builders import texts

units = st.integers(-(4 * 10**15), 4 * 10**15) | st.integers(-3, 3).map(lambda n: n * 10**6) | st.integers(-99, 99)
seconds = st.integers(0, LAST_MS // 1000)
entry = st.builds(
    lambda units, newest_s, span_s, purchases: Entry(units, newest_s, max(0, newest_s - span_s), purchases),
    units,
    seconds,
    st.just(0) | seconds,
    st.just(1) | st.integers(0, 10**6),
)
entries = st.dictionaries(texts(8) | st.sampled_from("abc|,{}"), entry, max_size=12)


@settings(deadline=None)
@given(st.sets(texts(6), max_size=60), st.sets(texts(6), max_size=10))
def test_every_id_is_found_at_its_row_and_no_other_is(known: set[str], others: set[str]) -> None:
    vocabulary = Vocabulary.of(known)
    asked = [*vocabulary.ids, *others]
    assert vocabulary.find(asked).tolist() == [vocabulary.rows.get(id_, -1) for id_ in asked]


def test_many_ids_are_found() -> None:
    vocabulary = Vocabulary.of(f"{number:x}" for number in range(50_000))
    assert np.array_equal(vocabulary.find(vocabulary.ids), np.arange(50_000))
    assert vocabulary.find(["", "-1", "c350"]).tolist() == [-1, -1, -1]


def test_a_vocabulary_may_be_empty() -> None:
    assert Vocabulary([]).find(["a"]).tolist() == [-1]
    assert Vocabulary([]).quoted.bounds.tolist() == [0]


@given(st.sets(texts(6) | st.sampled_from(['"', ",", '",', "\\", "ü"]), max_size=20))
def test_ids_are_joined_in_order_as_they_are_and_as_json(ids: set[str]) -> None:
    vocabulary = Vocabulary.of(ids)
    assert _parts(vocabulary.encoded) == [id_.encode() for id_ in vocabulary.ids]
    assert [json.loads(text) for text in _parts(vocabulary.quoted)] == vocabulary.ids


def _parts(joined: Texts) -> list[bytes]:
    return [joined.data[first:last].tobytes() for first, last in pairwise(joined.bounds.tolist())]


@settings(deadline=None)
@given(st.lists(entries, max_size=5), st.sets(texts(8), max_size=9))
def test_compiled_reading_finds_what_the_columns_say(made_of: list[dict[str, Entry]], known: set[str]) -> None:
    items = Vocabulary.of(known.union(*(list(one)[::2] for one in made_of)))
    histories = [History.of(one) for one in made_of]
    owned = read_histories(histories, items)
    assert owned.starts[0] == 0
    assert len(owned) == len(histories)
    for user, history in enumerate(histories):
        assert history.entries == made_of[user]
        expected = sorted(
            (items.rows[item], list(entry))
            for item, entry in history.entries.items()
            if entry.units > 0 and item in items.rows
        )
        part = slice(owned.starts[user], owned.starts[user + 1])
        assert list(zip(owned.rows[part].tolist(), owned.entries[part].tolist(), strict=True)) == expected


@pytest.mark.parametrize(
    "text", [b"a", b"a\n", b"\n", b"\n\n\n", b"a\n|", b"a\nx|1\nb", b"a\n2", b"a\n2|1\n", b"a\n-", b"|"]
)
def test_a_damaged_history_is_read_as_far_as_it_goes_and_no_further(text: bytes) -> None:
    whole = History.of({"b": Entry(10**6, 5, 4, 2)})
    owned = read_histories([whole, History(text), whole], Vocabulary(["a", "b"]))
    expected = (1, [10**6, 5, 4, 2])
    assert (owned.rows[0], owned.entries[0].tolist()) == (owned.rows[-1], owned.entries[-1].tolist()) == expected
    assert owned.starts[1] == 1
    assert owned.starts[3] - owned.starts[2] == 1
