"""Schemas of a Schema Registry that speaks Confluent's API: fetched once, and whose fault it is if they cannot be.

A registry that is away, or that refuses, says nothing about a record: it waits. Only that the registry does not know a
schema id makes the record malformed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus
from threading import Thread
from typing import Any

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from recsys.errors import DecoderUnavailable, MalformedEvent, Reason, SettingsError
from recsys.settings import EventsSettings, secrets

_WAITS_S = 3.0
"""For an answer: services have to stop within 8 s, and the loops around this try again."""
_GIVEN_UP_AFTER_S = 15.0
"""To connect, and again for the answer, though nobody waits for it meanwhile."""
_UNKNOWN_SCHEMA = 40403
"""The error code of a registry that does not know a schema."""
_STAYS_UNKNOWN_S = 30.0
_MOST_UNKNOWN = 1_000
_LONGEST_CAUSE = 200
_OF_TLS = {
    "CERTIFICATE_VERIFY_FAILED": "check RECSYS_EVENTS__REGISTRY_CA, which names who vouches for its certificate",
    "WRONG_VERSION_NUMBER": "it speaks no TLS, so RECSYS_EVENTS__REGISTRY_URL must begin with http://",
}
"""By what OpenSSL says: what to do."""
NO_SUBJECT = {"subject.name.strategy": lambda context, name: None}
"""For deserializers: records are read with the schema that they were written with, whatever is newest of a subject."""


def one_line(error: BaseException) -> str:
    """Return what an error of a library says, without secrets, in one line that is not too long."""
    said = " ".join(str(error).split()) or type(error).__name__
    shown = secrets.hidden_where_settings_are_quoted(said)
    return shown if len(shown) <= _LONGEST_CAUSE else f"{shown[:_LONGEST_CAUSE]}…"


class _Question(Thread):
    """A request that goes on though nobody waits for its answer any more, which the next try then finds."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        super().__init__(name="ask-registry", daemon=True)
        self._ask = ask
        self._answer: Any = None
        self._error: Exception | None = None

    def run(self) -> None:
        """Ask."""
        try:
            self._answer = self._ask()
        except Exception as error:
            self._error = error

    def answer(self) -> Any:
        """Return the answer, or raise what came instead."""
        if self._error is not None:
            raise self._error
        return self._answer


