"""What a Schema Registry says, or does not say, and what becomes of the record: it waits, or is malformed."""

from __future__ import annotations

import io
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, Message
from fastavro import schemaless_writer

from consumer import main as consumer_main
from recsys.errors import DecoderUnavailable, MalformedEvent, SettingsError
from recsys.kafka import registry
from recsys.kafka.decoder import JsonDecoder, decoder_of, make_decoder
from recsys.kafka.producer import OWN_HEADERS, encode
from recsys.kafka.readings import reading_of
from recsys.kafka.registry_values import RegistryReader
from recsys.settings import EventsSettings, Settings, secrets
from tests.builders import NOON_MS, make_event
from tests.registries import AnsweringServer
from tests.secured import Authority
from tests.services import kept_port, wait_until

SCHEMA = {
    "type": "record",
    "name": "Purchase",
    "fields": [{"name": "user_id", "type": "string"}, {"name": "item_id", "type": "string"}],
}
PASSWORD = "correct-horse-battery"  # noqa: S105 - of servers on loopback that live as long as a test


@pytest.fixture
def server() -> Iterator[AnsweringServer]:
    with AnsweringServer(500) as server:
        yield server


def settings(url: str, **events: Any) -> Settings:
    return Settings.model_validate({"events": {"format": "avro", "registry_url": url, **events}})


def record(schema_id: int = 7, body: bytes | None = None) -> Message:
    if body is None:
        written = io.BytesIO()
        schemaless_writer(written, SCHEMA, {"user_id": "u", "item_id": "a"})
        body = written.getvalue()
    raw = b"\x00" + schema_id.to_bytes(4, "big") + body
    return Message(topic="t", partition=0, offset=5, value=raw, timestamp=(TIMESTAMP_CREATE_TIME, NOON_MS))


def unavailable(found: Settings) -> str:
    with pytest.raises(DecoderUnavailable) as raised:
        make_decoder(found).events(record())
    said = str(raised.value)
    assert "\n" not in said
    return said.removeprefix(f"the schema registry at {found.events.registry_url} ")


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (401, "", "refuses the login (401): check RECSYS_EVENTS__REGISTRY_USER and RECSYS_EVENTS__REGISTRY_PASSWORD"),
        (403, "", "does not let this user read schemas (403): grant it in the registry"),
        (404, "<html>no such page</html>", "answers 404: RECSYS_EVENTS__REGISTRY_URL must be the address of"),
        (404, '{"error_code": 404, "message": "no such page"}', "answers 404: RECSYS_EVENTS__REGISTRY_URL must be"),
        (429, '{"error_code": 429, "message": "too\\nmany"}', "answers 429: too many"),
        (500, '{"error_code": 50001, "message": "the store"}', "answers 500: the store"),
        (503, "", "answers 503"),
        (301, "", "answers 301"),
        (200, "<html>log in</html>", "answers what no schema registry does"),
        (200, "[]", "answers what no schema registry does"),
    ],
)
def test_a_registry_that_refuses_lets_records_wait(server: AnsweringServer, status: int, body: str, said: str) -> None:
    server.status, server.body = status, body
    assert unavailable(settings(server.url)).startswith(said)
    asked = [path for path, _ in server.requests]
    assert asked[:1] == ["/schemas/ids/7"], "whoever waits tries again, not the client"
    assert asked[1:] == (["/schemas/types"] if status == 404 else []), "a wrong address has no schemas at all"


def test_a_registry_that_is_away_lets_records_wait() -> None:
    assert unavailable(settings(f"http://127.0.0.1:{kept_port()}")).startswith("does not answer: ")
    assert unavailable(settings("http://registry.invalid")).startswith("does not answer: ")


def test_a_registry_without_tls_says_that_its_address_does_not_begin_with_https(server: AnsweringServer) -> None:
    said = unavailable(settings(server.url.replace("http:", "https:")))
    assert said.startswith("does not answer: [SSL: WRONG_VERSION_NUMBER] ")
    assert said.endswith(": it speaks no TLS, so RECSYS_EVENTS__REGISTRY_URL must begin with http://")


