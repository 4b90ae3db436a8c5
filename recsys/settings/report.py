"""Listing all settings, with where each value comes from and secrets masked."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, SecretStr

from recsys.settings.loading import variable_name
from recsys.settings.masking import MayHoldSecret
from recsys.settings.regular_files import open_regular
from recsys.settings.section import Section, secret_kind
from recsys.settings.sections import CONFIG_VARIABLE, Settings


def describe_settings(settings: Settings) -> Iterator[tuple[str, str, str, str]]:
    """Yield (variable, value with secrets masked, source, meaning) for every setting."""
    file_values: Mapping[str, Any] = {}
    if path := os.environ.get(CONFIG_VARIABLE):
        with open_regular(path) as file:
            file_values = tomllib.load(file)
    environment = {name.upper(): value for name, value in os.environ.items()}
    for name, top in Settings.model_fields.items():
        value = getattr(settings, name)
        if not isinstance(value, Section):
            described = _row([(name,)], value, secret_kind(Settings, name), top.description, environment, file_values)
            yield _from_its_file(described, settings, name)
            continue
        for field_name, field in type(value).model_fields.items():
            former = [old for old, new in type(value).former_names.items() if new == field_name]
            names = [(name, known) for known in (field_name, *former)]
            kind = secret_kind(type(value), field_name)
            described = _row(names, getattr(value, field_name), kind, field.description, environment, file_values)
            yield _from_its_file(described, value, field_name)


def _from_its_file(described: tuple[str, str, str, str], settings: BaseModel, name: str) -> tuple[str, str, str, str]:
    """Return the description of a setting that may have a file of its own, with that file as its source."""
    variable, value, source, meaning = described
    return variable, value, f"{variable}_FILE" if getattr(settings, f"{name}_file", "") else source, meaning


def _row(
    names: Sequence[tuple[str, ...]],
    value: Any,
    kind: MayHoldSecret | None,
    description: str | None,
    environment: Mapping[str, str],
    file_values: Mapping[str, Any],
) -> tuple[str, str, str, str]:
    """Describe one setting, given the name that it has and those that it had."""
    if any(_is_in_environment(path, environment) for path in names):
        source = "environment"
    elif any(_is_in_file(path, file_values) for path in names):
        source = "file"
    else:
        source = "default"
    return variable_name(names[0]), _shown(value, kind), source, " ".join((description or "").split())


def _is_in_environment(path: tuple[str, ...], environment: Mapping[str, str]) -> bool:
    variable = variable_name(path)
    in_section = len(path) > 1 and path[1] in json.loads(environment.get(variable_name(path[:1]), "{}"))
    return in_section or variable in environment or any(name.startswith(f"{variable}__") for name in environment)


def _is_in_file(path: tuple[str, ...], file_values: Mapping[str, Any]) -> bool:
    found: Any = file_values
    for part in path:
        found = found.get(part) if isinstance(found, Mapping) else None
    return found is not None


def _shown(value: Any, kind: MayHoldSecret | None) -> str:
    if kind is not None:
        return kind.shown(value.get_secret_value() if isinstance(value, SecretStr) else value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else str(value)
