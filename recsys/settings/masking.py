"""Hiding passwords in what people and logs are shown: by the form of a URL, and by what the passwords are.

A password that was not percent-encoded makes a URL that can be read in several ways. What is shown of it is only what
cannot be a part of the password in any of them. Texts of libraries and servers may quote what they were given, so the
secrets of the settings in use are taken out of every log line and error as well.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, unquote_plus

from recsys.settings.key_entries import secrets_in_entry, split_entries

HIDDEN = "***"
_SCHEMES = frozenset(
    "redis rediss unix redis+sentinel rediss+sentinel redis+unix valkey valkeys "
    "file s3 s3a gs gcs abfs abfss az adl hdfs webhdfs http https ftp sftp ssh smb memory".split()
)
_SECRET_WORDS = re.compile(r"pass|pwd|secret|key\.pem|jaas|token|credential", re.IGNORECASE)
_SHOWN_OF_SASL = frozenset(
    "sasl.mechanism sasl.mechanisms sasl.username sasl.kerberos.service.name sasl.kerberos.principal "
    "sasl.oauthbearer.method sasl.oauthbearer.client.id sasl.oauthbearer.scope".split()
)
_HARMLESS_OPTION = re.compile(r"(db|protocol|health_check_interval|\w*timeout|ssl_cert_reqs|ssl_ca_certs)=[\w./-]*")
_HOST = re.compile(r"([^\s:@\[\]]*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_MISSPELT = re.compile(r":(.*)@", re.DOTALL)
"""A user and a password in what should be a URL, as in ``s3:/key:password@bucket``."""
_SHORTEST = 4
"""A shorter secret, or part of one, is not looked for in texts: it is in too many words."""
_PART = 8
"""So long a part of a secret is hidden in any text; in those that quote settings, one of `_SHORTEST`."""


class UrlParts(NamedTuple):
    """A URL cut where its special characters are, with nothing decoded."""

    scheme: str
    credentials: str | None
    """User and password; None = there is no @."""
    host: str
    """Host and port."""
    rest: str
    """Path, query and fragment."""

    @classmethod
    def of(cls, url: str) -> UrlParts:
        """Cut a URL; without ``://`` the scheme is empty."""
        scheme, separator, after = url.partition("://")
        if not separator:
            scheme, after = "", url
        authority, rest = _cut(after, re.compile(r"[/?#]"))
        credentials, at, host = authority.rpartition("@")
        return cls(scheme, credentials if at else None, host, rest)

    @property
    def options(self) -> list[str]:
        """What the query holds, such as ``db=1``."""
        query = self.rest.partition("?")[2].partition("#")[0]
        return query.split("&") if query else []

    @property
    def has_host(self) -> bool:
        """Whether host and port can be such."""
        return _HOST.fullmatch(self.host) is not None

    @property
    def port(self) -> int | None:
        """The port, None if the URL names none."""
        found = _HOST.fullmatch(self.host)
        return int(found[2][1:]) if found and found[2] else None


def _cut(text: str, at: re.Pattern[str]) -> tuple[str, str]:
    found = at.search(text)
    place = found.start() if found else len(text)
    return text[:place], text[place:]


def masked_url(url: str) -> str:
    """Hide the password of a URL, wherever it stands, and all that may be a part of it."""
    parts = UrlParts.of(url)
    if parts.scheme.rpartition("::")[2] not in _SCHEMES and (not parts.scheme or "@" in url):
        return HIDDEN
    start = f"{parts.scheme}://"
    if "@" in parts.rest or "#" in parts.rest or not parts.has_host:
        return start + HIDDEN  # the password may go on behind the /, ? or # that seems to end it
    path, _, query = parts.rest.partition("?")
    if query and not all(_HARMLESS_OPTION.fullmatch(option) for option in parts.options):
        query = HIDDEN
    if parts.credentials is None:
        credentials = ""
    else:
        user, colon, _ = parts.credentials.partition(":")
        shown = user if colon and re.fullmatch(r"[\w.-]*", user) else ""
        credentials = f"{shown}{colon}{HIDDEN}@"
    return f"{start}{credentials}{parts.host}{path}{'?' if query else ''}{query}"


def masked_folder(url: str) -> str:
    """Hide the password in the address of a folder, which may be a path or a URL, or one that is misspelt."""
    if "://" not in url:
        return HIDDEN if _MISSPELT.search(url) else url
    shown, mark, _ = re.match(r"([^?;#]*)([?;#]?)(.*)", masked_url(url), re.DOTALL).groups()  # type: ignore[union-attr]
    return f"{shown}{mark}{HIDDEN}" if mark else shown


