"""Files and folders that only their owner may read, made where nobody has laid something in the way.

Purchases, lists of customers and audit lines are personal data: on a machine with other users they are nobody else's.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

from recsys.settings.regular_files import ensure_regular

_FILE, _FOLDER = 0o600, 0o700
_GROUP_MAY_READ, _GROUP_MAY_ENTER = 0o040, 0o050
_DEVICES = (os.devnull, "/dev/full")
_WRITE = os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)  # Windows knows neither


def create_file(path: Path, *, shared_with: Path | None = None) -> int:
    """Make a new, empty file in place of one of the same name and return its descriptor, open for writing.

    A file of that name is removed, not written into: it may be a hard link to something else. ``/dev/null``, and
    ``/dev/full`` to try out a full disk, are opened as they are.

    Parameters
    ----------
    path : Path
    shared_with : Path or None
        A folder of which `mode_of_files` says who else may read the file.

    Raises
    ------
    OSError
        Also when there is a symbolic link of that name, wherever it leads, or a folder, pipe, socket or device.
    """
    found = _may_be_replaced(path)
    if found is not None:
        if _takes_anything(found):
            return _opened_to_take_anything(path)
        path.unlink()
    descriptor = os.open(path, _WRITE | os.O_CREAT | os.O_EXCL, _FILE)
    if shared_with is not None and (mode := mode_of_files(shared_with)) != _FILE:
        os.fchmod(descriptor, mode)
    return descriptor


def ensure_can_be_created(path: Path) -> None:
    """Find out whether `create_file` can make a file, and leave everything as it is.

    Raises
    ------
    OSError
        When it cannot.
    """
    found = _may_be_replaced(path)
    if found is None or not _takes_anything(found):
        tempfile.TemporaryFile(dir=path.parent).close()


def _may_be_replaced(path: Path) -> os.stat_result | None:
    """Return what has this name, None if nothing has; refuse what is no regular file."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(found.st_mode):
        raise OSError(errno.ELOOP, "this is a symbolic link, and what it leads to shall not be overwritten")
    if not _takes_anything(found):
        ensure_regular(found.st_mode)
    return found


def _takes_anything(found: os.stat_result) -> bool:
    devices = (os.stat(path).st_rdev for path in _DEVICES if os.path.exists(path))
    return stat.S_ISCHR(found.st_mode) and found.st_rdev in devices


def _opened_to_take_anything(path: Path) -> int:
    descriptor = os.open(path, _WRITE | getattr(os, "O_NONBLOCK", 0))
    if not _takes_anything(os.fstat(descriptor)):  # it was replaced meanwhile
        os.close(descriptor)
        raise OSError(errno.ENODEV, "this is another device than it was")
    return descriptor


def make_folder(path: Path, *, shared_with: Path | None = None) -> None:
    """Make a folder, and those above it that are missing, unless it is there.

    Parameters
    ----------
    path : Path
    shared_with : Path or None
        See `create_file`.
    """
    if path.is_dir():
        return
    make_folder(path.parent, shared_with=shared_with)
    try:
        path.mkdir(_FOLDER)
    except FileExistsError:  # made by another process meanwhile
        if not path.is_dir():
            raise
        return
    if shared_with is not None and mode_of_files(shared_with) != _FILE:
        path.chmod(_FOLDER | _GROUP_MAY_ENTER | stat.S_ISGID)


def mode_of_files(folder: Path) -> int:
    """Return the mode of files in a folder: its owner's alone, unless the folder has the set-group-ID bit.

    With that bit an operator says that the folder's group shares what is in it (``chmod 2750``).
    """
    try:
        shared = bool(folder.stat().st_mode & stat.S_ISGID)
    except FileNotFoundError:
        shared = False
    return _FILE | _GROUP_MAY_READ if shared else _FILE


def ensure_own_folder(path: Path) -> None:
    """Make a folder that is this user's alone, or make sure that the one that is there is.

    Raises
    ------
    PermissionError
        When somebody else may have made it, or may write into it.
    """
    try:
        path.mkdir(_FOLDER)
    except FileExistsError:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise PermissionError(
                errno.EPERM, "it must be a folder of this user's own that nobody else may enter; remove it", str(path)
            ) from None
