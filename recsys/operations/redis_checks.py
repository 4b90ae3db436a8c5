"""Whether Redis is the right one, keeps what it has, and lets this service do its work."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from recsys.operations.finding import Finding, fine, of_line
from recsys.operations.server_lines import eviction_line, memory_line, persistence_line
from recsys.operations.status_facts import redis_server_facts
from recsys.operations.status_line import Level
from recsys.operations.status_words import named
from recsys.redis.rights import user_of
from recsys.redis.server_look import ServerLook
from recsys.redis.suitability import why_unfit
from recsys.settings import Settings

_EVICTS_NOTHING = "noeviction"
_FIT = {"version": "redis-version", "mode": "redis-mode", "role": "redis-role"}


def server_findings(settings: Settings, looks: Sequence[ServerLook]) -> Iterator[Finding]:
    """Yield what the servers tell of themselves; what `recsys status` tells as well is decided there."""
    facts = [redis_server_facts(look.address, look.info) for look in looks]
    yield from _fitness(settings, looks)
    yield of_line("redis-memory", memory_line(facts, settings.status))
    eviction = of_line("redis-eviction", eviction_line(facts))
    evicting = [look for look, fact in zip(looks, facts, strict=True) if fact.policy != _EVICTS_NOTHING]
    yield _with_command(eviction, evicting, "CONFIG", "SET", "maxmemory-policy", _EVICTS_NOTHING)
    yield of_line("redis-persistence", persistence_line(facts))
    without = [look for look, fact in zip(looks, facts, strict=True) if not fact.append_only]
    if not without:
        yield fine("redis-append-only", "appendonly yes")
    else:
        where = named([look.address for look in without])
        text = f"none at {where}; with appendonly yes a restart loses a second of writes at most"
        finding = Finding("redis-append-only", Level.WARNING, text, advice="and in redis.conf: appendonly yes")
        yield _with_command(finding, without, "CONFIG", "SET", "appendonly", "yes")


def _fitness(settings: Settings, looks: Sequence[ServerLook]) -> Iterator[Finding]:
    unfit: dict[str, list[str]] = {code: [] for code in _FIT}
    for look in looks:
        for why in why_unfit(look.info, on_cluster=settings.redis.cluster):
            if why.code in unfit:
                unfit[why.code].append(f"Redis at {look.address} {why.words}")
    good = {
        "version": named([str(look.info.get("redis_version", "")) for look in looks]),
        "mode": "a cluster" if settings.redis.cluster else "no cluster",
        "role": named([str(look.info.get("role", "")) for look in looks]),
    }
    for code, problems in unfit.items():
        if problems:
            yield Finding(_FIT[code], Level.BROKEN, named(problems), advice=_ADVICE[code])
        else:
            yield fine(_FIT[code], good[code])


_ADVICE = {
    "version": "install a newer one, see Redis in contract.md",
    "mode": "correct RECSYS_REDIS__CLUSTER or RECSYS_REDIS__URL",
    "role": "correct RECSYS_REDIS__URL, or see Redis Sentinel",
}


def _with_command(finding: Finding, looks: Sequence[ServerLook], *words: str) -> Finding:
    """Add what redis-cli is to tell these servers, where all is not well."""
    if not finding.level:
        return finding
    return Finding(finding.code, finding.level, finding.text, _redis_cli(looks, *words), finding.advice)


def _redis_cli(looks: Sequence[ServerLook], *words: str) -> str:
    """Return the commands that tell each of these servers something; who runs them logs in as may be."""
    return " && ".join(shlex.join(["redis-cli", *look.cli, *words]) for look in looks)


def rights_finding(settings: Settings, looks: Sequence[ServerLook], missing: Sequence[str]) -> Finding:
    """Say which rights are missing, as an ACL names them; each server has an ACL of its own."""
    user = user_of(settings.redis.url.get_secret_value())
    if not missing:
        return fine("redis-rights", f"user {user} has all")
    text = f"user {user} lacks {', '.join(missing)}"
    name = user if " " not in user else "NAME"
    return Finding("redis-rights", Level.BROKEN, text, _redis_cli(looks, "ACL", "SETUSER", name, *missing))
