"""What a command reads: several files, globs, packed files, folders of Parquet, standard input."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
import tempfile
import tracemalloc
import zipfile
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.errors import InputFileError
from recsys.files.columns import Columns
from recsys.files.inputs import find_inputs
from recsys.files.purchases import PurchaseFile
from recsys.files.rejects import rejects_path
from recsys.files.tables import CsvForm, Table
from recsys.settings.regular_files import open_regular
from tests.builders import make_event
from tests.purchase_files import DAY_MS, HEADER, NOW, READING, counts, events, opened, written

LINE = "u,a,2026-01-01\n"


def read(*given: str | Path, columns: Columns | None = None) -> PurchaseFile:
    return PurchaseFile(find_inputs(given), columns or Columns(), events=READING, now=NOW)


def items(file: PurchaseFile) -> list[str | None]:
    return [event.item_id for _, event in events(file)]


def csv(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(header + "".join(f"{row}\n" for row in rows))
    return path


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def archive(path: Path, members: Mapping[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def parquet(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def error_of(*given: str | Path, columns: Columns | None = None) -> str:
    with pytest.raises(InputFileError) as caught:
        list(read(*given, columns=columns).batches())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_several_files_are_one_table_in_the_given_order(tmp_path: Path) -> None:
    second, first = csv(tmp_path / "b.csv", "u,b,2026-01-01", "u,c,soon"), csv(tmp_path / "a.csv", "u,a,2026-01-01")
    file = read(second, first)
    assert [(row, event.item_id) for row, event in events(file)] == [(1, "b"), (3, "a")]
    assert [reject.why for batch in file.batches() for reject in batch.rejects] == [
        f"{second} line 3: timestamp: 'soon' is not in the form ISO 8601; name another form with --timestamp-format"
    ]
    assert (file.rows, counts(file).read, file.name) == (3, 3, "b.csv and 1 more")


def test_a_glob_is_sorted_and_what_is_named_twice_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("orders-2", "orders-10", "orders-1"):
        csv(tmp_path / f"{name}.csv", f"u,{name},2026-01-01")
    monkeypatch.chdir(tmp_path)
    assert items(read("orders-*.csv")) == ["orders-1", "orders-10", "orders-2"]
    (tmp_path / "link.csv").symlink_to("orders-2.csv")
    again = read("orders-2.csv", "orders-?.csv", tmp_path / "orders-1.csv", "link.csv")
    assert items(again) == ["orders-2", "orders-1"]
    csv(tmp_path / "deep/er/orders-3.csv", "u,deep,2026-01-01")
    assert items(read("deep/**/*.csv")) == ["deep"]
    csv(tmp_path / "odd[1].csv", "u,odd,2026-01-01")
    assert items(read("odd[1].csv")) == ["odd"], "a file of that very name"


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    assert error_of(tmp_path / "a.csv") == f"{tmp_path}/a.csv: there is no such file"
    assert error_of(f"{tmp_path}/*.csv") == f"{tmp_path}/*.csv: no file has such a name"
    (tmp_path / "folder").mkdir()
    assert "a folder is read if it is named without *" in error_of(f"{tmp_path}/f*")
    assert error_of("/dev/null") == "/dev/null: this is a device, not a file"


def test_files_with_the_same_content_are_refused_unless_they_have_no_rows(tmp_path: Path) -> None:
    first, copy = csv(tmp_path / "a.csv", "u,a,2026-01-01"), csv(tmp_path / "a (1).csv", "u,a,2026-01-01")
    expected = f"{copy}: holds the same as {first}, so that its rows would count twice; leave one of them out"
    assert error_of(first, copy) == expected
    copy.write_bytes(gzip.compress(first.read_bytes()))
    assert error_of(first, copy) == expected, "packed as well"
    nothing = [csv(tmp_path / f"{name}.csv") for name in "xy"]
    assert items(read(*nothing, first)) == ["a"]


def test_files_with_other_columns_are_refused_with_the_names(tmp_path: Path) -> None:
    first = csv(tmp_path / "a.csv", "u,a,2026-01-01")
    other = csv(tmp_path / "b.csv", "u,a,1", header="user_id,item_id,quantity\n")
    assert error_of(first, other) == (
        f"{other}: other columns than in {first}: it lacks timestamp and has quantity; read them one after the other"
    )


def test_columns_may_stand_in_another_order(tmp_path: Path) -> None:
    first = csv(tmp_path / "a.csv", "u,a,2026-01-01", "u,a,soon")
    other = csv(tmp_path / "b.csv", "2026-01-01,v,b", "never,v,b", header="timestamp,user_id,item_id\n")
    file = read(first, other)
    assert [(event.user_id, event.item_id) for _, event in events(file)] == [("u", "a"), ("v", "b")]
    assert written(file, tmp_path / "r.csv").splitlines()[2].startswith('"v","b","never",')
    table = {"user_id": ["u"], "item_id": ["a"], "timestamp": [datetime(2026, 1, 1)]}
    one = parquet(tmp_path / "a.parquet", **table)
    two = parquet(tmp_path / "b.parquet", **dict(reversed((table | {"user_id": ["v"]}).items())))
    assert [event.user_id for _, event in events(read(one, two))] == ["u", "v"]


def test_files_of_two_kinds_are_refused(tmp_path: Path) -> None:
    one = csv(tmp_path / "a.csv", "u,a,2026-01-01")
    two = parquet(tmp_path / "b.parquet", user_id=["u"], item_id=["a"], timestamp=["2026-01-01"])
    assert error_of(one, two) == f"{two} is Parquet, and {one} is CSV; read files of one kind at a time"


def test_what_columns_mean_is_decided_over_all_files(tmp_path: Path) -> None:
    header = "user_id,item_id,timestamp,quantity\n"
    unclear = csv(tmp_path / "a.csv", '17850.0,a,2026-01-01,"1,200"', header=header)
    clear = csv(tmp_path / "b.csv", '13047.0,b,2026-01-01,"1,5"', header=header)
    assert "can be read in two ways" in error_of(unclear)
    assert [(event.user_id, event.quantity) for _, event in events(read(unclear, clear))] == [
        ("17850", 1.2),
        ("13047", 1.5),
    ]
    text = csv(tmp_path / "c.csv", "guest-1.0x,c,2026-01-01,1", header=header)
    assert next(event.user_id for _, event in events(read(unclear, clear, text))) == "17850.0"


def test_an_unclosed_quote_is_named_with_its_file_and_line(tmp_path: Path) -> None:
    header = "user_id,item_id,timestamp,title\n"
    one = csv(tmp_path / "a.csv", "u,a,2026-01-01,x", header=header)
    two = csv(tmp_path / "b.csv", "u,b,2026-01-01,x", 'u,c,2026-01-01,"24in', "u,d,2026-01-01,x", header=header)
    file = read(one, two)
    assert items(file) == ["a", "b", "d"]
    (reject,) = (reject for batch in file.batches() for reject in batch.rejects)
    assert (reject.row, reject.why) == (
        3, f"{two} line 3: a quote is opened in this line and never closed as it should be"
    )  # fmt: skip


def test_a_broken_file_among_others_is_named_and_nothing_is_read_of_any(tmp_path: Path) -> None:
    good = csv(tmp_path / "a.csv", "u,a,2026-01-01")
    text = HEADER + "".join(f"u{n},i{n * n},2026-01-01\n" for n in range(50_000))
    for name, content, kind in (
        ("b.gz", gzip.compress(text.encode()), "gzip"),
        ("b.zst", zstd(text.encode()), "Zstandard"),
    ):
        (tmp_path / name).write_bytes(content[:-1_000])
        file = read(good, tmp_path / name)
        with pytest.raises(InputFileError, match=f"^{tmp_path}/{name}: cannot be read.*the {kind} data ends too early"):
            next(file.batches())


def test_zstandard_is_read_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(zstd((HEADER + LINE).encode()) + zstd(b"v,b,2026-01-01\n"))
    assert items(opened(tmp_path / "a.csv")) == ["a", "b"], "of several frames"
    (tmp_path / "a.csv").write_bytes(b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + zstd((HEADER + LINE).encode()))
    assert items(opened(tmp_path / "a.csv")) == ["a"], "as pzstd writes it"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (zstd((HEADER + LINE).encode()) + b"garbage", "the Zstandard data is damaged"),
        (zstd((HEADER + LINE).encode())[:-3], "the Zstandard data ends too early"),
        (zstd(zstd(b"x")), "this is Zstandard inside of Zstandard: unpack it once"),
        (gzip.compress(zstd(b"x"), mtime=0), "this is Zstandard inside of gzip: unpack it once"),
        (zstd(b"PAR1xxPAR1"), "this is Parquet inside of Zstandard: unpack it first"),
    ],
)
def test_packed_files_that_cannot_be_read_say_why(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.zst").write_bytes(content)
    assert words in error_of(tmp_path / "a.zst")


def test_each_member_of_a_zip_archive_is_a_file(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "orders.zip",
        {
            "2026/feb.csv": f"{HEADER}u,feb,2026-01-01\nu,feb,soon\n",
            "2026/": b"",
            "2025.csv": HEADER + "u,2025,2026-01-01\n",
            "__MACOSX/2026/._feb.csv": b"\0\5\x16\7",
            "2026/.DS_Store": b"\0\0\0\1",
        },
    )
    file = read(path)
    assert items(file) == ["2025", "feb"]
    assert next(r.why for b in file.batches() for r in b.rejects).startswith(f"{path}/2026/feb.csv line 3: timestamp")
    assert rejects_path(file.table.inputs, None) == Path("orders.rejects.csv")
    alone = archive(tmp_path / "one.zip", {"a.csv": HEADER + LINE})
    assert events(read(alone)) == [(1, make_event("u", "a", timestamp=DAY_MS))]


def with_flag(path: Path, flag: int) -> Path:
    """Say in an archive's headers that its first member is encrypted, or packed in another way."""
    content = bytearray(path.read_bytes())
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + at] |= flag
    path.write_bytes(content)
    return path


