"""What can be read only once, such as standard input, is kept, for files are read twice."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable
from typing import BinaryIO, cast

from recsys.errors import InputFileError

_PIECE = 1 << 20


class Spooled:
    """A stream, kept in a temporary file without a name, which nobody else can open and no crash leaves behind.

    Parameters
    ----------
    stream : binary file
    name : str
        For errors.
    advance : callable
        Told how many bytes were read.

    Raises
    ------
    InputFileError
        When it cannot be read, or there is no room for it.
    """

    def __init__(self, stream: BinaryIO, name: str, advance: Callable[[int], None]) -> None:
        self.size = 0
        try:
            self._file = tempfile.TemporaryFile(buffering=0)
            while piece := stream.read(_PIECE):
                self._keep(memoryview(piece))
                advance(len(piece))
        except OSError as error:
            raise InputFileError(
                f"{name}: cannot be kept in {tempfile.gettempdir()} to be read twice: {error.strerror or error}; set "
                f"TMPDIR to a folder with more room, or name a file"
            ) from error

    def _keep(self, piece: memoryview) -> None:
        while piece:
            written = self._file.write(piece) or 0
            self.size += written
            piece = piece[written:]

    def open(self) -> BinaryIO:
        """Return a reader from the start; several may read at once."""
        return cast(BinaryIO, io.BufferedReader(_Reader(self)))

    def read_at(self, position: int, size: int) -> bytes:
        """Return bytes from a position on: as many as are there."""
        return os.pread(self._file.fileno(), size, position)


class _Reader(io.RawIOBase):
    def __init__(self, kept: Spooled) -> None:
        self._kept = kept
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        starts = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._kept.size}
        self._position = max(0, starts[whence] + offset)
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        found = self._kept.read_at(self._position, len(buffer))
        buffer[: len(found)] = found
        self._position += len(found)
        return len(found)
