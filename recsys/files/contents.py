"""What a file is follows from its content, not from its name."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import BinaryIO, Final, TextIO, cast

from recsys.errors import InputFileError
from recsys.files.inputs import PARQUET, Input
from recsys.files.unpacking import unpacked

_START = 4096
_PIECE = 1 << 16
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r"))
_LARGE_SHARE = 0.05  # of control characters: text has next to none, what is packed has an eighth
_OTHER_FORMATS: Final = {
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: save it as CSV",
    b"BZh": "bzip2: unpack it first",
    b"\xfd7zXZ": "xz: unpack it first",
    b"7z\xbc\xaf\x27\x1c": "7-Zip: unpack it first",
    b"PARE": "encrypted Parquet: decrypt it first",
    b"ORC": "ORC: convert it to Parquet",
    b"Obj\x01": "Avro: convert it to Parquet",
    b"SQLite format 3": "a SQLite database: export a table as CSV",
    b"%PDF": "a PDF",
}
_PACKED_AGAIN: Final = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"PK\x03\x04": "a ZIP archive or an Excel workbook",
}


class Kind(StrEnum):
    """What a file with named columns can be."""

    CSV = "CSV"
    JSON_LINES = "JSON Lines"
    PARQUET = "Parquet"


@dataclass(frozen=True, slots=True)
class Content:
    """What a file is.

    Attributes
    ----------
    kind : Kind
    encoding : str
        Of text: as a byte order mark says, else as the operator does.
    """

    kind: Kind
    encoding: str


def content_of(file: Input, encoding: str) -> Content:
    """Look at the first bytes of a file.

    Raises
    ------
    InputFileError
        When it is of another kind.
    """
    if file.is_parquet:
        return Content(Kind.PARQUET, encoding)
    with opened(file) as stream:
        start = stream.read(_START)
    if start.startswith(PARQUET):
        raise InputFileError(f"{file.name}: this is Parquet inside of {file.packing}: unpack it first")
    for mark, format_ in _OTHER_FORMATS.items():
        if start.startswith(mark):
            raise InputFileError(f"{file.name}: this is {format_}; a file must be CSV, JSON Lines or Parquet")
    for mark, packed in _PACKED_AGAIN.items():
        if start.startswith(mark):
            raise InputFileError(f"{file.name}: this is {packed} inside of {file.packing}: unpack it once")
    marked = next((encoding for mark, encoding in _BYTE_ORDER_MARKS if start.startswith(mark)), "")
    is_wide = codecs.lookup(encoding).name[:6] in ("utf-16", "utf-32")
    if not marked and not is_wide and _is_binary(start):
        raise InputFileError(
            f"{file.name}: this is neither text nor Parquet; if it is text, name its --encoding, such as utf-16"
        )
    first = codecs.getincrementaldecoder(marked or encoding)("replace").decode(start).lstrip()
    if first.startswith("["):
        raise InputFileError(
            f"{file.name}: this is a list in JSON; write each of its objects in a line of its own, as jq -c '.[]' does"
        )
    return Content(Kind.JSON_LINES if first.startswith("{") else Kind.CSV, marked or encoding)


@contextmanager
def opened(file: Input, advance: Callable[[int], None] = lambda _: None) -> Iterator[BinaryIO]:
    """Open what is in a file, unpacked; ``advance`` is told how many of its bytes were read."""
    with file.open() as stored:
        counted = cast(BinaryIO, io.BufferedReader(_Counted(stored, advance), _PIECE))
        with counted, unpacked(counted, file.packing) as stream:
            yield stream


@contextmanager
def opened_text(
    file: Input, encoding: str, advance: Callable[[int], None] = lambda _: None, *, errors: str = "strict"
) -> Iterator[TextIO]:
    """Open a file as text, with the ends of its lines as they are; ``errors`` is what Python's codecs take."""
    with opened(file, advance) as stream:
        with io.TextIOWrapper(stream, encoding=encoding, errors=errors, newline="") as text:
            yield text


class _Counted(io.RawIOBase):
    """A stream that tells how much of it was read."""

    def __init__(self, stored: BinaryIO, advance: Callable[[int], None]) -> None:
        self._stored = stored
        self._advance = advance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        found = self._stored.read(len(buffer))
        buffer[: len(found)] = found
        self._advance(len(found))
        return len(found)


def _is_binary(start: bytes) -> bool:
    """Whether a file that begins so is no text: a stray NUL costs its row, one in the header or many bytes the file."""
    if b"\0" not in start:
        return False
    controls = len(start) - len(start.translate(None, _CONTROLS))
    return b"\0" in start.splitlines()[0] or controls > _LARGE_SHARE * len(start)