def test_zip_archives_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    inner = archive(tmp_path / "inner.zip", {"a.csv": HEADER + LINE}).read_bytes()
    for members, words in (
        ({"a.zip": inner}, "a.zip: this is a ZIP archive or an Excel workbook inside of ZIP: unpack it once"),
        ({"a.csv.gz": gzip.compress(b"x")}, "a.csv.gz: this is gzip inside of ZIP: unpack it once"),
        ({"[Content_Types].xml": "<x/>", "xl/x.xml": "<x/>"}, "this is an Excel workbook: save it as CSV"),
        ({"__MACOSX/._a": "x"}, "no file is in this ZIP archive"),
        ({"a.parquet": b"PAR1xxPAR1"}, "a.parquet: this is Parquet inside of ZIP: unpack it first"),
        ({"a.csv": HEADER + LINE, "read\nme.txt": "hello"}, "a.zip/read?me.txt: other columns than in"),
    ):
        assert words in error_of(archive(tmp_path / "a.zip", members))
    text = HEADER + "".join(f"u{n},i{n * n},2026-01-01\n" for n in range(50_000))
    path = archive(tmp_path / "a.zip", {"a.csv": text})
    content = bytearray(path.read_bytes())
    path.write_bytes(content[:-200])
    assert "this is a damaged ZIP archive (File is not a zip file), or an Excel workbook" in error_of(path)
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert f"{path}/a.csv: cannot be read" in error_of(path)
    assert "the ZIP data is damaged" in error_of(path)
    assert "it is encrypted: unpack it first" in error_of(with_flag(archive(path, {"a.csv": HEADER}), 1))


