"""Files to read that must be files: a pipe holds up whoever opens it, a device may have no end, both may be planted."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader

_WITHOUT_WAITING = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)  # Windows knows neither


def open_regular(path: str | os.PathLike[str], flags: int = 0) -> BufferedReader:
    """Open a file to read, with further flags of `os.open` if need be; links are followed, as mounted secrets need it.

    Raises
    ------
    OSError
        Also when it is no regular file.
    """
    ensure_regular(os.stat(path).st_mode)  # what opening does to a device is not tried out
    return regular(os.open(path, _WITHOUT_WAITING | flags))


def regular(descriptor: int) -> BufferedReader:
    """Return the open file of a descriptor, which is closed if it is none.

    Raises
    ------
    OSError
        When it is no regular file.
    """
    try:
        ensure_regular(os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except OSError:
        os.close(descriptor)
        raise


def ensure_regular(mode: int) -> None:
    """Refuse anything but a regular file, given its mode.

    Raises
    ------
    OSError
        It says what there is instead.
    """
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, "this is a folder, not a file")
    kind = "pipe" if stat.S_ISFIFO(mode) else "socket" if stat.S_ISSOCK(mode) else "device"
    raise OSError(errno.ENODEV, f"this is a {kind}, not a file")


def what_is_no_file(path: str) -> str:
    """Return what is wrong with a path for a library to open: a pipe, socket or device is there; else nothing."""
    try:
        ensure_regular(os.stat(path).st_mode)
    except OSError as error:
        return str(error.strerror) if error.errno == errno.ENODEV else ""
    except ValueError:  # no path has a NUL
        return ""
    return ""
