"""Listing all settings, with where each value comes from and secrets masked."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from recsys.settings import CONFIG_VARIABLE, Settings, masked_url, variable_name

_SECRET_WORDS = ("password", "passphrase", "secret", "key.pem", "jaas", "oauthbearer.config")


def describe_settings(settings: Settings) -> Iterator[tuple[str, str, str, str]]:
    """Yield (variable, value with secrets masked, source, meaning) for every setting."""
    file_values: Mapping[str, Any] = {}
    if path := os.environ.get(CONFIG_VARIABLE):
        file_values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    environment = {name.upper(): value for name, value in os.environ.items()}
    for name, top in Settings.model_fields.items():
        value = getattr(settings, name)
        if not isinstance(value, BaseModel):
            yield _row((name,), value, top.description, environment, file_values)
            continue
        for field_name, field in type(value).model_fields.items():
            yield _row((name, field_name), getattr(value, field_name), field.description, environment, file_values)


def _row(
    path: tuple[str, ...],
    value: Any,
    description: str | None,
    environment: Mapping[str, str],
    file_values: Mapping[str, Any],
) -> tuple[str, str, str, str]:
    variable = variable_name(path)
    in_file: Any = file_values
    for part in path:
        in_file = in_file.get(part) if isinstance(in_file, Mapping) else None
    in_section = len(path) > 1 and path[1] in json.loads(environment.get(variable_name(path[:1]), "{}"))
    if in_section or variable in environment or any(name.startswith(f"{variable}__") for name in environment):
        source = "environment"
    elif in_file is not None:
        source = "file"
    else:
        source = "default"
    return variable, _shown(value), source, " ".join((description or "").split())


def _shown(value: Any) -> str:
    if isinstance(value, SecretStr):
        secret = value.get_secret_value()
        return masked_url(secret) if "://" in secret else "***" if secret else ""
    if isinstance(value, dict):
        return str({name: "***" if _is_secret(name) else item for name, item in value.items()})
    return str(value)


def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in _SECRET_WORDS)
