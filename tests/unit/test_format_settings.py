"""Settings of the format of values, and of the registry of their schemas."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recsys.errors import SettingsError
from recsys.settings import load_settings
from recsys.settings.report import describe_settings

URL = "https://registry.example/apis/ccompat/v7"
PASSWORD = "pass-word"  # noqa: S105 - of nothing
AVRO = {"FORMAT": "avro", "REGISTRY_URL": URL}


@pytest.fixture(autouse=True)
def no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("RECSYS_"):
            monkeypatch.delenv(name)


def set_events(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"RECSYS_EVENTS__{name}", value)


def test_json_needs_no_registry() -> None:
    events = load_settings().events
    assert (events.format, events.registry_url) == ("json", "")


def test_a_registry_with_a_login_and_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    tls = {"REGISTRY_CA": "/ca.pem", "REGISTRY_CERTIFICATE": "/own.pem", "REGISTRY_KEY": "/own.key"}
    login = {"REGISTRY_USER": "shop", "REGISTRY_PASSWORD": PASSWORD}
    set_events(monkeypatch, **AVRO | {"REGISTRY_URL": f"{URL}/"} | login | tls)
    events = load_settings().events
    assert events.registry_url == URL, "without the / at its end"
    assert events.registry_password.get_secret_value() == PASSWORD
    shown = {variable: value for variable, value, _, _ in describe_settings(load_settings())}
    assert (shown["RECSYS_EVENTS__REGISTRY_PASSWORD"], shown["RECSYS_EVENTS__REGISTRY_URL"]) == ("***", URL)
    assert PASSWORD not in repr(load_settings())


def test_the_password_may_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("pass-word\n")
    file.chmod(0o600)
    set_events(monkeypatch, **AVRO, REGISTRY_USER="shop", REGISTRY_PASSWORD_FILE=str(file))
    assert load_settings().events.registry_password.get_secret_value() == PASSWORD
    file.chmod(0o622)
    with pytest.raises(SettingsError, match="RECSYS_EVENTS__REGISTRY_PASSWORD_FILE: others than its owner may write"):
        load_settings()


@pytest.mark.parametrize("name", ["REGISTRY_KEY", "REGISTRY_CERTIFICATE"])
def test_a_private_key_that_others_may_write_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    key = tmp_path / "own.pem"
    key.write_text("key")
    key.chmod(0o666)
    set_events(monkeypatch, **AVRO | {"REGISTRY_CERTIFICATE": str(tmp_path / "certificate")} | {name: str(key)})
    with pytest.raises(SettingsError, match="RECSYS_EVENTS__REGISTRY_KEY: others than its owner may write"):
        load_settings()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"FORMAT": "xml"}, "RECSYS_EVENTS__FORMAT: "),
        ({"FORMAT": "avro"}, "RECSYS_EVENTS__REGISTRY_URL: is required for the format avro"),
        ({"FORMAT": "json-schema"}, "RECSYS_EVENTS__REGISTRY_URL: is required for the format json-schema"),
        (AVRO | {"FORMAT": "protobuf"}, "RECSYS_EVENTS__PROTOBUF_MESSAGE: is required for the format protobuf"),
        (AVRO | {"PROTOBUF_MESSAGE": "shop_pb2.Purchase"}, "RECSYS_EVENTS__PROTOBUF_MESSAGE: "),
        (AVRO | {"REGISTRY_USER": "shop"}, "RECSYS_EVENTS__REGISTRY_USER and …_PASSWORD: set both or none"),
        (AVRO | {"REGISTRY_PASSWORD": PASSWORD}, "RECSYS_EVENTS__REGISTRY_USER and …_PASSWORD: set both or none"),
        (AVRO | {"REGISTRY_USER": "a:b", "REGISTRY_PASSWORD": PASSWORD}, "RECSYS_EVENTS__REGISTRY_USER: must not"),
        (AVRO | {"REGISTRY_KEY": "/own.key"}, "RECSYS_EVENTS__REGISTRY_CERTIFICATE: is required for"),
        ({"REGISTRY_URL": "registry.example"}, "RECSYS_EVENTS__REGISTRY_URL: must be http:// or https:// with a host"),
        ({"REGISTRY_URL": "ftp://registry.example"}, "RECSYS_EVENTS__REGISTRY_URL: must be http:// or https://"),
        ({"REGISTRY_URL": "https://a.example,https://b.example"}, "RECSYS_EVENTS__REGISTRY_URL: must be http://"),
        ({"REGISTRY_URL": f"{URL}?key=pass-word"}, "RECSYS_EVENTS__REGISTRY_URL: must be http:// or https://"),
        (
            {"REGISTRY_URL": "https://shop:pass-word@registry.example"},
            "RECSYS_EVENTS__REGISTRY_URL: must hold no login",
        ),
        ({"REGISTRY_URL": "https://shop:pass/word@registry.example"}, "RECSYS_EVENTS__REGISTRY_URL: must "),
    ],
)
def test_what_is_wrong_is_one_line_without_a_secret(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], said: str
) -> None:
    set_events(monkeypatch, **values)
    with pytest.raises(SettingsError) as raised:
        load_settings()
    text = str(raised.value)
    assert text.startswith(said)
    assert not any(part in text for part in (PASSWORD, "pass/word", "\n"))
