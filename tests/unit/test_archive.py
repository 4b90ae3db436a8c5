from __future__ import annotations

import uuid
from collections import defaultdict
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from recsys.data.epoch import epoch_ms
from recsys.data.event import Event, EventOfLine, EventType
from recsys.errors import DataDirError
from recsys.operations.losses import archived_compacted
from recsys.storage.archive import Archive
from recsys.storage.files import Storage
from recsys.storage.segments import SCHEMA, Segment, event_table, events_of
from tests.builders import NOON_MS, make_event, make_forget, make_return

AT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
Placed = tuple[int, Event]


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def archive(storage: Storage) -> Archive:
    return Archive(storage)


class CrashingStorage(Storage):
    """Crashes instead of writing once it has written so many files."""

    def __init__(self, url: str, writes_left: int) -> None:
        super().__init__(url)
        self.writes_left = writes_left

    def write_file(self, relative: str, content: bytes, *, fail_point: str | None = None) -> None:
        if self.writes_left == 0:
            raise KeyboardInterrupt
        self.writes_left -= 1
        super().write_file(relative, content, fail_point=fail_point)


def write(
    archive: Archive, *events: Event, first: int = 0, round_: str = "r1", source: str = "t", partition: int = 0
) -> Segment:
    segment = Segment(round_, source, partition, first, first + len(events) - 1)
    archive.write(segment, list(enumerate(events, start=first)))
    return segment


def quantities(archive: Archive) -> dict[tuple[str, str], float]:
    interactions = archive.events().interactions()
    matrix = interactions.quantities.toarray()
    users, items = interactions.users.ids, interactions.items.ids
    return {(users[row], items[column]): float(matrix[row, column]) for row, column in np.argwhere(matrix > 0).tolist()}


def rows(archive: Archive) -> dict[Segment, list[tuple[int, str, str]]]:
    """(offset, user, type) of every row."""
    found = {}
    for segment in archive.segments():
        table = archive.read(segment, ["offset", "user_id", "type"]).to_pylist()
        found[segment] = [(row["offset"], row["user_id"], row["type"]) for row in table]
    return found


@pytest.mark.parametrize(
    "segment",
    [
        Segment("20261122T120000.000000Z", "AbC-_09xyz", 0, 0, 0),
        Segment("20261122T120000.000000Z~", "purchases@mockCluster1", 12345, 7, 10**18),
        Segment("r", "import-0123456789abcdef", 0, 1, 100_000),
    ],
)
def test_a_segment_is_told_by_its_name(segment: Segment) -> None:
    assert Segment.of_path(segment.path) == segment
    assert segment.path.startswith(f"archive/purchases/{segment.round}/{segment.source}+")


@pytest.mark.parametrize(
    "path",
    [
        "archive/purchases/x.parquet",
        "archive/purchases/r/x.parquet",
        "archive/purchases/r/t+0+5.parquet",
        "archive/purchases/r/t+zero+0-5.parquet",
        "archive/purchases/r/t+0+0-5-9.parquet",
        "archive/purchases/r/t+0+a-b.parquet",
    ],
)
def test_a_foreign_file_is_named_in_the_error(path: str) -> None:
    with pytest.raises(DataDirError, match=path.rsplit("/", 1)[1].replace("+", r"\+")):
        Segment.of_path(path)


def test_a_foreign_file_in_the_archive_is_a_storage_error(storage: Storage, archive: Archive) -> None:
    storage.write_file("archive/purchases/r1/copy of something.parquet", b"")
    with pytest.raises(DataDirError, match="copy of something"):
        archive.segments()


def test_segments_and_their_paths_sort_in_order_of_arrival() -> None:
    segments = [
        Segment("20261122T120000.000000Z", "t", 0, 5, 9),
        Segment("20261122T120000.000000Z", "t", 0, 10, 99),
        Segment("20261122T120000.000000Z", "t", 2, 0, 3),
        Segment("20261122T120000.000000Z", "t", 10, 0, 3),
        Segment("20261122T120000.000000Z~", "t", 0, 100, 100),
        Segment("20261122T120000.000001Z", "s", 0, 1000, 1000),
    ]
    assert sorted(reversed(segments)) == segments
    assert sorted(segment.path for segment in segments) == [segment.path for segment in segments]