@pytest.mark.parametrize("packing", ["zip", "gz", "zst"])
def test_a_file_that_unpacks_to_a_thousand_times_its_size_is_read_in_pieces(tmp_path: Path, packing: str) -> None:
    bomb = HEADER.encode() + b"x" * 300_000_000
    path = tmp_path / f"a.{packing}"
    if packing == "zip":
        archive(path, {"a.csv": bomb})
    else:
        path.write_bytes(gzip.compress(bomb, 1) if packing == "gz" else zstd(bomb))
    del bomb
    tracemalloc.start()
    try:
        assert "line 2 is longer than 1,048,576 characters" in error_of(path)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


def test_a_row_group_is_read_in_pieces_however_large_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.files.parquet_rows._BATCH_ROWS", 1_000)
    ids = pa.array([Random(n).randbytes(40).hex() for n in range(200_000)])
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"user_id": ids}), path, row_group_size=len(ids), use_dictionary=False, compression="none")
    del ids
    table = Table(path, CsvForm())
    tracemalloc.start()
    try:
        assert sum(1 for _ in table.rows({0})) == 200_000
        assert tracemalloc.get_traced_memory()[1] < path.stat().st_size / 3
    finally:
        tracemalloc.stop()


def test_links_between_folders_are_followed_once(tmp_path: Path) -> None:
    table = pa.table({"user_id": ["u"], "item_id": ["a"], "timestamp": ["2026-01-01"]})
    folder, beside = tmp_path / "folder", tmp_path / "beside"
    for price, parent in enumerate((folder, beside)):
        parent.mkdir()
        pq.write_table(table.append_column("price", pa.array([price])), parent / "a.parquet")
    for number in range(40):
        (folder / f"link-{number}").symlink_to(".")
        (folder / f"other-{number}").symlink_to(beside)
    assert items(read(folder)) == ["a", "a"]


