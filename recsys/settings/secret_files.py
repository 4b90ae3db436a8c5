"""Secrets from files, such as those that Kubernetes and Docker mount: read anew whenever they are needed."""

from __future__ import annotations

import logging
import os
import stat

from recsys.errors import SettingsError
from recsys.settings.regular_files import open_regular

log = logging.getLogger(__name__)
_LARGEST = 1 << 20
_WRITABLE_BY_OTHERS, _READABLE_BY_ALL = 0o022, 0o004
_warned_of: set[str] = set()


def read_secret_file(path: str, variable: str, *, warns: bool = True) -> str:
    """Return what a file with a secret holds, without spaces and line ends around it.

    Parameters
    ----------
    path : str
    variable : str
        The setting that names the file, for error texts.
    warns : bool
        Whether it is said that everyone may read the file.

    Raises
    ------
    SettingsError
        When it cannot be read, is empty or no text, or when others than its owner may write into it.
    """
    try:
        with open_regular(path) as file:
            ensure_trustworthy(path, os.fstat(file.fileno()).st_mode, variable, warns=warns)
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise SettingsError(f"{variable}: cannot read {path}: {error.strerror or error}") from None
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        raise SettingsError(f"{variable}: {path} is not UTF-8 text") from None
    if not text or len(content) > _LARGEST:
        raise SettingsError(f"{variable}: {path} {'holds nothing' if not text else 'is too large for a secret'}")
    return text


def ensure_trustworthy(path: str, mode: int, variable: str, *, warns: bool = True) -> None:
    """Look at who else may use a file that holds a secret; that everyone may read it is said once, as a warning.

    Raises
    ------
    SettingsError
        When others than its owner may write into it: what they write would be believed.
    """
    permissions = f"mode {stat.S_IMODE(mode):04o}"
    if mode & _WRITABLE_BY_OTHERS:
        raise SettingsError(
            f"{variable}: others than its owner may write into {path} ({permissions}), which holds a secret; "
            f"chmod 600 it"
        )
    if warns and mode & _READABLE_BY_ALL and path not in _warned_of:
        _warned_of.add(path)
        log.warning(
            "%s: every user of this machine may read %s (%s), which holds a secret; chmod 600 it",
            variable, path, permissions,
        )  # fmt: skip