def test_segments_are_found_in_order_of_arrival(archive: Archive) -> None:
    later = write(archive, make_event(), first=3, round_="r2")
    second = write(archive, make_event(), first=0, round_="r1", partition=1)
    first = write(archive, make_event(), make_event(), make_event(), first=0, round_="r1")
    assert archive.segments() == [first, second, later]


def test_an_archive_that_is_not_there_is_empty(archive: Archive) -> None:
    assert archive.segments() == []
    assert archive.positions() == {}
    assert list(archive.tables(["user_id"])) == []
    assert archive.erase_forgotten() == 0
    events = archive.events()
    interactions = events.interactions()
    assert (len(interactions.users), len(interactions.items), len(events)) == (0, 0, 0)


def test_what_is_written_is_read(archive: Archive) -> None:
    events = [
        make_event("u", "a", 2.5, price=3.5, event_id="e1", timestamp=NOON_MS + 123),
        make_return("é😀", "b", 0.1),
        make_forget("u", timestamp=0),
        EventOfLine(user_id="u", item_id="a", timestamp=NOON_MS, line=3),
    ]
    segment = write(archive, *events, first=7)
    table = archive.read(segment)
    assert table.schema.equals(SCHEMA)
    assert table.to_pylist() == [
        {
            "offset": offset,
            "type": event.type.value,
            "user_id": event.user_id,
            "item_id": event.item_id,
            "quantity": event.quantity,
            "price": event.price,
            "timestamp": datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=event.timestamp),
            "event_id": event.event_id,
            "line": event.line if isinstance(event, EventOfLine) else None,
        }
        for offset, event in enumerate(events, start=7)
    ]
    assert events_of(table) == list(enumerate(events, start=7))
    assert archive.read(segment, ["user_id"]).column_names == ["user_id"]
    assert event_table([]).num_rows == 0


def test_tables_come_in_order_of_arrival(archive: Archive) -> None:
    write(archive, make_event("second"), round_="r2", first=1)
    write(archive, make_event("first"), round_="r1")
    assert [table["user_id"].to_pylist() for table in archive.tables(["user_id"])] == [["first"], ["second"]]


def test_the_next_offset_follows_from_the_names(archive: Archive) -> None:
    archive.write(Segment("r1", "t", 0, 0, 9), [])
    archive.write(Segment("r2", "t", 0, 10, 14), [])
    archive.write(Segment("r1", "t", 3, 100, 100), [])
    archive.write(Segment("r2", "import-ab", 0, 1, 50), [])
    assert archive.positions() == {"t": {0: 15, 3: 101}, "import-ab": {0: 51}}


def test_a_late_round_with_earlier_offsets_does_not_turn_the_position_back(archive: Archive) -> None:
    archive.write(Segment("r1", "t", 0, 10, 19), [])
    archive.write(Segment("r2", "t", 0, 0, 9), [])
    assert archive.positions() == {"t": {0: 20}}


def test_writing_a_segment_again_leaves_one(archive: Archive) -> None:
    write(archive, make_event("u", "a"))
    write(archive, make_event("u", "a"))
    assert len(archive.segments()) == 1
    assert quantities(archive) == {("u", "a"): 1.0}


@pytest.mark.parametrize("content", [b"", b"junk", b"PAR1junkPAR1"])
def test_a_damaged_segment_is_named_in_the_error(storage: Storage, archive: Archive, content: bytes) -> None:
    segment = write(archive, make_event())
    storage.write_file(segment.path, content)
    with pytest.raises(DataDirError, match=segment.path.rsplit("/", 1)[1].replace("+", r"\+")):
        archive.events()


def test_a_segment_that_is_not_there_is_a_storage_error(archive: Archive) -> None:
    with pytest.raises(DataDirError):
        archive.read(Segment("r1", "t", 0, 0, 0))


def test_the_error_of_an_unreadable_segment_is_one_line(archive: Archive) -> None:
    segment = write(archive, make_event())
    with pytest.raises(DataDirError) as caught:
        archive.read(segment, ["no_such_column"])
    assert "\n" not in str(caught.value)


def test_a_round_is_named_by_its_time_in_utc(archive: Archive) -> None:
    local = datetime(2026, 11, 22, 13, 0, 0, 250, tzinfo=timezone(timedelta(hours=1)))
    assert archive.new_round(local) == "20261122T120000.000250Z"