def test_a_name_that_the_system_refuses_is_one_line() -> None:
    with pytest.raises(InputFileError, match=r"cannot be read: .*File name too long"):
        find_inputs(["a" * 300])


def test_a_standard_input_that_is_closed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputFileError, match=r"^standard input is closed$"):
        find_inputs(["-"])


def stdin_of(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))


def contents() -> list[Any]:
    table = io.BytesIO()
    pq.write_table(pa.table({"user_id": ["u"], "item_id": ["a"], "timestamp": ["2026-01-01"]}), table)
    text = (HEADER + LINE).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("a.csv", text)
    forms = {"csv": text, "gz": gzip.compress(text), "zst": zstd(text), "zip": packed.getvalue()}
    return [pytest.param(content, id=name) for name, content in (forms | {"parquet": table.getvalue()}).items()]


@pytest.mark.parametrize("content", contents())
def test_standard_input_is_read_whatever_it_is_and_kept_where_nobody_finds_it(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    stdin_of(content, monkeypatch)
    file = read("-", "-")
    assert events(file) == events(file) == [(1, make_event("u", "a", timestamp=DAY_MS))]
    assert list(tmp_path.iterdir()) == []
    assert (file.label, rejects_path(file.table.inputs, None)) == ("standard input", Path("stdin.rejects.csv"))


def test_errors_of_standard_input_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin_of(b"", monkeypatch)
    assert error_of("-") == "standard input: the file is empty"
    stdin_of((HEADER + LINE).encode(), monkeypatch)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    message = error_of("-")
    assert message.startswith(f"standard input: cannot be kept in {tmp_path}/nowhere to be read twice: No such file")
    assert "set TMPDIR to a folder with more room" in message


def test_folders_of_parquet_give_columns(tmp_path: Path) -> None:
    for path, user in (
        ("dt=2026-01-02/shop=a%20b/part-0.parquet", "v"),
        ("dt=2026-01-01/shop=__HIVE_DEFAULT_PARTITION__/part-0.parquet", "u"),
        ("dt=never/shop=x/part-0.parquet", "w"),
    ):
        parquet(tmp_path / "orders" / path, user_id=[user], item_id=["a"])
    csv(tmp_path / "orders/_SUCCESS")
    csv(tmp_path / "orders/_temporary/part-0.parquet")
    csv(tmp_path / "orders/dt=2026-01-01/.part-0.parquet.crc")
    columns = Columns(timestamp="dt")
    for given in (tmp_path / "orders", f"{tmp_path}/orders/dt=*/*/*.parquet"):
        file = read(given, columns=columns)
        assert file.table.names == ["user_id", "item_id", "dt", "shop"]
        assert [(event.user_id, event.timestamp) for _, event in events(file)] == [
            ("u", DAY_MS),
            ("v", DAY_MS + 86_400_000),
        ]
    rejected = written(file, tmp_path / "r.csv")
    assert rejected.splitlines()[1].startswith('"w","a","never","x",')
    (tmp_path / "r.csv").write_text(rejected.replace("never", "2026-01-03", 1), encoding="utf-8-sig")
    assert [event.user_id for _, event in events(read(tmp_path / "r.csv", columns=columns))] == ["w"]


def test_a_column_of_the_file_goes_before_that_of_its_folder(tmp_path: Path) -> None:
    path = parquet(tmp_path / "user_id=x/a.parquet", user_id=["u"], item_id=["a"], timestamp=["2026-01-01"])
    assert [event.user_id for _, event in events(read(path))] == ["u"]


def test_partitions_that_no_option_reads_tell_no_files_apart(tmp_path: Path) -> None:
    """Two snapshots of the same table would count twice; and a file that is moved is the same import."""
    rows = {"user_id": ["u"], "item_id": ["a"], "timestamp": ["2026-01-01"]}
    one, other = (parquet(tmp_path / f"snap={number}/a.parquet", **rows) for number in (1, 2))
    assert read(one).content_digest == read(other).content_digest
    with pytest.raises(InputFileError, match="holds the same as"):
        counts(read(tmp_path))


def test_equal_files_of_two_partitions_are_two_files(tmp_path: Path) -> None:
    for day in (1, 2):
        parquet(tmp_path / f"dt=2026-01-0{day}/a.parquet", user_id=["u"], item_id=["a"])
    assert counts(read(tmp_path, columns=Columns(timestamp="dt"))).valid == 2


def test_a_folder_may_hold_nothing_but_parquet(tmp_path: Path) -> None:
    folder = tmp_path / "orders"
    folder.mkdir()
    nothing = f"{folder}: this is a folder, not a file, and it holds no Parquet file; name what is to be read, such as"
    assert error_of(folder).startswith(nothing)
    csv(folder / "_SUCCESS")
    assert error_of(folder).startswith(nothing)
    parquet(folder / "a.parquet", user_id=["u"], item_id=["a"], timestamp=["2026-01-01"])
    csv(folder / "b.csv", "u,b,2026-01-01")
    assert error_of(folder).startswith(f"{folder}: {folder}/b.csv is no Parquet file; a folder may hold no other")
    csv(folder / "b.csv")
    (folder / "b.csv").unlink()
    parquet(folder / "c.parquet", user_id=["u"], item_id=["a"])
    assert "it lacks timestamp" in error_of(folder)


def test_folders_whose_column_nobody_uses_make_no_other_content(tmp_path: Path) -> None:
    table = {"user_id": ["u"], "item_id": ["a"], "timestamp": ["2026-01-01"]}
    first, copy = (parquet(tmp_path / f"e/snap={n}/a.parquet", **table) for n in (1, 2))
    assert error_of(tmp_path / "e").startswith(f"{copy}: holds the same as {first}, so that its rows would count twice")
    assert digest(first) == digest(copy) == digest(parquet(tmp_path / "a.parquet", **table))
    by_snapshot = Columns(type="snap")
    assert digest(first, columns=by_snapshot) != digest(copy, columns=by_snapshot)


def test_folders_above_the_named_one_are_no_columns_unless_they_are_such_without_a_gap(tmp_path: Path) -> None:
    path = parquet(tmp_path / "disk=1/orders/dt=2026-01-01/hour=7/part/a.parquet", user_id=["u"], item_id=["a"])
    named = {
        "disk=1/orders": ["dt", "hour"],
        "disk=1/orders/dt=2026-01-01": ["dt", "hour"],
        "disk=1/orders/dt=2026-01-01/hour=7": ["dt", "hour"],
        "disk=1/orders/*/*/part/*.parquet": ["dt", "hour"],
        "disk=1/orders/dt=2026-01-01/hour=7/part": [],
        str(path.relative_to(tmp_path)): [],
        "disk=1": ["disk", "dt", "hour"],
    }
    columns = Columns(timestamp="dt")
    for given, partitions in names_of_partitions(tmp_path, named).items():
        assert partitions == named[given], given
    moved = path.rename(parquet(tmp_path / "disk=2/dt=2026-01-01/b.parquet", user_id=["x"], item_id=["y"]))
    elsewhere = tmp_path / "dt=2026-01-01/a.parquet"
    elsewhere.parent.mkdir()
    before = digest(moved, columns=columns)
    assert digest(moved.rename(elsewhere), columns=columns) == before, "a file that is moved is the same import"


def names_of_partitions(folder: Path, named: Iterable[str]) -> dict[str, list[str]]:
    """Return what is named → the columns of which the folders of its only file say the values."""
    return {given: list(find_inputs([folder / given]).files[0].partitions) for given in named}


def test_globs_go_through_links_between_folders_once(tmp_path: Path) -> None:
    csv(tmp_path / "a/b/1.csv", "u,1,2026-01-01")
    csv(tmp_path / "2.csv", "u,2,2026-01-01")
    csv(tmp_path / ".hidden/3.csv", "u,3,2026-01-01")
    for number in range(40):
        (tmp_path / f"a/link-{number}").symlink_to("..")
    for pattern, found in (
        ("**/*.csv", ["2", "1"]), ("a/**/b/*.csv", ["1"]), ("**/b/**", ["1"]), ("*/**/1.csv", ["1"]),
    ):  # fmt: skip
        assert items(read(f"{tmp_path}/{pattern}")) == found, pattern


def test_a_file_of_a_folder_is_opened_once_to_tell_what_it_is_and_once_for_its_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet(tmp_path / "e/a.parquet", user_id=["u"], item_id=["a"], timestamp=["2026-01-01"])
    opens: list[Path] = []

    def counted(path: Path) -> Any:
        opens.append(path)
        return open_regular(path)

    monkeypatch.setattr("recsys.files.inputs.open_regular", counted)
    file = read(tmp_path / "e")
    assert len(opens) == 2
    assert items(file) == ["a"]


def digest(*given: Path, columns: Columns | None = None) -> str:
    return read(*given, columns=columns).content_digest


def test_the_same_content_is_the_same_import_under_any_name_and_packing(tmp_path: Path) -> None:
    text = (HEADER + LINE).encode()
    plain = csv(tmp_path / "a.csv", LINE.strip())
    assert digest(plain) == hashlib.sha256(text).hexdigest(), "as earlier releases have it"
    (tmp_path / "b.gz").write_bytes(gzip.compress(text))
    (tmp_path / "c.zst").write_bytes(zstd(text))
    packed = archive(tmp_path / "d.zip", {"x.csv": text})
    assert {digest(path) for path in (tmp_path / "b.gz", tmp_path / "c.zst", packed)} == {digest(plain)}
    other = csv(tmp_path / "e.csv", "u,b,2026-01-01")
    both = archive(tmp_path / "both.zip", {"1.csv": other.read_bytes(), "2.csv": text})
    assert digest(plain, other) == digest(other, plain) == digest(tmp_path / "b.gz", other) == digest(both)
    assert digest(plain, other) not in {digest(plain), digest(other)}
    first, second = (parquet(tmp_path / f"dt={day}/a.parquet", user_id=["u"], item_id=["a"]) for day in (1, 2))
    columns = Columns(timestamp="dt", timestamp_format="%d")
    assert digest(first, columns=columns) != digest(second, columns=columns)


def test_rejects_are_never_written_over_an_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "b.csv", "b.rejects.csv"):
        csv(tmp_path / name, f"u,{name},2026-01-01")
    with pytest.raises(InputFileError, match=r"--rejects: b\.csv is one of the input files"):
        rejects_path(find_inputs(["a.csv", "b.csv"]), Path("b.csv"))
    with pytest.raises(InputFileError, match=r"b\.rejects\.csv is one of the input files"):
        rejects_path(find_inputs(["b*.csv"]), None)


