"""Files under ``data_dir``, on a local disk or any fsspec file system: written whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from recsys.errors import DataDirError
from recsys.runtime import fail_points
from recsys.runtime.full_disk import is_full, problem_of
from recsys.runtime.private_files import create_file, make_folder
from recsys.settings import masked_folder, secrets
from recsys.settings.regular_files import open_regular, regular

_TEMPORARY_SUFFIX = ".tmp"
_NO_LINKS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class NotAFile(DataDirError):
    """What should be a file is a symbolic link, a folder, a device or a pipe."""


class TooLarge(DataDirError):
    """A file has more bytes than one of its kind can have."""


class DiskFull(DataDirError):
    """The disk of a folder, or what a user may have of it, has no room for more."""


class Storage:
    """A folder.

    Files and folders appear under their names only when they are complete and on disk: a crash leaves at most a
    ``*.tmp`` behind, which nothing reads and the next write of the same name replaces. On a local disk they are their
    owner's alone, unless the folder has the set-group-ID bit: `recsys.runtime.private_files.mode_of_files`.

    Parameters
    ----------
    url : str
        A local folder, or any fsspec URL.
    """

    def __init__(self, url: str) -> None:
        self.url = masked_folder(url)
        """As people are shown it: without the password that a URL may hold."""
        try:
            self.fs, root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError, OSError) as error:
            shown = secrets.hidden_where_settings_are_quoted(str(error))
            raise DataDirError(f"{self.url} cannot be opened as a folder or URL: {shown}") from None
        self.root = root.rstrip("/") or "/"
        self.is_local = isinstance(self.fs, LocalFileSystem)

    def inside(self, relative: str) -> Storage:
        """Return a folder in this one."""
        folder = copy(self)
        folder.root, folder.url = self.path(relative), f"{self.url}/{relative}"
        return folder

    def path(self, relative: str) -> str:
        """Return the file system's own path of a relative one."""
        return f"{self.root}/{relative}"

    def uri(self, relative: str) -> str:
        """Return an absolute address that another process can open."""
        return self.path(relative) if self.is_local else self.fs.unstrip_protocol(self.path(relative))

    @contextmanager
    def errors_translated(self, relative: str) -> Iterator[None]:
        """Turn I/O errors into `DataDirError`."""
        try:
            yield
        except OSError as error:
            kind = NotAFile if error.errno in _NO_FILE else DiskFull if is_full(error) else DataDirError
            raise kind(f"{self.uri(relative)}: {problem_of(error, self.root)}") from error

    def write_file(self, relative: str, content: bytes, *, fail_point: str | None = None) -> None:
        """Write a file, whole or not at all, replacing one of the same name."""
        with self.errors_translated(relative):
            if not self.is_local:
                self.fs.pipe_file(self.path(relative), content)  # object stores show an object once it is complete
                return
            path = Path(self.path(relative))
            make_folder(path.parent, shared_with=Path(self.root))
            temporary = path.with_name(path.name + _TEMPORARY_SUFFIX)
            _remove(temporary)
            try:
                self._write_and_sync(temporary, content, fail_point=fail_point)
                temporary.replace(path)
            except OSError:
                temporary.unlink(missing_ok=True)
                raise
            _sync_folder(path.parent)

    def write_folder(self, relative: str, files: Mapping[str, bytes], *, last: str) -> None:
        """Write a new folder of files, whole or not at all; ``last`` is the file whose presence says it is whole.

        A name may lead into a folder inside it.
        """
        with self.errors_translated(relative):
            if not self.is_local:
                for name in sorted(files, key=lambda name: (name == last, name)):
                    self.fs.pipe_file(self.path(f"{relative}/{name}"), files[name])
                return
            folder = Path(self.path(relative))
            temporary = folder.with_name(folder.name + _TEMPORARY_SUFFIX)
            _remove(temporary)
            try:
                make_folder(temporary, shared_with=Path(self.root))
                for name, content in files.items():
                    make_folder((temporary / name).parent, shared_with=Path(self.root))
                    self._write_and_sync(temporary / name, content, fail_point="in-model")
                for inner in {(temporary / name).parent for name in files}:
                    _sync_folder(inner)
                temporary.rename(folder)
            except OSError:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            _sync_folder(folder.parent)

    def read_file(self, relative: str) -> bytes:
        """Return a file's content; a missing one stays FileNotFoundError."""
        with self._missing_told_apart(relative):
            if not self.is_local:
                return bytes(self.fs.cat_file(self.path(relative)))
            with open_regular(self.path(relative)) as file:
                return file.read()

    @contextmanager
    def reading(self, relative: str) -> Iterator[BinaryIO]:
        """Open a file to read parts of it; a missing one stays FileNotFoundError."""
        with self._missing_told_apart(relative):
            path = self.path(relative)
            with open_regular(path) if self.is_local else self.fs.open(path, "rb") as file:
                yield file

    @contextmanager
    def opened(self, relative: str) -> Iterator[tuple[BinaryIO, int]]:
        """Open a file that may have been planted, and yield it with its size; a missing one stays FileNotFoundError.

        Raises
        ------
        NotAFile
            When it is no regular file, or any name on the way below this folder is a symbolic link.
        """
        with self._missing_told_apart(relative):
            if not self.is_local:
                path = self.path(relative)
                with self.fs.open(path, "rb") as file:
                    yield file, int(self.fs.size(path) or 0)
                return
            with regular(_opened_below(self.root, relative)) as file:
                yield file, os.fstat(file.fileno()).st_size

    def read_at_most(self, relative: str, most: int) -> bytes:
        """Return the content of a file that may have been planted, see `opened`.

        Raises
        ------
        TooLarge
            When it has more than ``most`` bytes.
        """
        with self.opened(relative) as (file, _):
            content = file.read(most + 1)
        if len(content) > most:
            raise TooLarge(f"{self.uri(relative)} has more than {most:,} bytes")
        return content

    @contextmanager
    def _missing_told_apart(self, relative: str) -> Iterator[None]:
        try:
            with self.errors_translated(relative):
                yield
        except DataDirError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise error.__cause__ from None
            raise

    def files(self, relative: str, suffix: str) -> list[str]:
        """Return the relative paths of all files below a folder that end in ``suffix``, sorted."""
        if self.is_local and Path(self.root).is_file():
            raise DataDirError(f"{self.root} is a file, not a folder; set RECSYS_DATA_DIR")
        with self.errors_translated(relative):
            self.fs.invalidate_cache()
            found = self.fs.find(self.path(relative))
        return sorted(path[len(self.root) + 1 :] for path in found if path.endswith(suffix))

    def size_bytes(self, relative: str) -> int:
        """Return the size of all files below a folder."""
        with self.errors_translated(relative):
            self.fs.invalidate_cache()
            return sum(int(info["size"] or 0) for info in self.fs.find(self.path(relative), detail=True).values())

    def disk(self) -> tuple[int, int] | None:
        """Return the free and the total bytes of the disk; None where it is no local folder."""
        if not self.is_local:
            return None
        with self.errors_translated(""):
            usage = shutil.disk_usage(self.root)
        return usage.free, usage.total

    def delete(self, relative: str) -> None:
        """Remove a file or folder with all that is in it; nothing happens if there is none."""
        with self.errors_translated(relative):
            try:
                self.fs.rm(self.path(relative), recursive=True)
            except FileNotFoundError:
                return

    def remove_temporaries(self, relative: str) -> None:
        """Remove what crashed writes left below a folder; call it only while nobody else writes there."""
        if not self.is_local:
            return
        with self.errors_translated(relative):
            for path in list(Path(self.path(relative)).rglob(f"*{_TEMPORARY_SUFFIX}")):
                _remove(path)

    def check_writable(self, *, probe: bytes = b"") -> None:
        """Raise `DataDirError` unless a file can be written and synced; whatever happens on the way, nothing is left.

        ``probe`` is what the file is to hold: an empty one can be made on a disk that is full.
        """
        try:
            if self.is_local:
                make_folder(Path(self.root))
                with tempfile.TemporaryFile(dir=self.root) as file:  # it has no name that a crash could leave
                    file.write(probe)
                    file.flush()
                    os.fsync(file.fileno())
                return
            name = self.path(f"writable-{os.getpid()}")
            self.fs.pipe_file(name, probe)
            self.fs.rm(name)
        except OSError as error:
            problem = problem_of(error, self.root)
            if is_full(error):
                raise DiskFull(problem) from error
            raise DataDirError(f"{self.root} is not a writable folder ({problem}); set RECSYS_DATA_DIR") from error

    def nearest(self) -> Storage:
        """Return this folder, or the nearest one above it that is there."""
        if not self.is_local or Path(self.root).exists():
            return self
        above = copy(self)
        above.root = next((str(path) for path in Path(self.root).absolute().parents if path.exists()), "/")
        return above

    def check_readable(self) -> None:
        """Raise `DataDirError` unless the folder is there and can be read."""
        with self.errors_translated(""):
            self.fs.invalidate_cache()
            self.fs.ls(self.root, detail=False)

    def _write_and_sync(self, path: Path, content: bytes, *, fail_point: str | None) -> None:
        with open(create_file(path, shared_with=Path(self.root)), "wb") as file:
            half = len(content) // 2
            file.write(content[:half])
            if fail_point is not None:
                fail_points.reach(fail_point)
            file.write(content[half:])
            file.flush()
            os.fsync(file.fileno())


_NO_FILE = (errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.ENXIO, errno.ENODEV)


def _opened_below(root: str, relative: str) -> int:
    """Open a file below a folder without following symbolic links, and return its descriptor."""
    *folders, name = PurePosixPath(relative).parts
    at = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            deeper = os.open(folder, _NO_LINKS | os.O_DIRECTORY, dir_fd=at)
            os.close(at)
            at = deeper
        return os.open(name, _NO_LINKS | os.O_NONBLOCK, dir_fd=at)
    finally:
        os.close(at)


def _remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it; nothing happens if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync_folder(path: Path) -> None:
    """Make a rename survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
