"""Clocks, the folder of archive and models, and whether services agree with one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import recsys
from recsys.errors import DataDirError
from recsys.operations.finding import Finding, fine
from recsys.operations.status_line import Level
from recsys.operations.status_words import duration, named
from recsys.redis.server_look import ServerLook
from recsys.redis.service_registry import FoundServices
from recsys.storage.files import DiskFull, Storage

CLOCK_OFF_S, CLOCK_WRONG_S = 10.0, 300.0
"""From when on a clock is worth a warning, and is broken."""
SLOW_SYNC_S = 1.0
_PROBE_BYTES = 64 * 1024
_TIMEDATECTL = "timedatectl set-ntp true"


def redis_clock(looks: Sequence[ServerLook]) -> Finding:
    """Say how far the clocks of Redis are from this machine's."""
    known = {look.address: look.ahead_s for look in looks if look.ahead_s is not None}
    if not known:
        return fine("clock-redis", "this user may not ask for it (TIME)")
    address, ahead_s = max(known.items(), key=lambda item: abs(item[1]))
    direction = "ahead of" if ahead_s > 0 else "behind"
    text = f"that of Redis at {address} is {duration(abs(ahead_s))} {direction} this machine's"
    return _of_clock("clock-redis", abs(ahead_s), text)


def records_clock(newest_ms: int | None, at: datetime) -> Finding:
    """Say whether the newest record comes from the future: only clocks of brokers or shops that are ahead are seen."""
    if newest_ms is None:
        return fine("clock-kafka", "there is no record yet to compare with")
    ahead_s = newest_ms / 1000 - at.timestamp()
    if ahead_s <= 0:
        return fine("clock-kafka", f"the newest record is {duration(-ahead_s)} old")
    text = f"the newest record is {duration(ahead_s)} ahead of this machine's clock"
    return _of_clock("clock-kafka", ahead_s, text)


def _of_clock(code: str, off_s: float, text: str) -> Finding:
    level = Level.BROKEN if off_s > CLOCK_WRONG_S else Level.WARNING if off_s > CLOCK_OFF_S else Level.OK
    if not level:
        return fine(code, text)
    return Finding(code, level, text, _TIMEDATECTL, "on the machine whose clock is wrong")


def folder_finding(storage: Storage, *, to_write: bool, clock: Callable[[], float]) -> Finding:
    """Say whether ``data_dir`` can be read and, for those who do, written to; nothing is left there."""
    nearest = storage.nearest()
    if nearest is not storage and not to_write:
        text = f"{storage.url} is not there, so no model can be loaded"
        advice = "set RECSYS_DATA_DIR as for the trainer; its first round makes the folder"
        return Finding("data-dir", Level.WARNING, text, advice=advice)
    try:
        if not to_write:
            storage.check_readable()
            return fine("data-dir", f"{storage.url} can be read")
        started = clock()
        nearest.check_writable(probe=bytes(_PROBE_BYTES))
        took_s = clock() - started
    except DiskFull as error:
        advice = "a lower RECSYS_TRAINER__KEEP_VERSIONS keeps fewer models"
        return Finding("data-dir", Level.BROKEN, str(error), advice=advice)
    except DataDirError as error:
        advice = "correct the folder's owner, or set RECSYS_DATA_DIR"
        return Finding("data-dir", Level.BROKEN, str(error), advice=advice)
    where = storage.url if nearest is storage else f"{nearest.root}, where {storage.url} is to be,"
    text = f"64 KiB written to {where} and synced in {duration(took_s)}"
    if took_s > SLOW_SYNC_S:
        return Finding("data-dir", Level.WARNING, text, advice="a disk this slow holds up rounds and imports")
    return fine("data-dir", text)


def versions_finding(services: FoundServices) -> Finding:
    """Say whether all that runs, and this command, are of one release."""
    found = {f"{entry.kind} on {entry.host}": entry.version for entry in services.entries}
    others = {who: version for who, version in found.items() if version != recsys.__version__}
    if others:
        said = named([f"{who} is {version}" for who, version in others.items()])
        text = f"{said}; this command is {recsys.__version__}"
        return Finding("versions", Level.WARNING, text, advice="install the same release everywhere, and restart")
    return fine("versions", f"all are {recsys.__version__}" if found else f"this is {recsys.__version__}; none runs")


def readings_finding(own: str, services: FoundServices, noted_of: Sequence[str]) -> Finding:
    """Say whether records are read in one way: by these settings, by services, and as was noted of the newest ones."""
    told = {f"{entry.kind} on {entry.host}": reading_told(entry) for entry in services.entries}
    others = {who: reading for who, reading in told.items() if reading and reading != own}
    noted = set(noted_of) - {own}
    if others:
        said = f"{named([f'{who} as {reading}' for who, reading in others.items()])}; these settings as {own}"
    elif noted:
        said = f"the newest records as {named(sorted(noted))}; these settings as {own}"
    else:
        return fine("readings", f"records are read in one way ({own})")
    advice = "give all the same RECSYS_EVENTS__ settings and the same mapping, see Changing how records are read"
    return Finding("readings", Level.WARNING, said, advice=advice)


def reading_told(entry: object) -> str:
    """Return how a service says that it reads records; empty of one that reads none, or is of an earlier release."""
    return str(getattr(getattr(entry, "facts", None), "reading", ""))


def registry_finding(services: FoundServices) -> Finding:
    """Say whether what services tell of themselves can be read."""
    if services.damaged:
        return Finding("registry", Level.WARNING, named(services.damaged), advice="do what the line says")
    kinds = sorted({entry.kind for entry in services.entries})
    return fine("registry", f"{len(services.entries)} processes run: {', '.join(kinds)}" if kinds else "none runs")
