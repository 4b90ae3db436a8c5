"""Which files a command is to read: files, globs, folders of Parquet, ZIP archives, and standard input."""

from __future__ import annotations

import glob
import itertools
import os
import sys
import weakref
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, cast
from urllib.parse import unquote

from recsys.errors import InputFileError
from recsys.files.spooled import Spooled
from recsys.files.unpacking import READING_ERRORS, Packing, packing_of, plain
from recsys.runtime.progress import Stage, no_stage
from recsys.settings.regular_files import ensure_regular, open_regular

STDIN: Final = "-"
PARQUET: Final = b"PAR1"
_RECURSIVE = "**"
_NO_DATA = (".", "_")
_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, slots=True)
class Input:
    """One file to read: one on disk, a member of a ZIP archive, or what came on standard input.

    Attributes
    ----------
    name : str
        As errors name it.
    open : callable
        Returns a new stream of its bytes from the start; one that can seek, but for members of archives.
    size : int
        How many bytes there are.
    packing : Packing
        Of these bytes; `Packing.ZIP` is a member of an archive, which comes unpacked.
    partitions : mapping
        Column → value, as the folders of Hive partitions say; None is no value.
    is_parquet : bool
        Whether it begins as Parquet does, and is not packed.
    """

    name: str
    open: Callable[[], BinaryIO]
    size: int
    packing: Packing
    partitions: Mapping[str, str | None] = field(default_factory=dict)
    is_parquet: bool = False


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that a command is to read as one table.

    Attributes
    ----------
    label : str
        What errors name: the path, or the first one and how many more there are.
    name : str
        The same without folders.
    files : tuple of Input
        In the order in which they are read.
    paths : tuple of Path
        Those that are on disk.
    """

    label: str
    name: str
    files: tuple[Input, ...]
    paths: tuple[Path, ...]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)


def find_inputs(given: Sequence[str | Path], stage: Stage = no_stage) -> Inputs:
    """Find the files that are named: in the given order, those of a glob or a folder sorted by their names.

    Parameters
    ----------
    given : sequence of str or Path
        Files, globs (``*``, ``?``, ``[a-z]``, ``**``), folders, or ``-`` for standard input. What is named twice is
        read once.
    stage : callable
        Opened while standard input is read.

    Raises
    ------
    InputFileError
        When one is not there or cannot be opened, or a glob finds nothing.
    """
    found: dict[Path, list[Input]] = {}
    for name in given:
        path = Path(name)
        try:
            for file in _found(name):
                path = file.path
                key = path if str(path) == STDIN else path.resolve()
                if key not in found:
                    found[key] = list(_inputs(file, stage))
        except READING_ERRORS as error:
            raise InputFileError(f"{path}: cannot be read: {plain(error)}") from error
    files = tuple(file for files in found.values() for file in files)
    labels = list(dict.fromkeys("standard input" if str(name) == STDIN else str(name) for name in given))
    more = f" and {len(labels) - 1:,} more" if len(labels) > 1 else ""
    return Inputs(
        f"{labels[0]}{more}",
        f"{Path(labels[0]).name}{more}",
        files,
        tuple(path for path in found if str(path) != STDIN),
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """A file that a name stands for.

    Attributes
    ----------
    path : Path
    below : Path
        The folder that was named; what is below it tells files apart.
    is_in_folder : bool
        Whether it was found in a folder that was named as a whole, not by a name or a glob.
    """

    path: Path
    below: Path
    is_in_folder: bool = False

    def partitions(self) -> dict[str, str | None]:
        """Return what folders say: ``dt=2026-01-01/country=DE/part-0.parquet`` has two columns more.

        These are the folders below the one that was named, itself if its name is such, and those such right above it.
        """
        folders, begin = self.path.parts[:-1], len(self.below.parts)
        while begin and _is_partition(folders[begin - 1]):
            begin -= 1
        pairs = [folder.partition("=") for folder in folders[begin:] if _is_partition(folder)]
        return {unquote(column): None if value == _NO_PARTITION else unquote(value) for column, _, value in pairs}


def _is_partition(folder: str) -> bool:
    return folder.find("=") > 0


def _found(given: str | Path) -> Iterator[_Found]:
    """Yield the files that a name stands for: itself, what a glob finds, or the files of a folder."""
    path = Path(given)
    if str(given) == STDIN:
        yield _Found(path, path.parent)
    elif path.is_dir():
        for found in _files_in(path):
            yield _Found(found, path, is_in_folder=True)
    elif _is_there(path):
        yield _Found(path, path.parent)
    elif glob.has_magic(str(given)):
        paths = sorted(_matching(path))
        files = [path for path in paths if not path.is_dir()]
        if not files:
            folders = "; a folder is read if it is named without *" if paths else ""
            raise InputFileError(f"{given}: no file has such a name{folders}")
        named = list(itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
        for found in files:
            yield _Found(found, Path(*named))
    else:
        raise InputFileError(f"{given}: there is no such file")


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except ValueError:  # no name of a file holds a NUL
        return False


def _matching(pattern: Path) -> set[Path]:
    """Return what a glob finds. ``**`` goes through each folder once, whatever links there are, unlike that of glob."""
    parts = pattern.parts
    if _RECURSIVE not in parts:
        return {Path(name) for name in glob.glob(str(pattern))}
    at = parts.index(_RECURSIVE)
    rest = parts[at + 1 :] or ("*",)
    tops = _matching(Path(*parts[:at])) if at else {Path()}
    folders = {folder for top in tops for folder, _ in _walk(top, passed_over=(".",))}
    return {path for folder in folders for path in _matching(Path(glob.escape(str(folder)), *rest))}


def _files_in(folder: Path) -> list[Path]:
    """Return the files of a folder and of the folders in it; what begins with . or _ is left by programs, no data."""

    def refuse(error: OSError) -> None:
        raise InputFileError(f"{error.filename}: cannot be read: {error.strerror}") from error

    walked = _walk(folder, passed_over=_NO_DATA, onerror=refuse)
    paths = [Path(parent, name) for parent, names in walked for name in names if not name.startswith(_NO_DATA)]
    if not paths:
        raise InputFileError(
            f"{folder}: this is a folder, not a file, and it holds no Parquet file; {_instead_of(folder)}"
        )
    return sorted(paths)


def _walk(
    folder: Path, *, passed_over: tuple[str, ...], onerror: Callable[[OSError], None] | None = None
) -> Iterator[tuple[Path, list[str]]]:
    """Yield a folder and those in it, each with the names of its files, and each once: links may lead in circles."""
    seen = {os.path.realpath(folder)}
    for parent, folders, names in os.walk(folder, onerror=onerror, followlinks=True):
        under, folders[:] = sorted(folders), []
        for name in under:
            if not name.startswith(passed_over) and (real := os.path.realpath(Path(parent, name))) not in seen:
                folders.append(name)
                seen.add(real)
        yield Path(parent), names


def _instead_of(folder: Path) -> str:
    return f"name what is to be read, such as '{folder}/*.csv'"


def _inputs(found: _Found, stage: Stage) -> Iterator[Input]:
    """Yield what is in a file: itself, or the members of a ZIP archive."""
    name, source = _source(found.path, stage)
    size = source.size if isinstance(source, Spooled) else source.stat().st_size
    opened = source.open if isinstance(source, Spooled) else partial(open_regular, source)
    start = _start(opened())
    if start == PARQUET:
        yield Input(name, opened, size, Packing.NONE, found.partitions(), is_parquet=True)
        return
    if found.is_in_folder:
        folder = found.below
        raise InputFileError(f"{folder}: {name} is no Parquet file; a folder may hold no other; {_instead_of(folder)}")
    packing = packing_of(start)
    if packing is not Packing.ZIP:
        yield Input(name, opened, size, packing)
        return
    stored = opened()
    try:
        archive = zipfile.ZipFile(stored)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        stored.close()
        raise InputFileError(
            f"{name}: this is a damaged ZIP archive ({plain(error)}), or an Excel workbook: save it as CSV"
        ) from error
    weakref.finalize(archive, stored.close)
    yield from _members(name, archive)


def _source(path: Path, stage: Stage) -> tuple[str, Path | Spooled]:
    """Return a name for errors, and what can be opened as often as is needed."""
    if str(path) == STDIN:
        if sys.stdin is None:  # as where a supervisor has closed it
            raise InputFileError("standard input is closed")
        with stage("read standard input", unit="bytes") as advance:
            return "standard input", Spooled(sys.stdin.buffer, "standard input", advance)
    try:
        ensure_regular(path.stat().st_mode)
    except OSError as error:
        raise InputFileError(f"{path}: {error.strerror}") from None
    return str(path), path


def _members(name: str, archive: zipfile.ZipFile) -> Iterator[Input]:
    """Yield the files in a ZIP archive, but those that macOS puts there, which are no data."""
    members = [member for member in archive.infolist() if not member.is_dir()]
    if any(member.filename == "[Content_Types].xml" for member in members):
        raise InputFileError(f"{name}: this is an Excel workbook: save it as CSV")
    data = [member for member in members if not member.filename.rpartition("/")[2].startswith(".")]
    data = [member for member in data if not member.filename.startswith("__MACOSX/")]
    if not data:
        raise InputFileError(f"{name}: no file is in this ZIP archive")
    for member in sorted(data, key=lambda member: member.filename):
        inside = "".join(c if c.isprintable() else "?" for c in member.filename)
        yield Input(f"{name}/{inside}", partial(_member, archive, member), member.file_size, Packing.ZIP)


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> BinaryIO:
    return cast(BinaryIO, archive.open(member))


def _start(file: BinaryIO) -> bytes:
    with file:
        return file.read(len(PARQUET))