def test_a_new_round_sorts_after_all_others_even_if_the_clock_goes_back(archive: Archive) -> None:
    rounds: list[str] = []
    for offset, minutes in enumerate([0, 0, -60, -60 * 24 * 400, 0, 1, 1, 0]):
        round_ = archive.new_round(AT + timedelta(minutes=minutes))
        write(archive, make_event(), first=offset, round_=round_)
        rounds.append(round_)
    assert rounds == sorted(set(rounds))
    assert [segment.first for segment in archive.segments()] == list(range(8))


def test_rounds_of_a_clock_that_stands_still_have_names_that_do_not_grow(archive: Archive) -> None:
    rounds: list[str] = []
    for offset in range(300):  # a file name ends at 255 bytes
        rounds.append(archive.new_round(AT))
        write(archive, make_event(), first=offset, round_=rounds[-1])
    assert rounds == sorted(set(rounds))
    assert len(rounds[-1]) < 40


def test_temporaries_of_crashed_writes_are_ignored_and_removed(tmp_path: Path) -> None:
    archive = Archive(Storage(str(tmp_path)))
    segment = write(archive, make_event())
    leftover = tmp_path / f"{Segment('r1', 't', 0, 1, 5).path}.tmp"
    leftover.write_bytes(b"half")
    assert archive.segments() == [segment]
    archive.remove_temporaries()
    assert not leftover.exists()
    assert archive.segments() == [segment]


def test_returns_subtract_whatever_the_order(archive: Archive) -> None:
    write(archive, make_return("u", "a", 1.0), make_event("u", "b", 2.0), make_event("v", "b", 0.3))
    write(archive, make_event("u", "a", 3.0), make_return("u", "b", 2.0), make_return("v", "b", 0.1), first=3)
    assert quantities(archive) == {("u", "a"): 2.0, ("v", "b"): 0.2}
    assert len(archive.events()) == 6


def test_an_event_id_counts_once_per_user(archive: Archive) -> None:
    write(archive, make_event("u", "a", event_id="e1"), make_event("v", "a", event_id="e1"))
    write(archive, make_event("u", "a", event_id="e1"), make_event("u", "a", event_id="e2"), first=2, partition=1)
    write(archive, make_event("u", "a"), make_event("u", "a"), first=4, round_="r2")
    write(archive, make_event("u", "a", event_id="e1"), first=0, round_="r2", source="import-ab")
    assert quantities(archive) == {("u", "a"): 4.0, ("v", "a"): 1.0}
    assert len(archive.events()) == 5


def test_of_two_events_with_one_id_the_first_counts(archive: Archive) -> None:
    write(archive, make_event("u", "b", 7.0, event_id="e1"), round_="r2", first=1)
    write(archive, make_event("u", "a", 2.0, event_id="e1"), round_="r1", first=0)
    assert quantities(archive) == {("u", "a"): 2.0}


def test_segments_without_any_valid_event_count_for_nothing(archive: Archive) -> None:
    archive.write(Segment("r1", "t", 0, 0, 99), [])
    assert quantities(archive) == {}
    write(archive, make_forget("u"), first=100)
    assert quantities(archive) == {}
    write(archive, make_event("u", "a"), first=101)
    assert quantities(archive) == {("u", "a"): 1.0}


@pytest.mark.parametrize("seed", range(3))
def test_interactions_equal_a_sum_by_dictionary(archive: Archive, seed: int) -> None:
    rng = np.random.default_rng(seed)
    expected: dict[tuple[str, str], int] = defaultdict(int)
    seen: set[tuple[str, str]] = set()
    for segment in range(4):
        events = []
        for _ in range(50):
            user, item, name = (f"{kind}{rng.integers(8)}" for kind in "uie")
            type_ = EventType.RETURN if rng.random() < 0.3 else EventType.PURCHASE
            millionths = int(rng.integers(1, 5_000_000))
            id_ = name if rng.random() < 0.5 else None
            events.append(make_event(user, item, millionths / 1e6, type_=type_, event_id=id_))
            if id_ is None or (user, id_) not in seen:
                expected[user, item] += millionths if type_ is EventType.PURCHASE else -millionths
            if id_ is not None:
                seen.add((user, id_))
        write(archive, *events, first=50 * segment)
    assert quantities(archive) == {pair: units / 1e6 for pair, units in expected.items() if units > 0}


