"""No part of a password is shown, whatever characters it has and wherever it stands."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from recsys.errors import SettingsError
from recsys.redis import open_store
from recsys.settings import load_settings, masked_folder, masked_url
from recsys.settings.masking import Secrets
from recsys.settings.report import describe_settings

SHORTEST = 4
SPECIAL = "?#@/:%[]& =+;,\\'\"<>^|`{}~!$()*.-_"
PASSWORDS = st.text(st.one_of(st.sampled_from(SPECIAL + "aZ7"), st.characters(exclude_characters="\0")), min_size=4)
FORMS = [
    "redis://:{}@127.0.0.1:6379/0",
    "redis://127.0.0.1:6379/0?password={}",
    "rediss://shop:{}@redis.example:6380",
    "rediss://127.0.0.1:6379/0?ssl_password={}&db=1",
    "unix://:{}@/run/redis.sock?db=1",
    "unix:///run/redis.sock?db=1&password={}",
    "redis+sentinel://:{}@127.0.0.1:26379/mymaster/0",
    ":{}@127.0.0.1:6379",
    "shop:{}@127.0.0.1:6379/0",
]
ALONE = ["redis://{}@127.0.0.1:6379/0", "{}@127.0.0.1"]
"""With a colon in it, the first part would be a user."""
FOLDERS = ["s3://key:{}@bucket/recsys", "simplecache::s3://key:{}@bucket", "sftp://shop:{}@host:22/srv/recsys"]
ORDINARY = ["zz", *(f"z{character}z" for character in SPECIAL), "z%41z", "z://z"]
"""What is shown for these as well is no part of the password."""


def said_of_redis(url: str) -> Iterator[str]:
    """Yield all that is said of an URL: by `recsys config`, in errors, and as the address in log lines."""
    yield masked_url(url)
    with patch.dict(os.environ, {"RECSYS_REDIS__URL": url}):
        try:
            settings = load_settings()
            yield next(value for name, value, *_ in describe_settings(settings) if name == "RECSYS_REDIS__URL")
            with open_store(settings):
                pass
        except SettingsError as error:
            yield str(error)


def said_of_folder(url: str) -> Iterator[str]:
    yield masked_folder(url)


def shown(said: Callable[[str], Iterator[str]], form: str, password: str) -> str:
    return "\n".join(said(form.format(password)))


@cache
def shown_anyway(said: Callable[[str], Iterator[str]], form: str) -> str:
    return "\n".join(shown(said, form, password) for password in ORDINARY)


def parts_shown(said: Callable[[str], Iterator[str]], form: str, password: str) -> list[str]:
    found = shown(said, form, password)
    parts = {password[at : at + SHORTEST] for at in range(len(password) - SHORTEST + 1)}
    return [part for part in parts if part in found and part not in shown_anyway(said, form)]


def encodable(password: str) -> bool:
    return not any(0xD800 <= ord(character) < 0xE000 for character in password)


@pytest.mark.parametrize("form", [*FORMS, *ALONE])
@hypothesis_settings(deadline=None)  # the machine may be busy
@given(password=PASSWORDS.filter(encodable))
def test_no_part_of_the_password_of_redis_is_shown(form: str, password: str) -> None:
    if form in ALONE:
        password = password.replace(":", ";")
    assert parts_shown(said_of_redis, form, password) == []


@pytest.mark.parametrize("form", FOLDERS)
@hypothesis_settings(deadline=None)  # the machine may be busy
@given(password=PASSWORDS)
def test_no_part_of_the_password_of_a_folder_is_shown(form: str, password: str) -> None:
    assert parts_shown(said_of_folder, form, password) == []


@hypothesis_settings(deadline=None)  # the machine may be busy
@given(before=st.text(), secret=st.text(min_size=4), after=st.text())
def test_a_secret_is_taken_out_of_any_text(before: str, secret: str, after: str) -> None:
    secrets = Secrets()
    secrets.remember([secret])
    shown = secrets.hidden_in(before + secret + after)
    assert secret not in shown.replace("***", "\0")


@hypothesis_settings(deadline=None)  # the machine may be busy
@given(secret=st.text("abcdefgh", min_size=4), start=st.integers(0, 20), length=st.integers(4, 20))
def test_a_part_of_a_secret_is_taken_out_of_what_quotes_settings(secret: str, start: int, length: int) -> None:
    part = secret[start : start + length]
    secrets = Secrets()
    secrets.remember([secret])
    shown = secrets.hidden_where_settings_are_quoted(f"NO SUCH '{part}'")
    assert shown == ("NO SUCH '***'" if len(part) >= SHORTEST else f"NO SUCH '{part}'")
