"""Reading settings from the environment and the TOML file, with errors that name the setting."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from pydantic import ValidationError

from recsys.errors import SettingsError
from recsys.settings.masking import secrets
from recsys.settings.regular_files import open_regular
from recsys.settings.secret_files import ensure_trustworthy
from recsys.settings.section import ENV_PREFIX, Section, secret_kind, secrets_of
from recsys.settings.sections import CONFIG_VARIABLE, Settings

_TEST_PREFIX = "RECSYS_TEST_"


_NEAR = 0.8
"""How much alike a wrong name and its suggestion must be: a slip of the keyboard, not another word."""
_KEY_FILES = ("ssl.key.location", "ssl.keystore.location", "sasl.oauthbearer.assertion.private.key.file")
"""Properties of librdkafka that name a file with a private key."""
_REDIS_KEY = "ssl_keyfile"
_ARRAYS = {"api.cors_origins": '["https://shop.example"]', "events.no_user": '["0", "guest"]'}
"""Setting → an example of what it is in the environment."""


def load_settings() -> Settings:
    """Read the environment and the TOML file named by RECSYS_CONFIG.

    Raises
    ------
    SettingsError
        One line per problem, naming the setting as it would be written in the environment.
    """
    _check_config_file()
    _check_variables()
    try:
        settings = Settings()
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        raise SettingsError("; ".join(_explained(problem) for problem in problems)) from None
    held = [secret for secret in secrets_of(settings) if secret]
    secrets.remember(held)
    _check_trust_in_config_file(held)
    _check_trust_in_private_keys(settings)
    return settings


def _explained(problem: Any) -> str:
    """Return one line that names the setting; a value that may hold a secret is not shown."""
    path = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        return f"{_no_such_setting(variable_name(path))}{_where(path)}"
    message: str = problem["msg"].removeprefix("Value error, ")
    if path[:2] == ["kafka", "librdkafka"]:
        return f"{variable_name(path[:2])}: {': '.join([*path[2:3], message])}"
    if message.startswith(ENV_PREFIX):  # it names the setting itself
        return f"{message}{_where(path)}"
    value = problem["input"]
    shown = isinstance(value, str | int | float) and not _may_be_secret(path) and not _is_section(path)
    return f"{variable_name(path)}: {message}" + (f" (given: {value!r})" if shown else "") + _where(path)


def _may_be_secret(path: Sequence[str]) -> bool:
    settings = type(Settings.model_fields[path[0]].default) if _is_section(path[:1]) and len(path) > 1 else Settings
    name = path[1] if settings is not Settings else path[0]
    return name in settings.model_fields and secret_kind(settings, name) is not None


def _no_such_setting(name: str) -> str:
    paths = [
        [section, *inner]
        for section, field in Settings.model_fields.items()
        for inner in ([[part] for part in type(field.default).model_fields] if _is_section([section]) else [[]])
    ]
    names = {variable_name(path).removeprefix(ENV_PREFIX): variable_name(path) for path in paths}
    near = difflib.get_close_matches(name.upper().removeprefix(ENV_PREFIX), names, n=1, cutoff=_NEAR)
    hint = f"is it {names[near[0]]}?" if near else "recsys config lists them all"
    return f"{name}: there is no such setting; {hint}"


def _where(path: Sequence[str]) -> str:
    """Name the file, if that is where the setting comes from."""
    file, variables = os.environ.get(CONFIG_VARIABLE), {name.upper() for name in os.environ}
    from_environment = not variables.isdisjoint(variable_name(path[:n]) for n in range(1, len(path) + 1))
    return "" if file is None or from_environment else f", in {file}"


def _is_section(path: Sequence[str]) -> bool:
    return len(path) == 1 and isinstance(Settings.model_fields[path[0]].default, Section)


def variable_name(path: Sequence[str]) -> str:
    """Return the environment variable of a setting, given the names that lead to it."""
    return ENV_PREFIX + "__".join(part.upper() for part in path)


def _check_config_file() -> None:
    path = os.environ.get(CONFIG_VARIABLE)
    if not path:
        return
    try:
        tomllib.loads(_text_of(path))
    except OSError as error:
        raise SettingsError(f"{CONFIG_VARIABLE}: cannot read {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{CONFIG_VARIABLE}: {path} is not TOML: {error}") from None


def _text_of(path: str) -> str:
    with open_regular(path) as file:
        return file.read().decode()


def _check_trust_in_config_file(held: Sequence[str]) -> None:
    """Look at who may use the TOML file, if it holds one of the secrets."""
    if path := os.environ.get(CONFIG_VARIABLE):
        text = _text_of(path)
        if any(secret in text for secret in held):
            ensure_trustworthy(path, Path(path).stat(), CONFIG_VARIABLE)


def _check_trust_in_private_keys(settings: Settings) -> None:
    """Look at who may use the files with private keys for TLS and logins that settings name."""
    properties = settings.kafka.librdkafka
    named = [(f"{ENV_PREFIX}KAFKA__LIBRDKAFKA: {name}", properties[name]) for name in _KEY_FILES if name in properties]
    query = settings.redis.url.get_secret_value().partition("?")[2]
    named += [(f"{ENV_PREFIX}REDIS__URL: {_REDIS_KEY}", path) for path in parse_qs(query).get(_REDIS_KEY, [])]
    named += [
        (f"{ENV_PREFIX}EVENTS__REGISTRY_KEY", settings.events.registry_key or settings.events.registry_certificate)
    ]
    for variable, path in named:
        try:
            found = os.stat(str(path))
        except (OSError, ValueError):  # whoever connects with it says so
            continue
        ensure_trustworthy(str(path), found, variable)


def _check_variables() -> None:
    """Refuse variables that pydantic-settings would pass over, and name those that it could not read."""
    for variable in sorted(os.environ):
        upper = variable.upper()
        if not upper.startswith(ENV_PREFIX) or upper == CONFIG_VARIABLE or upper.startswith(_TEST_PREFIX):
            continue
        path = upper.removeprefix(ENV_PREFIX).lower().split("__")
        if path[0] not in Settings.model_fields or (len(path) > 1 and not _is_section(path[:1])):
            raise SettingsError(_no_such_setting(variable))
        if example := _ARRAYS.get(".".join(path)):
            if not _is_json(os.environ[variable], list):
                raise SettingsError(f"{variable}: must be a JSON array, such as {example}")
        elif (_is_section(path) or path == ["kafka", "librdkafka"]) and not _is_json(os.environ[variable], dict):
            raise SettingsError(f'{variable}: must be a JSON object, such as {{"name": "value"}}')


def _is_json(text: str, kind: type) -> bool:
    try:
        return isinstance(json.loads(text), kind)
    except ValueError:
        return False