def is_secret(name: str) -> bool:
    """Whether a property of librdkafka, or an option of a URL, is a secret, or may be a misspelt one."""
    lower = name.lower()
    return bool(_SECRET_WORDS.search(lower)) or (
        (lower.startswith("sasl.") or "oauth" in lower) and lower not in _SHOWN_OF_SASL
    )


def secrets_in_url(url: str) -> Iterator[str]:
    """Yield the password of a URL, and those among its options, as they are written and as they are meant."""
    parts = UrlParts.of(url)
    if parts.credentials:
        user, colon, password = parts.credentials.partition(":")
        yield from (secret := password if colon else user, unquote(secret))
    for option in parts.options:
        name, _, value = option.partition("=")
        if is_secret(name):
            yield from (value, unquote_plus(value))


def _secrets_in_folder(url: str) -> Iterator[str]:
    if "://" in url:
        yield from secrets_in_url(url)
    elif found := _MISSPELT.search(url):
        yield from (found[1], found[1].rpartition(":")[2])


def _is_url(value: Any) -> bool:
    return isinstance(value, str) and "://" in value


def _masked_properties(properties: Mapping[str, Any]) -> str:
    return str(
        {
            name: HIDDEN if is_secret(name) else masked_url(value) if _is_url(value) else value
            for name, value in properties.items()
        }
    )


def _secrets_in_properties(properties: Mapping[str, Any]) -> Iterator[str]:
    for name, value in properties.items():
        if is_secret(name):
            yield str(value)
        elif _is_url(value):
            yield from secrets_in_url(value)


def _secrets_in_keys(keys: str) -> Iterator[str]:
    for entry in split_entries(keys):
        yield from secrets_in_entry(entry)


@dataclass(frozen=True, slots=True)
class MayHoldSecret:
    """Marks a setting as one that may hold a secret; `recsys.settings.sections` names one of these with its type.

    Attributes
    ----------
    shown : callable
        Value → what people are shown of it.
    secrets : callable
        Value → the secrets in it, which are taken out of all texts.
    """

    shown: Callable[[Any], str]
    secrets: Callable[[Any], Iterable[str]]


URL = MayHoldSecret(masked_url, secrets_in_url)
FOLDER = MayHoldSecret(masked_folder, _secrets_in_folder)
PROPERTIES = MayHoldSecret(_masked_properties, _secrets_in_properties)
PASSWORD = MayHoldSecret(lambda value: HIDDEN if value else "", lambda value: [value])
KEYS = MayHoldSecret(lambda value: HIDDEN if value else "", _secrets_in_keys)


class Secrets:
    """The secrets of the settings in use, to be taken out of texts."""

    def __init__(self) -> None:
        self._known: frozenset[str] = frozenset()

    def remember(self, secrets: Iterable[str]) -> None:
        """Hide these from now on."""
        given = {secret for secret in secrets if len(secret) >= _SHORTEST}
        self._known |= given | {quote(secret, safe="") for secret in given}

    def hidden_in(self, text: str, *, part: int = _PART) -> str:
        """Return a text without secrets, and without parts of them that are at least so many characters long."""
        hidden = [False] * len(text)
        for secret in self._known:
            length = min(part, len(secret))
            parts = {secret[at : at + length] for at in range(len(secret) - length + 1)}
            for at in range(len(text) - length + 1):
                if text[at : at + length] in parts:
                    hidden[at : at + length] = [True] * length
        shown = (
            HIDDEN if is_hidden and not (at and hidden[at - 1]) else "" if is_hidden else character
            for at, (character, is_hidden) in enumerate(zip(text, hidden, strict=True))
        )
        return "".join(shown) if any(hidden) else text

    def hidden_where_settings_are_quoted(self, text: str) -> str:
        """Return a text of a library that may quote settings, without even short parts of secrets."""
        return self.hidden_in(text, part=_SHORTEST)


secrets = Secrets()
"""Those of this process: there is one set of settings, and one log."""


def hide_in_records(record: logging.LogRecord) -> bool:
    """Filter log records of a library that may quote settings: nothing is left out but secrets."""
    record.msg, record.args = secrets.hidden_where_settings_are_quoted(record.getMessage()), ()
    return True
