from __future__ import annotations

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from recsys.kafka.letters import PREFIX, Letter

ABOUT = [(f"{PREFIX}topic", b"purchases"), (f"{PREFIX}partition", b"3"), (f"{PREFIX}offset", b"17")]
header = st.tuples(st.text(min_size=1, max_size=40), st.none() | st.binary(max_size=3_000))


def added(letter: Letter, name: str) -> bytes:
    value = dict(letter.about)[PREFIX + name]
    assert isinstance(value, bytes)
    return value


def test_a_cut_letter_holds_key_headers_and_head_and_says_what_is_left_out() -> None:
    value = bytes(range(256)) * 8_000
    whole = Letter(b"42", value, [("trace", b"abc"), ("blob", b"x" * 50_000), ("tenant", b"7")], ABOUT)
    cut = whole.cut_to(4_096)
    assert cut.size <= 4_096
    assert (cut.key, cut.headers) == (b"42", [("trace", b"abc"), ("tenant", b"7")])
    assert cut.value is not None
    assert value.startswith(cut.value)
    assert len(cut.value) > 3_000
    assert added(cut, "value.size") == b"2048000"
    assert added(cut, "value.sha256") == sha256(value).hexdigest().encode()
    assert cut.left_out == f"the value from byte {len(cut.value):,} on; the headers blob"
    assert added(cut, "topic") == b"purchases"  # where the whole record is, so that it can be read again


def test_all_that_fits_is_kept() -> None:
    headers = [(f"h{n}", b"x" * 1_000) for n in range(200)]
    cut = Letter(b"42", b"v" * 2_000_000, headers, ABOUT).cut_to(983_040)
    assert list(cut.headers) == headers
    assert len(cut.value or b"") == 65_536


def test_a_key_that_is_too_large_is_left_out_and_named() -> None:
    cut = Letter(b"k" * 2_000_000, b"value", [], ABOUT).cut_to(4_096)
    assert (cut.key, cut.value) == (None, b"value")
    assert cut.left_out == "the key of 2,000,000 bytes"


def test_a_tombstone_stays_one() -> None:
    assert Letter(b"42", None, [("blob", b"x" * 9_000)], ABOUT).cut_to(4_096).value is None


@given(
    key=st.none() | st.binary(max_size=2_000),
    value=st.none() | st.binary(max_size=5_000),
    headers=st.lists(header, max_size=30),
    most=st.sampled_from([1_024, 4_096, 15_360]),
)
def test_no_cut_letter_is_larger_than_asked(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]], most: int
) -> None:
    assert Letter(key, value, headers, ABOUT).cut_to(most).size <= most
