"""Copies of a model's files that nobody else can change: what was checked is what is used.

A file of ``data_dir`` may be changed in place after its sha256 was compared; one that is cut off while it is mapped
kills the process (SIGBUS). So it is copied while it is hashed, and the copy is mapped. The processes of a machine that
run as the same user share a copy, named after its sha256, in a folder of the temporary one (TMPDIR) that is theirs
alone; it is hashed again by each. Whoever uses a copy holds a lock on it; those that nobody uses are removed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from recsys.logger import logger
from recsys.runtime.private_files import ensure_own_folder

log = logger(__name__)
_PIECE_BYTES = 2**20
_TEMPORARY = "copying-"


class Changed(ValueError):
    """The file is not the one that was asked for."""


def private_copy(source: BinaryIO, *, size: int, sha256: str) -> BinaryIO:
    """Return a file with the same content, to be read or mapped; close it when it is mapped.

    Where no folder can be had for copies, or it is full, the copy is in this process's memory.

    Parameters
    ----------
    source : binary file
        At its beginning. No more than ``size`` bytes and one are read.
    sha256 : str
        64 hexadecimal digits.

    Raises
    ------
    Changed
        When size or sha256 are others.
    """
    try:
        return _shared_copy(_folder(), source, size, sha256)
    except OSError as error:
        if not hasattr(os, "memfd_create"):  # not Linux
            raise
        log.warning(
            "no_private_copy",
            "no copy of the model can be kept in {path} ({error}), so this process holds it in memory: set "
            "TMPDIR to a folder of this user on a disk",
            path=error.filename or tempfile.gettempdir(),
            error=error.strerror or error,
        )
    source.seek(0)
    memory = os.fdopen(os.memfd_create("recsys-model", os.MFD_CLOEXEC), "w+b")
    return _copied(source, memory, size, sha256)


def ensure_unchanged(source: BinaryIO, *, size: int, sha256: str) -> None:
    """Read a file, no more than ``size`` bytes and one.

    Raises
    ------
    Changed
        When size or sha256 are others.
    """
    for _ in checked_pieces(source, size=size, sha256=sha256):
        pass


def checked_pieces(source: BinaryIO, *, size: int, sha256: str) -> Iterator[bytes]:
    """Yield a file piece by piece, no more than ``size`` bytes and one, and `Changed` at its end if it is another."""
    digest, left = hashlib.sha256(), size + 1
    while left and (piece := source.read(min(_PIECE_BYTES, left))):
        digest.update(piece)
        left -= len(piece)
        yield piece
    if left != 1 or digest.hexdigest() != sha256:
        raise Changed


def remove_unused_copies() -> None:
    """Remove the copies that no process uses, those of killed processes among them."""
    with suppress(OSError):
        for entry in os.scandir(_folder()):
            with suppress(OSError), open(entry.path, "rb", opener=_no_link) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                Path(entry.path).unlink()


def _folder() -> Path:
    """Return the folder for copies, which belongs to this user alone.

    Raises
    ------
    OSError
        When it cannot be made, or is somebody else's.
    """
    folder = Path(tempfile.gettempdir()) / f"recsys-models-{os.getuid()}"
    ensure_own_folder(folder)
    return folder


def _shared_copy(folder: Path, source: BinaryIO, size: int, sha256: str) -> BinaryIO:
    kept = folder / sha256
    if (there := _locked(kept)) is not None:
        if _is_equal(there, source, size, sha256):
            return there
        # Either it is not the file that was asked for, or the machine stopped before all of the copy was on disk.
        source.seek(0)
        ensure_unchanged(source, size=size, sha256=sha256)
        kept.unlink(missing_ok=True)
        source.seek(0)
    descriptor, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=folder)
    try:
        copy = os.fdopen(descriptor, "w+b")
        fcntl.flock(copy, fcntl.LOCK_SH)
        _copied(source, copy, size, sha256)
        with suppress(FileExistsError, FileNotFoundError):  # another process was quicker, or took it for left over
            os.link(name, kept)
    finally:
        Path(name).unlink(missing_ok=True)
    return copy


def _is_equal(there: BinaryIO, source: BinaryIO, size: int, sha256: str) -> bool:
    """Whether a copy has this sha256, and what the source holds; if not, it is closed."""
    with suppress(Changed):
        if all(source.read(len(piece)) == piece for piece in checked_pieces(there, size=size, sha256=sha256)):
            if not source.read(1):
                there.seek(0)
                return True
    there.close()
    return False


def _locked(kept: Path) -> BinaryIO | None:
    """Open a copy that is there, so that nobody removes it."""
    try:
        file = open(kept, "rb", opener=_no_link)
    except FileNotFoundError:
        return None
    fcntl.flock(file, fcntl.LOCK_SH)
    return file


def _copied(source: BinaryIO, copy: BinaryIO, size: int, sha256: str) -> BinaryIO:
    try:
        for piece in checked_pieces(source, size=size, sha256=sha256):
            copy.write(piece)
        copy.flush()
    except BaseException:
        copy.close()
        raise
    copy.seek(0)
    return copy


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
