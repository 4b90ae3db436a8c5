"""What format the values of records have, and how the registry of their schemas is reached."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from recsys.settings.masking import PASSWORD, MayHoldSecret, UrlParts, masked_url, secrets_in_url
from recsys.settings.section import Section

_ADDRESS = MayHoldSecret(lambda value: masked_url(value) if value else "", secrets_in_url)
"""It may hold no login, but somebody may have written one."""
_PROTOBUF_CLASS = r"^([A-Za-z_][\w.]*:[A-Za-z_][\w.]*)?$"


class FormatSettings(Section):
    """How the bytes of a value are read."""

    format: Literal["json", "avro", "protobuf", "json-schema"] = "json"
    """Format of values; all but `json` in Confluent's wire format, with schemas of a registry."""
    registry_url: Annotated[str, _ADDRESS, Field(repr=False)] = ""
    """Address of Confluent's API of the registry: `https://registry.example`, of Apicurio with `/apis/ccompat/v7`."""
    registry_user: str = ""
    """User at the registry (basic authentication); empty means no login."""
    registry_password: Annotated[SecretStr, PASSWORD] = SecretStr("")
    """Password of that user."""
    registry_password_file: str = ""
    """File with that password; instead of RECSYS_EVENTS__REGISTRY_PASSWORD."""
    registry_ca: str = ""
    """File or folder with the certificates that may vouch for the registry; empty means the usual authorities."""
    registry_certificate: str = ""
    """File with the certificate by which this client names itself to the registry; empty means none."""
    registry_key: str = ""
    """File with that certificate's private key, without a passphrase; empty if the certificate's file holds it."""
    protobuf_message: Annotated[str, Field(pattern=_PROTOBUF_CLASS)] = ""
    """Class of the messages that protoc compiled, for `protobuf`: `module:Class`; the module must be on PYTHONPATH."""

    @field_validator("registry_url")
    @classmethod
    def _is_address(cls, value: str) -> str:
        parts = UrlParts.of(value)
        if not value:
            return value
        if parts.scheme not in ("http", "https") or not parts.has_host or re.search(r"[?#]", parts.rest):
            raise ValueError("must be http:// or https:// with a host, and no more than a path behind it")
        if parts.credentials is not None or "@" in value:
            raise ValueError("must hold no login: RECSYS_EVENTS__REGISTRY_USER and …_PASSWORD are for that")
        return value.rstrip("/")

    @field_validator("registry_user")
    @classmethod
    def _can_be_sent(cls, value: str) -> str:
        if ":" in value:
            raise ValueError("must not hold a colon: it ends the user in basic authentication")
        return value

    @model_validator(mode="after")
    def _is_complete(self) -> FormatSettings:
        if self.format != "json" and not self.registry_url:
            raise ValueError(f"RECSYS_EVENTS__REGISTRY_URL: is required for the format {self.format}")
        if self.format == "protobuf" and not self.protobuf_message:
            raise ValueError("RECSYS_EVENTS__PROTOBUF_MESSAGE: is required for the format protobuf")
        if bool(self.registry_user) != bool(self.registry_password.get_secret_value()):
            raise ValueError("RECSYS_EVENTS__REGISTRY_USER and …_PASSWORD: set both or none")
        if self.registry_key and not self.registry_certificate:
            raise ValueError("RECSYS_EVENTS__REGISTRY_CERTIFICATE: is required for RECSYS_EVENTS__REGISTRY_KEY")
        return self
