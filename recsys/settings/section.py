"""What all groups of settings have in common: former names, and secrets that files hold."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError, model_validator

from recsys.errors import SettingsError
from recsys.logger import logger
from recsys.settings.masking import KEYS, PROPERTIES, MayHoldSecret, secrets
from recsys.settings.secret_files import read_secret_file

log = logger(__name__)
ENV_PREFIX = "RECSYS_"


def secret_kind(settings: type[BaseModel], name: str) -> MayHoldSecret | None:
    """Return what a setting may hold, None if that is no secret."""
    marks = settings.model_fields[name].metadata
    return next((mark for mark in marks if isinstance(mark, MayHoldSecret)), None)


def with_secrets_from_files(settings: type[BaseModel], given: Mapping[str, Any], section: str = "") -> dict[str, Any]:
    """Return what is given, with the secrets that files hold: ``<name>_file`` names the file of ``<name>``.

    Raises
    ------
    SettingsError
        When a setting and its file are given both, or a file cannot be used.
    """
    read = dict(given)
    for name in settings.model_fields:
        path, kind = given.get(f"{name}_file"), secret_kind(settings, name)
        if not path or kind is None or kind is KEYS:  # those of the API are read where they are looked up
            continue
        variable = f"{ENV_PREFIX}{section}{name}".upper()
        if name in given:
            raise SettingsError(f"{variable} and {variable}_FILE: only one of them can be set")
        text = read_secret_file(str(path), f"{variable}_FILE")
        read[name] = _json_object(text, f"{variable}_FILE: {path}") if kind is PROPERTIES else text
    return read


def _json_object(text: str, place: str) -> Any:
    try:
        if isinstance(found := json.loads(text), dict):
            return found
    except ValueError:
        pass
    raise SettingsError(f'{place} must hold a JSON object, such as {{"name": "value"}}')


class Section(BaseModel):
    """A group of settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
    former_names: ClassVar[Mapping[str, str]] = {}
    """Former name → name: the former names of the previous release still work, with a warning."""

    @model_validator(mode="before")
    @classmethod
    def _former_names(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        renamed = dict(given)
        for former, name in cls.former_names.items():
            if former in renamed:
                value = renamed.pop(former)
                renamed.setdefault(name, value)
                log.warning(
                    "setting_renamed",
                    "the setting {former} is now called {name}; the old name works in this release only",
                    former=former,
                    name=name,
                )
        return with_secrets_from_files(cls, renamed, f"{cls.__name__.removesuffix('Settings')}__")

    def reread(self) -> Self:
        """Return these settings with the secrets that their files hold now; what is wrong is said, and changes nothing.

        A password that was changed is used from the next connection on, whoever opens it.
        """
        files = [name for name in type(self).model_fields if getattr(self, f"{name}_file", "")]
        if not files:
            return self
        given = {name: getattr(self, name) for name in self.model_fields_set if name not in files}
        try:
            found = type(self).model_validate(given)
        except (SettingsError, ValidationError) as error:
            problem = str(error) if isinstance(error, SettingsError) else error.errors(include_input=False)[0]["msg"]
            log.warning(
                "secrets_not_read", "what was read before is used: {problem}", problem=secrets.hidden_in(problem)
            )
            return self
        secrets.remember(secrets_of(found))
        return found


def secrets_of(settings: BaseModel) -> Iterator[str]:
    """Yield every secret that settings hold, by the kinds that are named with their types."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Section):
            yield from secrets_of(value)
        elif kind := secret_kind(type(settings), name):
            yield from kind.secrets(value.get_secret_value() if isinstance(value, SecretStr) else value)