def test_a_registry_that_hangs_holds_up_no_stop(server: AnsweringServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2 * registry._WAITS_S < consumer_main._LONGEST_STOP_S
    monkeypatch.setattr(registry, "_WAITS_S", 0.1)
    with server.silent():
        assert unavailable(settings(server.url)) == "does not answer: nothing came within 0.1 s"


def test_a_registry_that_takes_longer_than_a_try_waits_is_heard_by_a_later_one(
    server: AnsweringServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_WAITS_S", 0.05)
    server.answer_schema(SCHEMA)
    decoder = make_decoder(settings(server.url))

    def decoded() -> object:
        try:
            return decoder.events(record())
        except DecoderUnavailable:
            return None

    with server.silent():
        assert [decoded() for _ in range(3)] == [None] * 3
    assert wait_until(decoded, "the schema is there") == (make_event(),)
    assert [path for path, _ in server.requests] == ["/schemas/ids/7"], "what is under way is not asked again"


def test_a_registry_that_never_answers_is_asked_again(server: AnsweringServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_WAITS_S", 0.05)
    monkeypatch.setattr(registry, "_GIVEN_UP_AFTER_S", 0.2)
    server.answer_schema(SCHEMA)
    decoder = make_decoder(settings(server.url))
    causes = []

    def asked_again() -> bool:
        with pytest.raises(DecoderUnavailable) as raised:
            decoder.events(record())
        causes.append(str(raised.value))
        return len(server.requests) > 2

    with server.silent():
        wait_until(asked_again, "it is asked again and again")
    assert all("does not answer: " in cause for cause in causes)


def test_only_an_unknown_schema_is_malformed_and_it_is_asked_for_once(server: AnsweringServer) -> None:
    server.status, server.body = 404, '{"error_code": 40403, "message": "Schema not found"}'
    decoder = make_decoder(settings(server.url))
    for _ in range(3):
        with pytest.raises(MalformedEvent) as raised:
            decoder.events(record(7))
        assert raised.value.reason == f"the schema registry at {server.url} does not know schema 7"
        assert (raised.value.raw, raised.value.location) == (record(7).value(), "t[0] 5")
    with pytest.raises(MalformedEvent, match="does not know schema 8"):
        decoder.events(record(8))
    assert [path for path, _ in server.requests] == ["/schemas/ids/7", "/schemas/ids/8"]


def test_a_page_that_a_registry_does_not_have_is_an_unknown_schema(server: AnsweringServer) -> None:
    server.status, server.body = 404, '{"error_code": 404, "message": "no such page"}'
    server.pages["/schemas/types"] = (200, '["JSON", "PROTOBUF", "AVRO"]')
    decoder = make_decoder(settings(server.url))
    with pytest.raises(MalformedEvent, match="does not know schema 4294967295"):
        decoder.events(record(2**32 - 1))


def test_ids_that_nobody_knows_fill_no_memory(server: AnsweringServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_MOST_UNKNOWN", 3)
    server.status, server.body = 404, '{"error_code": 40403, "message": "Schema not found"}'
    schemas = registry.SchemaRegistry(settings(server.url).events, "AVRO")
    for number in range(10):
        with pytest.raises(MalformedEvent):
            schemas.get_schema(number)
        assert len(schemas._unknown) <= 3


def test_a_schema_that_becomes_known_is_asked_for_again(
    server: AnsweringServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_STAYS_UNKNOWN_S", 0.0)
    server.status, server.body = 404, '{"error_code": 40403, "message": "Schema not found"}'
    decoder = make_decoder(settings(server.url))
    with pytest.raises(MalformedEvent):
        decoder.events(record())
    server.answer_schema(SCHEMA)
    assert decoder.events(record()) == (make_event(),)


def test_schemas_are_kept_though_the_registry_goes(server: AnsweringServer) -> None:
    server.answer_schema(SCHEMA)
    decoder = make_decoder(settings(server.url))
    assert decoder.events(record()) == (make_event(),)
    server.status = 500
    assert decoder.events(record()) == (make_event(),)
    assert len(server.requests) == 1
    with pytest.raises(DecoderUnavailable):
        decoder.events(record(8))


def test_a_schema_of_another_format_is_named(server: AnsweringServer) -> None:
    server.status, server.body = 200, json.dumps({"schema": "{}", "schemaType": "JSON"})
    with pytest.raises(MalformedEvent, match="schema 7 is of type JSON: RECSYS_EVENTS__FORMAT asks for AVRO"):
        make_decoder(settings(server.url)).events(record())


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "the record is empty"),
        (
            b'{"user_id": "u"}',
            "does not fit its schema: Invalid magic byte; it looks like plain JSON: set RECSYS_EVENTS__",
        ),
        (
            b" [1]      ",
            "does not fit its schema: Invalid magic byte; it looks like plain JSON: set RECSYS_EVENTS__FORMAT",
        ),
        (b"u,a,2026-01-01", "does not fit its schema: Invalid magic byte; it does not begin with the magic byte of a"),
        (b"\x00", "does not fit its schema: "),
        (b"\x00\x00\x00\x00\x07\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "does not fit its schema: "),
        (b"\x00\x00\x00\x00\x07\x02\xff\x02a", "does not fit its schema: "),
        (b"\x00\x00\x00\x00\x07\x02u", "does not fit its schema: "),
        (b"\x00\x00\x00\x00\x07\x02u\x02a\x00", "does not fit its schema: there are more bytes than it describes"),
    ],
)
def test_bytes_that_do_not_fit_are_malformed(server: AnsweringServer, raw: bytes, reason: str) -> None:
    server.answer_schema(SCHEMA)
    message = Message(topic="t", partition=0, offset=5, value=raw, timestamp=(TIMESTAMP_CREATE_TIME, NOON_MS))
    with pytest.raises(MalformedEvent) as raised:
        make_decoder(settings(server.url)).events(message)
    assert raised.value.reason.startswith(reason)
    assert (raised.value.raw, raised.value.location) == (raw, "t[0] 5")


def test_the_login_is_sent_and_never_said(server: AnsweringServer) -> None:
    server.status, server.body = 500, json.dumps({"error_code": 500, "message": f"no {PASSWORD} here"})
    secrets.remember([PASSWORD])
    said = unavailable(settings(server.url, registry_user="shop", registry_password=PASSWORD))
    assert said == "answers 500: no *** here"
    assert server.requests == [("/schemas/ids/7", "Basic c2hvcDpjb3JyZWN0LWhvcnNlLWJhdHRlcnk=")]


def test_a_password_that_was_changed_in_its_file_is_used_from_the_next_try_on(
    server: AnsweringServer, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("first-password")
    file.chmod(0o600)
    server.status = 401
    decoder = make_decoder(settings(server.url, registry_user="shop", registry_password_file=str(file)))
    for password in ("first-password", "second-password"):
        file.write_text(password)
        with pytest.raises(DecoderUnavailable):
            decoder.events(record())
    server.answer_schema(SCHEMA)
    assert decoder.events(record()) == (make_event(),)
    logins = [login for _, login in server.requests]
    assert logins[0] == logins[1] != logins[2]


def test_tls_is_verified_and_a_client_may_have_a_certificate(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    own, client = authority.issue("server"), authority.issue("client")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate, own.key)
    context.load_verify_locations(authority.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    named = {"registry_certificate": str(client.certificate), "registry_key": str(client.key)}
    with AnsweringServer(200, tls=context) as server:
        server.answer_schema(SCHEMA)
        trusting = settings(server.url, registry_ca=str(authority.certificate), **named)
        assert make_decoder(trusting).events(record()) == (make_event(),)
        for ca in ({}, {"registry_ca": str(other.certificate)}):
            said = unavailable(settings(server.url, **ca, **named))
            assert said.startswith("does not answer: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: ")
            assert ": check RECSYS_EVENTS__REGISTRY_CA" in said
        assert unavailable(settings(server.url, registry_ca=str(authority.certificate))).startswith("does not answer: ")


@pytest.mark.parametrize("name", ["registry_ca", "registry_certificate"])
def test_a_file_for_tls_that_is_not_there_is_named_at_start(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"RECSYS_EVENTS__REGISTRY_.*nowhere\.pem"):
        make_decoder(settings("https://registry.example", **{name: str(tmp_path / "nowhere.pem")}))


def test_json_is_the_same_way_to_read_as_before_there_were_formats() -> None:
    as_noted_then = reading_of(EventsSettings())
    assert as_noted_then.fingerprint == "6c973a63adfc73bd"
    assert isinstance(decoder_of(as_noted_then, Settings()), JsonDecoder)


def test_each_format_and_each_class_of_messages_is_another_way_to_read() -> None:
    def fingerprint(**events: str) -> str:
        return reading_of(settings("https://registry.example", **events).events).fingerprint

    ways = [
        {"format": "json"},
        {"format": "avro"},
        {"format": "json-schema"},
        {"format": "protobuf", "protobuf_message": "shop_pb2:Order"},
        {"format": "protobuf", "protobuf_message": "shop_pb2:Purchase"},
    ]
    assert len({fingerprint(**way) for way in ways}) == len(ways)


def test_a_header_names_the_schema_whatever_the_same_first_bytes_name_without_one(server: AnsweringServer) -> None:
    other = {"type": "record", "name": "Other", "fields": [{"name": name, "type": "string"} for name in "abcdef"]}
    for number, schema in ((2, SCHEMA), (8, other)):
        server.pages[f"/schemas/ids/{number}"] = (200, json.dumps({"schema": json.dumps(schema)}))
    reader = RegistryReader(settings(server.url).events)
    raw = record(2).value() or b""
    written = io.BytesIO()
    values = {"a": "", "b": "", "c": "", "d": "", "e": "y", "f": "x"}
    schemaless_writer(written, other, values)
    body = written.getvalue()
    assert body[:5] == raw[:5], "it looks as if it named schema 2"
    headed = Message(topic="t", value=body, headers=[("__value_schema_id", b"\x00\x00\x00\x00\x08")])
    for _ in range(2):
        assert reader.read(record(2), raw) == {"user_id": "u", "item_id": "a"}
        assert reader.read(headed, body) == values
    assert len(server.requests) == 2


def test_values_are_shown_as_json_and_bytes_that_do_not_fit_as_digits(server: AnsweringServer) -> None:
    server.answer_schema(SCHEMA)
    decoder = make_decoder(settings(server.url))
    assert decoder.text(record()) == '{"user_id": "u", "item_id": "a"}'
    assert decoder.text(record(body=b"\xff")) == "00 00 00 00 07 ff"
    assert decoder.text(Message(topic="t")) is None
    server.status = 503
    with pytest.raises(DecoderUnavailable):
        decoder.text(record(8))


@pytest.mark.parametrize("mapping", ["", "contract"])
def test_what_our_own_programs_write_is_read_as_the_contract_in_any_format(
    server: AnsweringServer, mapping: str
) -> None:
    server.answer_schema(SCHEMA)
    decoder = make_decoder(settings(server.url, mapping=mapping))
    event = make_event("own", "b", 3)
    own = Message(topic="t", value=encode(event), headers=OWN_HEADERS, timestamp=(TIMESTAMP_CREATE_TIME, NOON_MS))
    assert list(decoder.events(own)) == [event]
    assert (decoder.text(own) or "").startswith('{"type":"purchase"')
    assert [found.user_id for found in decoder.events(record())] == ["u"]