class SchemaRegistry(SchemaRegistryClient):
    """The client of Confluent's deserializers, with errors that say what to do, and without tries of its own.

    Parameters
    ----------
    settings : EventsSettings
    kind : str
        The only kind of schemas that is asked for: ``AVRO``, ``PROTOBUF`` or ``JSON``.

    Raises
    ------
    SettingsError
        When a file for TLS cannot be used.
    """

    def __init__(self, settings: EventsSettings, kind: str) -> None:
        try:
            super().__init__(_properties(settings))
        except (OSError, ValueError) as error:  # OpenSSL's errors are of the first kind
            files = ", ".join(file for file in _files(settings).values() if file)
            raise SettingsError(f"RECSYS_EVENTS__REGISTRY_…: cannot use {files} for TLS: {one_line(error)}") from None
        self._url = settings.registry_url
        self._kind = kind
        self._known: dict[int | str, Schema] = {}
        self._unknown: dict[int | str, float] = {}
        """Id → when to ask again: no request for each of many records that nobody can read."""
        self._questions: dict[object, _Question] = {}
        """Those that are not answered yet: a registry that takes longer than one try waits is heard by a later one."""

    def get_schema(
        self,
        schema_id: int,
        subject_name: str | None = None,
        fmt: str | None = None,
        reference_format: str | None = None,
    ) -> Schema:
        """Return a schema by its id; it never changes.

        Raises
        ------
        MalformedEvent
            When the registry does not know it, or it is of another kind.
        DecoderUnavailable
            When the registry cannot say.
        """
        if (known := self._known.get(schema_id)) is not None:
            return known
        ask = super().get_schema
        return self._ask_once(schema_id, lambda: ask(schema_id, subject_name, fmt, reference_format))

    def get_schema_by_guid(self, guid: str, fmt: str | None = None) -> Schema:
        """Return a schema by its global id, as `get_schema` does."""
        if (known := self._known.get(guid)) is not None:
            return known
        ask = super().get_schema_by_guid
        return self._ask_once(guid, lambda: ask(guid, fmt))

    def get_version(self, *arguments: Any, **options: Any) -> Any:
        """Return a version of a subject: what schemas refer to.

        Raises
        ------
        DecoderUnavailable
            When the registry cannot say.
        """
        ask = super().get_version
        try:
            return self._answer_to((arguments, *sorted(options.items())), lambda: ask(*arguments, **options))
        except Exception as error:
            raise self._unavailable(error) from None

    def _ask_once(self, schema_id: int | str, ask: Callable[[], Schema]) -> Schema:
        now = time.monotonic()
        if self._unknown.get(schema_id, 0.0) > now:
            raise self._unknown_schema(schema_id)
        try:
            schema: Schema = self._answer_to(schema_id, ask)
            kind = schema.schema_type or "AVRO"
        except Exception as error:  # also what the client makes of an answer that is no registry's
            if not self._means_unknown(error):
                raise self._unavailable(error) from None
            if len(self._unknown) >= _MOST_UNKNOWN:
                self._unknown.clear()
            self._unknown[schema_id] = now + _STAYS_UNKNOWN_S
            raise self._unknown_schema(schema_id) from None
        if kind != self._kind:
            reason = f"schema {schema_id} is of type {kind}: RECSYS_EVENTS__FORMAT asks for {self._kind}"
            raise MalformedEvent(reason, Reason.SCHEMA)
        self._known[schema_id] = schema
        return schema

    def _answer_to(self, subject: object, ask: Callable[[], Any]) -> Any:
        """Return what the registry answers to a question, which is asked unless it has been already."""
        question = self._questions.get(subject)
        if question is None:
            question = self._questions[subject] = _Question(ask)
            question.start()
        question.join(_WAITS_S)
        if question.is_alive():
            raise TimeoutError(f"nothing came within {_WAITS_S:g} s")
        del self._questions[subject]
        return question.answer()

    def _means_unknown(self, error: Exception) -> bool:
        """Whether the registry says that it does not know a schema, and not that nothing at all is at this address.

        Of ids that no registry gives, such as one above 2³¹, it says no more than that there is no such page.
        """
        if not isinstance(error, SchemaRegistryError) or error.http_status_code != HTTPStatus.NOT_FOUND:
            return False
        if error.error_code == _UNKNOWN_SCHEMA:
            return True
        try:
            return isinstance(self._answer_to("types", self.get_schema_types), list)
        except Exception:  # then it is no registry's address
            return False

    def _unknown_schema(self, schema_id: int | str) -> MalformedEvent:
        return MalformedEvent(f"the schema registry at {self._url} does not know schema {schema_id}", Reason.SCHEMA)

    def _unavailable(self, error: Exception) -> DecoderUnavailable:
        return DecoderUnavailable(f"the schema registry at {self._url} {_cause(error)}")


def _cause(error: Exception) -> str:
    if not isinstance(error, SchemaRegistryError):
        if isinstance(error, ValueError | LookupError | TypeError | AttributeError):
            return f"answers what no schema registry does ({one_line(error)}): check RECSYS_EVENTS__REGISTRY_URL"
        said = one_line(error)
        return f"does not answer: {said}" + "".join(f": {hint}" for sign, hint in _OF_TLS.items() if sign in said)
    status = error.http_status_code
    if status == HTTPStatus.UNAUTHORIZED:
        return "refuses the login (401): check RECSYS_EVENTS__REGISTRY_USER and RECSYS_EVENTS__REGISTRY_PASSWORD"
    if status == HTTPStatus.FORBIDDEN:
        return "does not let this user read schemas (403): grant it in the registry"
    if status == HTTPStatus.NOT_FOUND:
        return (
            "answers 404: RECSYS_EVENTS__REGISTRY_URL must be the address of Confluent's API, "
            "such as https://registry.example/apis/ccompat/v7 for Apicurio"
        )
    said = f": {one_line(ValueError(error.error_message))}" if error.error_code and error.error_code > 0 else ""
    return f"answers {status}{said}"


def _files(settings: EventsSettings) -> dict[str, str]:
    return {
        "ssl.ca.location": settings.registry_ca,
        "ssl.certificate.location": settings.registry_certificate,
        "ssl.key.location": settings.registry_key,
    }


def _properties(settings: EventsSettings) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "url": settings.registry_url,
        "timeout": _GIVEN_UP_AFTER_S,
        "max.retries": 0,
        **{name: file for name, file in _files(settings).items() if file},
    }
    if settings.registry_user:
        password = settings.registry_password.get_secret_value()
        properties["basic.auth.user.info"] = f"{settings.registry_user}:{password}"
    return properties
