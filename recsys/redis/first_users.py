"""``python -m recsys.redis.first_users FOLDER ADDRESS HOST_ADDRESS``: users of a new Redis, with passwords made up.

The folder gets ``users.acl``, which Redis reads, and for each user a file with the URL to log in with. Where they are
there already, they stay. Redis is told digests only, so everyone may read ``users.acl``.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from pathlib import Path

from recsys.redis.rights import Service, acl_rules
from recsys.runtime.private_files import create_file

_USERS = {
    "consumer": acl_rules(Service.CONSUMER),
    "trainer": acl_rules(Service.TRAINER),
    "api": acl_rules(Service.API),
    "operator": acl_rules(Service.COMMAND),
    "app": ["resetkeys", "resetchannels", "~recsys:*", "-@all", "+exists", "+get", "+mget", "+ping"],
}
"""Whoever logs in, and may do what; ``app`` stands for programs that read lists."""
_ON_THE_HOST = ("operator", "app")
_WHOEVER_COMES = "user default on nopass resetkeys resetchannels -@all +ping\n"
"""For health checks."""


def make_users(folder: Path, address: str, host_address: str) -> None:
    """Make up a password for each user, unless that has been done.

    Parameters
    ----------
    folder : Path
        It is there, and this process may write into it.
    address, host_address : str
        Redis as services reach it, and as programs on the machine that they run on do, ``host:port``.
    """
    users = folder / "users.acl"
    if users.exists():
        return
    lines = [_WHOEVER_COMES]
    for name, rules in _USERS.items():
        password = secrets.token_urlsafe(32)
        _write(folder / f"{name}.url", f"redis://{name}:{password}@{address}/0\n")
        if name in _ON_THE_HOST:
            _write(folder / f"{name}-on-host.url", f"redis://{name}:{password}@{host_address}/0\n")
        lines.append(f"user {name} on #{hashlib.sha256(password.encode()).hexdigest()} {' '.join(rules)}\n")
    _write(folder / "users.new", "".join(lines))
    (folder / "users.new").chmod(0o644)
    (folder / "users.new").replace(users)  # last: whoever was interrupted before begins anew


def _write(path: Path, text: str) -> None:
    with open(create_file(path), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    make_users(Path(sys.argv[1]), *sys.argv[2:])
