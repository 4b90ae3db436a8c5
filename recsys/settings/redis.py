"""How Redis is reached: one server, a cluster, or a server that sentinels watch."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, SecretStr, field_validator, model_validator

from recsys.settings.fields import NotEmpty, Seconds
from recsys.settings.masking import PASSWORD, URL, UrlParts, is_secret
from recsys.settings.section import Section

_LAST_PORT = 65_535
_PERCENT_ENCODE = (
    "in user and password, special characters must be percent-encoded: # as %23, ? as %3F, / as %2F, @ as %40, "
    ": as %3A, % as %25, [ as %5B, ] as %5D, a space as %20"
)


def _may_hold_a_cut_password(parts: UrlParts, path: str) -> bool:
    """Whether a URL of Redis looks as if one of its special characters were meant as a part of the password."""
    if "#" in parts.rest or set("[]") & set(parts.credentials or ""):
        return True
    if any("@" in option and not is_secret(option.partition("=")[0]) for option in parts.options):
        return True
    has_authority = bool(parts.host or parts.credentials is not None)
    if parts.scheme == "unix":  # a socket may have an @ in its name
        return (has_authority and "@" in path) or not re.fullmatch(r"[\w.-]*", parts.host)
    return "@" in path


class RedisSettings(Section):
    """Where histories and lists live."""

    url: Annotated[SecretStr, URL] = SecretStr("redis://localhost:6379/0")
    """`redis://`, `rediss://` (TLS, certificates are verified) or `unix://`, with password and database if needed."""
    url_file: str = ""
    """File with the URL; instead of RECSYS_REDIS__URL."""

    @field_validator("url")
    @classmethod
    def _is_redis_url(cls, value: SecretStr) -> SecretStr:
        """Refuse here what redis-py and urllib would refuse with a part of the password in their text."""
        parts = UrlParts.of(value.get_secret_value())
        path, _, _ = parts.rest.partition("?")
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise ValueError("must start with redis://, rediss:// or unix://")
        if _may_hold_a_cut_password(parts, path):
            raise ValueError(_PERCENT_ENCODE)
        if parts.scheme != "unix" and not re.fullmatch(r"/?[0-9]*", path):
            raise ValueError(f"the database, after the last /, must be a number; {_PERCENT_ENCODE}")
        if not parts.has_host or (parts.port or 0) > _LAST_PORT:
            raise ValueError(f"before the database there must be host:port; {_PERCENT_ENCODE}")
        return value

    @field_validator("prefix")
    @classmethod
    def _cannot_collide(cls, value: str) -> str:
        if found := re.fullmatch(r"(.+?):popular(:.*)?", value):
            raise ValueError(
                f"must not have popular after a colon: the keys of this prefix could be those of the popular lists of "
                f"categories that belong to the prefix {found[1]}"
            )
        return value

    cluster: bool = False
    """Whether the URL names a node of a Redis Cluster; the node names the others."""
    sentinel: str = ""
    """Sentinels, `host:port` separated by commas: they say where the master is; of the URL the rest counts."""
    sentinel_master: NotEmpty = "mymaster"
    """Name under which the sentinels watch the master."""
    sentinel_user: str = ""
    """User at the sentinels; empty means their default user."""
    sentinel_password: Annotated[SecretStr, PASSWORD] = SecretStr("")
    """Password at the sentinels, if they ask for one; it is not that of the URL."""
    sentinel_password_file: str = ""
    """File with that password; instead of RECSYS_REDIS__SENTINEL_PASSWORD."""
    prefix: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.:-]+$")] = "recsys"
    """First part of every key. Installations that share a database have different ones."""
    timeout_s: Seconds = 5.0
    """How long a try waits for an answer; there are two tries."""

    @model_validator(mode="after")
    def _can_be_watched(self) -> RedisSettings:
        if not self.sentinel:
            return self
        for address in self.sentinel.split(","):
            parts = UrlParts.of(address.strip())
            if not parts.has_host or not parts.port or parts.port > _LAST_PORT or parts.rest or parts.credentials:
                raise ValueError("RECSYS_REDIS__SENTINEL: must be addresses, host:port separated by commas")
        if self.cluster or self.url.get_secret_value().startswith("unix:"):
            raise ValueError("RECSYS_REDIS__SENTINEL: sentinels watch no cluster, and no server behind a Unix socket")
        return self

    def sentinels(self) -> list[tuple[str, int]]:
        """Return host and port of each sentinel."""
        parts = [address.strip().rpartition(":") for address in self.sentinel.split(",")]
        return [(host.strip("[]"), int(port)) for host, _, port in parts]
