"""Packed files: read as streams, never unpacked to disk, and what their errors mean."""

from __future__ import annotations

import gzip
import lzma
import zipfile
import zlib
from enum import StrEnum
from typing import BinaryIO, Final, cast

import pyarrow as pa

READING_ERRORS: Final = (
    pa.ArrowException,
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    RuntimeError,  # of zipfile, also NotImplementedError: an encrypted member, or one packed in a way it does not know
    UnicodeError,
    ArithmeticError,
    ValueError,
)


class Packing(StrEnum):
    """How the bytes of a file are packed."""

    NONE = ""
    GZIP = "gzip"
    ZSTD = "Zstandard"
    ZIP = "ZIP"


_MARKS = (
    (b"\x1f\x8b", Packing.GZIP),
    (b"\x28\xb5\x2f\xfd", Packing.ZSTD),
    *((bytes([0x50 + n]) + b"\x2a\x4d\x18", Packing.ZSTD) for n in range(16)),  # a frame that zstd passes over
    (b"PK\x03\x04", Packing.ZIP),
    (b"PK\x05\x06", Packing.ZIP),  # an empty archive
)


def packing_of(start: bytes) -> Packing:
    """Say how a file that begins so is packed."""
    return next((packing for mark, packing in _MARKS if start.startswith(mark)), Packing.NONE)


def unpacked(raw: BinaryIO, packing: Packing) -> BinaryIO:
    """Return what is in a stream that is packed; members of ZIP archives are streams already."""
    if packing is Packing.GZIP:
        return cast(BinaryIO, gzip.open(raw))
    if packing is Packing.ZSTD:
        return cast(BinaryIO, pa.CompressedInputStream(raw, "zstd"))
    return raw


def plain(error: Exception, packing: Packing = Packing.NONE) -> str:
    """Return in a few words why a file cannot be read."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UnicodeDecodeError):
        return f"byte 0x{error.object[error.start : error.start + 1].hex()} is not {error.encoding}"
    if packing is Packing.NONE:
        return text
    if isinstance(error, EOFError) or text == "Truncated compressed stream":
        return f"the {packing} data ends too early"
    if isinstance(error, gzip.BadGzipFile) and text.startswith("Not a gzipped file"):
        return "other bytes follow the end of the gzip data: unpack it, and look at what comes out"
    if isinstance(error, NotImplementedError):
        return "it is packed in a way that is not known here: unpack it first"
    if isinstance(error, RuntimeError) and "password" in text:
        return "it is encrypted: unpack it first"
    if "too much memory" in text:
        return "unpacking needs too much memory (zstd --long): unpack it first"
    if isinstance(error, gzip.BadGzipFile | zlib.error | lzma.LZMAError | zipfile.BadZipFile) or "ZSTD" in text:
        return f"the {packing} data is damaged: make the file anew"
    return text
