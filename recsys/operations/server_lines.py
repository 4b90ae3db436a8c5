"""The lines of `recsys status` about Redis servers and disks; `recsys doctor` has them as findings."""

from __future__ import annotations

from collections.abc import Sequence

from recsys.operations.status_facts import DiskFacts, RedisServerFacts
from recsys.operations.status_line import Level, Line, falling
from recsys.operations.status_words import counted, named, size
from recsys.settings.status import StatusSettings


def memory_line(servers: Sequence[RedisServerFacts], settings: StatusSettings) -> Line:
    """Say how much memory Redis has left."""
    known = [server for server in servers if server.limit]
    if not known:
        return Line("memory", "Redis memory", Level.OK, f"{size(sum(server.used for server in servers))} used")
    fullest = min(known, key=lambda server: _left(server.limit - server.used, server.limit))
    of = "maxmemory" if fullest.has_maxmemory else "the machine's"
    left = _left(fullest.limit - fullest.used, fullest.limit)
    text = f"{size(fullest.used)} of {of} {size(fullest.limit)} used, {left:.0%} left"
    remedy = "give Redis more memory, see Evicted keys"
    return falling("memory", "Redis memory", text, left, settings.memory_headroom, remedy)


def disk_line(found: DiskFacts, settings: StatusSettings) -> Line:
    """Say how much of the disk of ``data_dir`` is free."""
    if not found.total:
        return Line("disk", "disk", Level.OK, "RECSYS_DATA_DIR is no local folder")
    left = _left(found.free, found.total)
    text = f"{size(found.free)} of {size(found.total)} free, {left:.0%}"
    remedy = "make room on the disk of RECSYS_DATA_DIR, see Is the shop being served?"
    return falling("disk", "disk", text, left, settings.disk_free, remedy)


def eviction_line(servers: Sequence[RedisServerFacts]) -> Line:
    """Say whether Redis evicts keys, or may."""
    said = "eviction", "Redis eviction"
    remedy = "set maxmemory-policy noeviction and run recsys rebuild, see Evicted keys"
    policies = ", ".join(sorted({server.policy for server in servers}))
    if any(server.policy.startswith("allkeys") for server in servers):
        return Line(*said, Level.BROKEN, f"{policies}: may evict histories", remedy)
    evicted = sum(server.evicted for server in servers)
    if evicted or any(server.policy.startswith("volatile") for server in servers):
        return Line(*said, Level.WARNING, f"{policies}; {counted(evicted, 'key')} evicted", remedy)
    return Line(*said, Level.OK, f"{policies}; nothing is evicted")


def persistence_line(servers: Sequence[RedisServerFacts]) -> Line:
    """Say whether Redis can write what it keeps on disk."""
    said = "persistence", "Redis on disk"
    if problems := [
        f"{server.address}: {server.persistence_problem}" for server in servers if server.persistence_problem
    ]:
        remedy = "look at the log and the disk of Redis, see Is the shop being served?"
        return Line(*said, Level.BROKEN, named(problems), remedy)
    with_file = sum(server.append_only for server in servers)
    if with_file == len(servers):
        return Line(*said, Level.OK, "append-only file")
    return Line(*said, Level.OK, "no append-only file: after a restart the newest writes are read again, or rebuilt")


def _left(left: int, total: int) -> float:
    return max(0.0, left / total)
