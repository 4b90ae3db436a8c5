"""Secrets from files, such as those that Kubernetes and Docker mount: read anew whenever they are needed."""

from __future__ import annotations

import os
import stat

from recsys.errors import SettingsError
from recsys.logger import logger
from recsys.settings.regular_files import open_regular

log = logger(__name__)
_LARGEST = 1 << 20
_ROOT = 0
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
        When it cannot be read, is empty or no text, or is not to be trusted: see `ensure_trustworthy`.
    """
    try:
        with open_regular(path) as file:
            ensure_trustworthy(path, os.fstat(file.fileno()), variable, warns=warns)
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


def ensure_trustworthy(path: str, found: os.stat_result, variable: str, *, warns: bool = True) -> None:
    """Look at who else may use a file that holds a secret; that everyone may read it is said once, as a warning.

    Parameters
    ----------
    path : str
    found : os.stat_result
        Of the file itself, where ``path`` is a link to it.
    variable : str
        The setting that names the file, for error texts.
    warns : bool
        Whether it is said that everyone may read the file.

    Raises
    ------
    SettingsError
        When it belongs to neither the user of this process nor root, or others than its owner may write into it: what
        they write would be believed.
    """
    permissions = f"mode {stat.S_IMODE(found.st_mode):04o}"
    if found.st_uid not in (_ROOT, os.geteuid()):
        raise SettingsError(
            f"{variable}: {path}, which holds a secret, belongs to another user (uid {found.st_uid}), who may write "
            f"into it; chown it to the user of this process (uid {os.geteuid()}) or to root"
        )
    if found.st_mode & _WRITABLE_BY_OTHERS:
        raise SettingsError(
            f"{variable}: others than its owner may write into {path} ({permissions}), which holds a secret; "
            f"chmod 600 it"
        )
    if warns and found.st_mode & _READABLE_BY_ALL and path not in _warned_of:
        _warned_of.add(path)
        log.warning(
            "secret_readable",
            "{variable}: every user of this machine may read {path} ({permissions}), which holds a secret; chmod "
            "600 it",
            variable=variable,
            path=path,
            permissions=permissions,
        )