def test_a_forgotten_user_is_erased_before_and_kept_after_in_the_same_partition(archive: Archive) -> None:
    first = write(archive, make_event("u"), make_event("v"), make_forget("u"), make_event("u"), make_event("v"))
    assert archive.erase_forgotten() == 1
    assert rows(archive) == {first: [(1, "v", "purchase"), (3, "u", "purchase"), (4, "v", "purchase")]}


def test_a_forgotten_user_is_erased_from_earlier_rounds_elsewhere_and_kept_in_later_ones(archive: Archive) -> None:
    imported = write(archive, make_event("u"), make_event("v"), first=1, round_="r1", source="import-ab")
    other = write(archive, make_event("u"), round_="r1", partition=5)
    forget = write(archive, make_forget("u"), first=7, round_="r2")
    later = write(archive, make_event("u"), round_="r3", partition=5, first=1)
    same = write(archive, make_event("u"), round_="r3", first=8)
    assert archive.erase_forgotten() == 1
    assert rows(archive) == {
        imported: [(2, "v", "purchase")],
        other: [],
        forget: [],
        later: [(1, "u", "purchase")],
        same: [(8, "u", "purchase")],
    }


def test_erasing_leaves_the_positions_and_the_other_columns_as_they_were(archive: Archive) -> None:
    kept = make_event("v", "a", 2.5, price=1.5, event_id="e9")
    segment = write(archive, make_event("u"), kept, make_forget("u"))
    before = archive.positions()
    assert archive.erase_forgotten() == 1
    assert archive.positions() == before
    table = archive.read(segment)
    assert table.schema.equals(SCHEMA)
    assert table.to_pylist() == event_table([(1, kept)]).to_pylist()


def test_erasing_again_changes_nothing(archive: Archive) -> None:
    write(archive, make_event("u"), make_forget("u"), make_event("u"), make_forget("v"))
    assert archive.erase_forgotten() == 2
    after = rows(archive)
    assert archive.erase_forgotten() == 0
    assert rows(archive) == after


def test_a_user_may_be_forgotten_twice(archive: Archive) -> None:
    segment = write(archive, make_event("u"), make_forget("u"), make_event("u"), make_forget("u"), make_event("u"))
    assert archive.erase_forgotten() == 1
    assert rows(archive) == {segment: [(4, "u", "purchase")]}


def test_archives_without_forgets_are_not_rewritten(tmp_path: Path) -> None:
    write(Archive(Storage(str(tmp_path))), make_event("u"), make_event("v"))
    assert Archive(CrashingStorage(str(tmp_path), 0)).erase_forgotten() == 0


Written = list[tuple[Segment, list[Placed]]]


def random_segments(seed: int) -> Written:
    """Some rounds of two sources and two partitions, one segment of each, offsets without gaps."""
    rng = np.random.default_rng(seed)
    following: dict[tuple[str, int], int] = defaultdict(int)
    written: Written = []
    for round_ in ("r1", "r2", "r3"):
        for source, partition in (("s", 0), ("t", 0), ("t", 1)):
            if rng.random() < 0.2:
                continue
            events = []
            for _ in range(rng.integers(1, 6)):
                user = f"u{rng.integers(4)}"
                events.append(make_forget(user) if rng.random() < 0.2 else make_event(user))
            first = following[source, partition]
            following[source, partition] += len(events)
            segment = Segment(round_, source, partition, first, first + len(events) - 1)
            written.append((segment, list(enumerate(events, start=first))))
    return written


def survivors(written: Written) -> dict[Segment, list[tuple[int, str, str]]]:
    """What must be left: no forget, and nothing of a user that came before one."""
    forgets = [
        (event.user_id, segment, offset)
        for segment, placed in written
        for offset, event in placed
        if event.type is EventType.FORGET
    ]

    def erased(segment: Segment, offset: int, event: Event) -> bool:
        return event.type is EventType.FORGET or any(
            offset < at
            if (segment.source, segment.partition) == (forget.source, forget.partition)
            else segment.round <= forget.round
            for user, forget, at in forgets
            if user == event.user_id
        )

    return {
        segment: [
            (offset, event.user_id, event.type.value) for offset, event in placed if not erased(segment, offset, event)
        ]
        for segment, placed in written
    }