def test_utf_16_beside_utf_8_is_read_and_its_rejects_can_be_mended(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes((HEADER + "u,é,soon\n").encode("utf-16"))
    plain = csv(tmp_path / "b.csv", "u,ü,soon")
    rejected = written(read(tmp_path / "a.csv", plain), tmp_path / "r.csv")
    (tmp_path / "r.csv").write_text(rejected.replace("soon", "2026-01-01"), encoding="utf-8-sig")
    assert items(read(tmp_path / "r.csv", columns=Columns(encoding="cp1252"))) == ["é", "ü"]


def test_rows_of_parquet_keep_their_numbers_over_files_and_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.files.parquet_rows._BATCH_ROWS", 2)
    monkeypatch.setattr("recsys.files.event_file._BATCH_LINES", 3)
    for part in range(3):
        parquet(
            tmp_path / f"{part}.parquet",
            user_id=["u"] * 4,
            item_id=[f"{part}-{n}" for n in range(4)],
            timestamp=[DAY_MS] * 4,
        )
    file = read(tmp_path)
    assert [(batch.first_row, batch.last_row) for batch in file.batches()] == [(1, 3), (4, 6), (7, 9), (10, 12)]
    assert [row for row, _ in events(file)] == list(range(1, 13))
    assert items(file)[-1] == "2-3"


def told(*given: Path) -> list[tuple[str, list[float]]]:
    """Return the stages that reading opens, and what share was done at each step."""
    stages: list[tuple[str, list[float]]] = []

    class _Told:
        def __init__(self, name: str, unit: str, share: Any) -> None:
            self._shares: list[float] = []
            self._share = share
            stages.append((f"{name} ({unit})", self._shares))

        def __enter__(self) -> Any:
            return lambda steps: self._shares.append(self._share())

        def __exit__(self, *error: object) -> None:
            pass

    file = PurchaseFile(
        find_inputs(given), Columns(), events=READING, now=NOW,
        stage=lambda name, *, unit="", share=None: _Told(name, unit, share),
    )  # fmt: skip
    assert file.rows
    return stages


@pytest.mark.parametrize("form", ["csv", "gz", "zst", "zip", "jsonl", "parquet"])
def test_how_much_is_done_is_told_while_files_are_looked_through(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"a.{form}"
    random = Random(1)
    lines = [f"u{random.getrandbits(64):020d},i{n},2026-01-01" for n in range(200_000)]
    text = HEADER + "\n".join(lines)
    if form == "jsonl":
        text = "".join(f'{{"user_id": "{line[:21]}", "item_id": "a", "timestamp": "2026-01-01"}}\n' for line in lines)
    if form == "parquet":
        parquet(path, user_id=lines, item_id=lines, timestamp=["2026-01-01"] * len(lines))
    elif form == "zip":
        archive(path, {"a.csv": text})
    else:
        packed = {"gz": gzip.compress(text.encode()), "zst": zstd(text.encode())}
        path.write_bytes(packed.get(form, text.encode()))
    stages = told(path)
    assert [name for name, _ in stages] == [
        *(["look for fields in a.jsonl (lines)"] if form == "jsonl" else []), f"look through a.{form} (rows)"
    ]  # fmt: skip
    for _, shares in stages:
        assert len(shares) == 4
        assert 0.1 < shares[0] < shares[1] < shares[2] < shares[3] <= 1


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_spaces_around_the_names_of_columns_mean_nothing(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"a.{form}"
    if form == "csv":
        path.write_text(" user_id,item_id , timestamp \nu,a,2026-01-01\nu,b,soon\n")
    elif form == "jsonl":
        rows = [{" user_id": "u", "item_id ": "a", " timestamp ": at} for at in ("2026-01-01", "soon")]
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    else:
        parquet(path, **{" user_id": ["u"] * 2, "item_id ": ["a"] * 2, " timestamp ": ["2026-01-01", "soon"]})
    file = read(path)
    assert items(file) == ["a"]
    assert written(file, tmp_path / "r.csv").startswith('"user_id","item_id","timestamp","why"\n')


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_columns_whose_names_differ_in_spaces_alone_are_refused(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"a.{form}"
    if form == "csv":
        path.write_text("user_id, user_id,item_id,timestamp\nu,v,a,2026-01-01\n")
    else:
        path.write_text('{"user_id": "u", " user_id": "v", "item_id": "a", "timestamp": "2026-01-01"}\n')
    assert "column 'user_id' appears more than once" in error_of(path)


def test_an_empty_csv_among_several_is_said_and_passed_over(tmp_path: Path) -> None:
    paths = [csv(tmp_path / "a.csv", header=""), csv(tmp_path / "b.csv", "u,a,2026-01-01"), tmp_path / "c.csv.gz"]
    paths[2].write_bytes(gzip.compress(b""))
    file = read(*paths)
    assert items(file) == ["a"]
    assert list(file.remarks) == [f"{path}: the file is empty, and passed over" for path in (paths[0], paths[2])]
    assert file.content_digest == read(paths[1]).content_digest
    assert list(read(paths[1]).remarks) == []