@pytest.mark.parametrize("seed", range(10))
def test_erasing_leaves_what_a_look_at_all_pairs_leaves(tmp_path: Path, seed: int) -> None:
    archive, written = Archive(Storage(str(tmp_path))), random_segments(seed)
    for segment, placed in written:
        archive.write(segment, placed)
    archive.erase_forgotten()
    assert rows(archive) == survivors(written)


@pytest.mark.parametrize("seed", range(10))
def test_a_crash_between_two_rewrites_leaves_the_rest_to_the_next_call(tmp_path: Path, seed: int) -> None:
    written = random_segments(seed)
    crashed, rewrites = True, 0
    while crashed:
        url = str(tmp_path / str(rewrites))
        archive = Archive(Storage(url))
        for segment, placed in written:
            archive.write(segment, placed)
        try:
            Archive(CrashingStorage(url, rewrites)).erase_forgotten()
            crashed = False
        except KeyboardInterrupt:
            rewrites += 1
        archive.erase_forgotten()
        assert rows(archive) == survivors(written), f"after a crash with {rewrites - 1} segments rewritten"
    assert rewrites >= 2


def test_a_crash_between_two_segments_with_forgets_forgets_neither(tmp_path: Path) -> None:
    archive = Archive(Storage(str(tmp_path)))
    first = write(archive, make_forget("u"), partition=0)
    second = write(archive, make_event("u"), make_forget("v"), partition=1)
    with pytest.raises(KeyboardInterrupt):
        Archive(CrashingStorage(str(tmp_path), 1)).erase_forgotten()
    archive.erase_forgotten()
    assert rows(archive) == {first: [], second: []}


def test_rows_that_two_writers_wrote_count_once(tmp_path: Path) -> None:
    archive = Archive(Storage(str(tmp_path)))
    events = [make_event(user_id="u", item_id=f"item-{n}") for n in range(6)]
    archive.write(Segment("r1", "topic", 0, 0, 3), list(enumerate(events))[:4])
    archive.write(Segment("r2", "topic", 0, 2, 5), list(enumerate(events))[2:])
    archive.write(Segment("r2", "topic", 1, 2, 3), [(2, make_event(user_id="u", item_id="other partition"))])
    log = archive.events()
    interactions = log.interactions()
    assert len(log) == 7
    assert interactions.quantities.sum() == 7
    assert interactions.quantities.max() == 1


def test_gaps_between_segments_are_found(tmp_path: Path) -> None:
    archive = Archive(Storage(str(tmp_path)))
    for segment in (
        Segment("r1", "topic", 0, 5, 9),
        Segment("r2", "topic", 0, 12, 14),
        Segment("r1", "import-abc", 0, 101, 200),
        Segment("r1", "topic", 1, 0, 3),
        Segment("r2", "topic", 1, 4, 4),
    ):
        archive.write(segment, [])
    assert archive.gaps() == [("import-abc", 0, 1, 100), ("topic", 0, 10, 11)]


def test_a_segment_keeps_the_cleanup_policy_of_its_topic_also_when_users_are_erased(archive: Archive) -> None:
    compacted, plain = Segment("r1", "t", 0, 0, 1), Segment("r2", "t", 0, 2, 2)
    archive.write(compacted, [(0, make_event("a", "x")), (1, make_event("b", "y"))], cleanup_policy="compact,delete")
    archive.write(plain, [(2, make_forget("a"))])
    assert archive.erase_forgotten() == 1
    assert archive.read(compacted)["user_id"].to_pylist() == ["b"]
    assert [archive.cleanup_policy(segment) for segment in (compacted, plain)] == ["compact,delete", ""]
    assert [*archived_compacted(archive)] == ["offsets 0 to 1 of t, partition 0, were archived from a compacted topic"]


def test_what_was_archived_of_a_compacted_topic_is_told_in_ranges(archive: Archive) -> None:
    for number, (partition, first, last, policy) in enumerate(
        [(0, 0, 9, "delete"), (0, 10, 19, "compact"), (0, 20, 24, "compact,delete"), (0, 25, 29, "delete"),
         (0, 30, 31, "compact"), (1, 5, 6, "delete, compact"), (2, 0, 1, "")]
    ):  # fmt: skip
        archive.write(Segment(f"r{number}", "t", partition, first, last), [], cleanup_policy=policy)
    assert [*archived_compacted(archive)] == [
        "offsets 10 to 24, 30 to 31 of t, partition 0, were archived from a compacted topic",
        "offsets 5 to 6 of t, partition 1, were archived from a compacted topic",
    ]


def stream_round(archive: Archive, round_: str, *events: Event, first: int, partition: int = 0) -> None:
    last = first + len(events) - 1
    archive.write(Segment(round_, "topic", partition, first, last), list(enumerate(events, start=first)))


def days_of(archive: Archive) -> list[str]:
    return [str(np.datetime64(int(day), "D")) for day in archive.events().known_days]


def test_nothing_was_bought_after_it_was_archived(archive: Archive) -> None:
    in_9999 = epoch_ms(datetime(9999, 1, 1, tzinfo=UTC))
    stream_round(archive, "20261122T130000.000000Z", make_event(timestamp=in_9999), make_event(item_id="b"), first=0)
    archive.write(
        Segment("20261123T130000.500000Z~000001", "import-ab", 0, 1, 1), [(1, make_event("v", timestamp=in_9999))]
    )
    noon, day = NOON_MS // 1000, 86_400
    assert archive.events().seconds.tolist() == [noon + 3_600, noon, noon + day + 3_600]
    assert days_of(archive) == ["2026-11-22", "2026-11-22", "2026-11-23"]


def test_what_comes_in_late_was_not_there_before_the_last_round(archive: Archive) -> None:
    long_ago = epoch_ms(datetime(2020, 5, 5, tzinfo=UTC))
    stream_round(archive, "20261110T000000.000000Z", make_event(timestamp=long_ago), first=0)
    stream_round(archive, "20261120T000000.000000Z", make_event(timestamp=long_ago), make_event("v"), first=1)
    stream_round(archive, "20261120T000000.000000Z", make_event("w", timestamp=long_ago), first=0, partition=1)
    archive.write(Segment("20261121T000000.000000Z", "import-ab", 0, 1, 1), [(1, make_event("x", timestamp=long_ago))])
    archive.write(Segment("20261122T000000.000000Z", "import-ab", 0, 2, 2), [(2, make_event("y", timestamp=long_ago))])
    assert days_of(archive) == [
        "2020-05-05",  # the first round of a partition: it may hold what was bought over years
        "2026-11-10",
        "2026-11-20",  # and nothing after the round that archived it
        "2020-05-05",
        "2020-05-05",  # an import is an operator's word
        "2020-05-05",
    ]
    assert {day for day in (archive.events().seconds // 86_400).tolist()} == {18_387, 20_777}


def test_rounds_with_other_names_bound_nothing(archive: Archive) -> None:
    in_9999 = epoch_ms(datetime(9999, 1, 1, tzinfo=UTC))
    stream_round(archive, "r1", make_event(timestamp=in_9999), first=0)
    assert archive.events().seconds.tolist() == [in_9999 // 1000]


def test_the_newest_event_is_that_of_the_newest_round_whatever_the_order_in_it(archive: Archive) -> None:
    assert archive.newest_event() is None
    write(archive, make_event(timestamp=NOON_MS + 9_000), round_="r1")
    newest = make_event(timestamp=NOON_MS + 5_000)
    write(archive, make_event(timestamp=NOON_MS), newest, make_event(timestamp=NOON_MS), round_="r2")
    write(archive, make_event(timestamp=NOON_MS + 1_000), round_="r2", partition=1)
    assert archive.newest_event() == datetime.fromtimestamp(NOON_MS / 1000 + 5, UTC)


def test_the_size_is_that_of_all_files_below_a_folder(storage: Storage) -> None:
    assert storage.size_bytes("archive") == 0
    storage.write_file("archive/a/b", b"12345")
    storage.write_file("archive/c", b"123")
    storage.write_file("models/d", b"1")
    assert storage.size_bytes("archive") == 8


def test_the_disk_of_a_local_folder_is_told(tmp_path: Path) -> None:
    disk = Storage(str(tmp_path)).disk()
    assert disk is not None
    assert 0 < disk[0] <= disk[1]
    with pytest.raises(DataDirError, match="nowhere"):
        Storage(str(tmp_path / "nowhere")).disk()
    assert Storage(f"memory://{uuid.uuid4().hex}").disk() is None
