from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from recsys.errors import SettingsError
from recsys.redis.rights import user_of
from recsys.settings import Settings, load_settings, masked_url, secrets
from recsys.settings.report import describe_settings
from tests.builders import give_to_another_user

WriteToml = Callable[[str], Path]


@pytest.fixture(autouse=True)
def no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("RECSYS_"):
            monkeypatch.delenv(name)


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WriteToml:
    def write(text: str) -> Path:
        path = tmp_path / "recsys.toml"
        path.write_text(text, encoding="utf-8")
        monkeypatch.setenv("RECSYS_CONFIG", str(path))
        return path

    return write


def refusal() -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def described() -> dict[str, tuple[str, str]]:
    """Variable → (value shown, source)."""
    return {variable: (value, source) for variable, value, source, _ in describe_settings(load_settings())}


def test_everything_has_a_default() -> None:
    settings = load_settings()
    assert settings.data_dir == "data"
    assert settings.kafka.topic == "purchases"
    assert settings.kafka.dead_letters == "purchases.dlq"
    assert settings.redis.url.get_secret_value() == "redis://localhost:6379/0"
    assert (settings.history.max_items, settings.ranking.n, settings.ranking.list_ttl_days) == (2000, 50, 30.0)
    assert settings.trainer.keep_versions == 5


def test_values_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_DATA_DIR", "s3://bucket/recsys")
    monkeypatch.setenv("RECSYS_KAFKA__TOPIC", "orders")
    monkeypatch.setenv("RECSYS_RANKING__N", "7")
    monkeypatch.setenv("recsys_model__alpha", "2.5")
    monkeypatch.setenv("RECSYS_KAFKA__LIBRDKAFKA", '{"security.protocol": "SSL", "socket.keepalive.enable": true}')
    settings = load_settings()
    assert settings.data_dir == "s3://bucket/recsys"
    assert (settings.kafka.topic, settings.kafka.dead_letters) == ("orders", "orders.dlq")
    assert (settings.ranking.n, settings.model.alpha) == (7, 2.5)
    assert settings.kafka.librdkafka == {"security.protocol": "SSL", "socket.keepalive.enable": True}


def test_a_dead_letter_topic_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_KAFKA__DEAD_LETTER_TOPIC", "broken")
    assert load_settings().kafka.dead_letters == "broken"


def test_values_come_from_a_toml_file(toml: WriteToml) -> None:
    toml(
        'data_dir = "/var/lib/recsys"\n[ranking]\nn = 9\n[kafka]\ntopic = "orders"\n'
        '[kafka.librdkafka]\n"sasl.username" = "shop"\n'
    )
    settings = load_settings()
    assert (settings.data_dir, settings.ranking.n, settings.kafka.topic) == ("/var/lib/recsys", 9, "orders")
    assert settings.kafka.librdkafka == {"sasl.username": "shop"}
    assert settings.ranking.similar_n == 20


def test_the_environment_goes_before_the_file_setting_by_setting(
    toml: WriteToml, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml('[kafka]\ntopic = "from-file"\ngroup_id = "from-file"\n')
    monkeypatch.setenv("RECSYS_KAFKA__TOPIC", "from-environment")
    kafka = load_settings().kafka
    assert (kafka.topic, kafka.group_id) == ("from-environment", "from-file")


def test_arguments_go_before_everything(toml: WriteToml, monkeypatch: pytest.MonkeyPatch) -> None:
    toml('data_dir = "from-file"\n')
    monkeypatch.setenv("RECSYS_DATA_DIR", "from-environment")
    assert Settings(data_dir="from-argument").data_dir == "from-argument"


def test_settings_cannot_be_changed() -> None:
    settings = load_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.data_dir = "other"
    with pytest.raises(ValueError, match="frozen"):
        settings.ranking.n = 3


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RECSYS_RANKING__N", "0"),
        ("RECSYS_RANKING__N", "1001"),
        ("RECSYS_RANKING__N", "many"),
        ("RECSYS_RANKING__N", ""),
        ("RECSYS_RANKING__N", "1.5"),
        ("RECSYS_RANKING__LIST_TTL_DAYS", "-1"),
        ("RECSYS_RANKING__LIST_TTL_DAYS", "nan"),
        ("RECSYS_HISTORY__MAX_ITEMS", "-5"),
        ("RECSYS_MODEL__REGULARIZATION", "0"),
        ("RECSYS_MODEL__REGULARIZATION", "1e-30"),
        ("RECSYS_MODEL__REGULARIZATION", "1e300"),
        ("RECSYS_MODEL__ALPHA", "1e30"),
        ("RECSYS_MODEL__HALF_LIFE_DAYS", "1e-12"),
        ("RECSYS_MODEL__REPEAT_WEIGHT", "1e308"),
        ("RECSYS_RANKING__POPULAR_HALF_LIFE_DAYS", "1e-9"),
        ("RECSYS_MODEL__SEED", "-1"),
        ("RECSYS_MODEL__ALPHA", "nan"),
        ("RECSYS_MODEL__ALPHA", "inf"),
        ("RECSYS_KAFKA__TIMEOUT_S", "0"),
        ("RECSYS_KAFKA__GROUP_PROTOCOL", "modern"),
        ("RECSYS_REDIS__PREFIX", "a{b}"),
        ("RECSYS_REDIS__PREFIX", ""),
        ("RECSYS_REDIS__PREFIX", "shop:popular"),
        ("RECSYS_REDIS__PREFIX", "shop:popular:eu"),
        ("RECSYS_REDIS__PREFIX", "shop:eu:popular"),
        ("RECSYS_EVENTS__OLDEST", "1969-12-31"),
        ("RECSYS_EVENTS__OLDEST", "soon"),
        ("RECSYS_EVENTS__TIMESTAMP_UNIT", "minutes"),
        ("RECSYS_CONSUMER__METRICS_PORT", "65536"),
        ("RECSYS_CONSUMER__METRICS_PORT", "-1"),
        ("RECSYS_TRAINER__METRICS_PORT", "many"),
        ("RECSYS_TRAINER__KEEP_VERSIONS", "0"),
        ("RECSYS_LOG__LEVEL", "loud"),
    ],
)
def test_a_wrong_value_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    text = refusal()
    assert text.startswith(f"{variable}: ")
    assert repr(value) in text


@pytest.mark.parametrize(("value", "port"), [("0", 0), ("9100", 9100), ("any", "any")])
def test_a_metrics_port_may_be_left_to_the_system(monkeypatch: pytest.MonkeyPatch, value: str, port: int | str) -> None:
    monkeypatch.setenv("RECSYS_CONSUMER__METRICS_PORT", value)
    assert load_settings().consumer.metrics_port == port


def test_all_problems_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_RANKING__N", "0")
    monkeypatch.setenv("RECSYS_LOG__LEVEL", "loud")
    assert "RECSYS_RANKING__N: " in refusal()
    assert "RECSYS_LOG__LEVEL: " in refusal()


@pytest.mark.parametrize(
    "variable",
    [
        "RECSYS_KAFKA__TOPC",
        "RECSYS_KAFKA_TOPIC",
        "RECSYS_TOPIC",
        "RECSYS_",
        "RECSYS_KAFKA__TOPIC__NAME",
        "RECSYS_CONFIG_FILE",
        "RECSYS_CONFIGURATION",
        "RECSYS_DATA_DIR__PATH",
    ],
)
def test_an_unknown_variable_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "x")
    assert variable.startswith(refusal().split(": ")[0])


def test_variables_of_the_tests_and_of_others_are_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_TEST_KAFKA", "host:9092")
    monkeypatch.setenv("RECSYSTEM", "x")
    assert load_settings() == Settings()


@pytest.mark.parametrize("variable", ["RECSYS_KAFKA__LIBRDKAFKA", "RECSYS_KAFKA", "RECSYS_REDIS"])
@pytest.mark.parametrize("value", ["security.protocol=SSL", "{", "7", "[1]"])
def test_a_value_that_should_be_a_json_object_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert variable in refusal()


@pytest.mark.parametrize("variable", ["RECSYS_KAFKA__TOPC", "RECSYS_KAFKA_TOPIC", "recsys_kafka__topik"])
def test_the_nearest_setting_is_offered(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "x")
    with pytest.raises(SettingsError, match=r"no such setting; is it RECSYS_KAFKA__TOPIC\?"):
        load_settings()


@pytest.mark.parametrize("variable", ["RECSYS_LOG__COLOUR", "RECSYS_API__TLS", "RECSYS_MODEL__LAMBDA"])
def test_no_setting_is_offered_that_is_another_word(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "x")
    assert refusal() == f"{variable}: there is no such setting; recsys config lists them all"


@pytest.mark.parametrize("prefix", ["popular", "popular:shop", "shop:popularity", "shop.popular", "a:b"])
def test_prefixes_that_cannot_collide_are_taken(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    monkeypatch.setenv("RECSYS_REDIS__PREFIX", prefix)
    assert load_settings().redis.prefix == prefix


@pytest.mark.parametrize("text", ["[kafka]\ntopc = 'x'\n", "[kafka.topc]\nx = 1\n"])
def test_an_unknown_key_of_the_file_is_named_like_its_variable(toml: WriteToml, text: str) -> None:
    toml(text)
    assert refusal().startswith("RECSYS_KAFKA__TOPC: ")


@pytest.mark.parametrize("text", ["topic = 'x'\n", "[topic]\nname = 'x'\n"])
def test_an_unknown_section_of_the_file_is_named_like_its_variable(toml: WriteToml, text: str) -> None:
    toml(text)
    assert refusal().startswith("RECSYS_TOPIC: ")


def test_a_wrong_value_of_the_file_is_named_like_its_variable(toml: WriteToml) -> None:
    toml("[ranking]\nn = 0\n")
    assert refusal().startswith("RECSYS_RANKING__N: ")


def test_a_section_that_is_no_table_is_named_like_its_variable(toml: WriteToml) -> None:
    toml("kafka = 3\n")
    assert refusal().startswith("RECSYS_KAFKA: ")


@pytest.mark.parametrize("content", [b"[kafka", b"a = ", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_a_file_that_is_not_toml_is_named(toml: WriteToml, content: bytes) -> None:
    path = toml("")
    path.write_bytes(content)
    assert refusal().startswith(f"RECSYS_CONFIG: {path} is not TOML: ")


def test_a_file_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_CONFIG", str(tmp_path / "missing.toml"))
    assert refusal() == f"RECSYS_CONFIG: cannot read {tmp_path / 'missing.toml'}: No such file or directory"
    monkeypatch.setenv("RECSYS_CONFIG", str(tmp_path))
    assert refusal() == f"RECSYS_CONFIG: cannot read {tmp_path}: this is a folder, not a file"


@pytest.mark.parametrize(
    "name",
    ["bootstrap.servers", "group.id", "enable.auto.commit", "auto.offset.reset", "isolation.level", "acks"],
)
def test_librdkafka_properties_that_the_guarantees_depend_on_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("RECSYS_KAFKA__LIBRDKAFKA", json.dumps({name: "x", "client.id": "me"}))
    text = refusal()
    assert text.startswith("RECSYS_KAFKA__LIBRDKAFKA: ")
    assert name in text


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RECSYS_KAFKA__LIBRDKAFKA", '{"group.id": "x", "sasl.password": "hunter2"}'),
        ("RECSYS_KAFKA__LIBRDKAFKA", '{"sasl.password": ["hunter2"]}'),
        ("RECSYS_KAFKA", '{"topic": 1, "librdkafka": {"sasl.password": ["hunter2"]}}'),
        ("RECSYS_KAFKA", '["sasl.password", "hunter2"]'),
        ("RECSYS_REDIS", '{"url": ["redis://:hunter2@host"]}'),
        ("RECSYS_REDIS", '["redis://:hunter2@host"]'),
        ("RECSYS_REDIS", "redis://:hunter2@host"),
    ],
)
def test_an_error_never_shows_a_secret(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    assert "hunter2" not in refusal()


@pytest.mark.parametrize(
    "name",
    [
        "sasl.password",
        "ssl.key.password",
        "ssl.keystore.password",
        "ssl.key.pem",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
        "sasl.oauthbearer.assertion.private.key.pem",
        "sasl.oauthbearer.assertion.private.key.passphrase",
        "SASL.PASSWORD",
    ],
)
def test_secrets_of_librdkafka_are_masked(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("RECSYS_KAFKA__LIBRDKAFKA", json.dumps({name: "hunter2", "sasl.username": "shop"}))
    shown, _ = described()["RECSYS_KAFKA__LIBRDKAFKA"]
    assert "hunter2" not in shown
    assert name in shown
    assert "shop" in shown
    assert load_settings().kafka.librdkafka[name] == "hunter2"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:hunter2@host:1/0", "redis://:***@host:1/0"),
        ("rediss://shop:hunter2@host:1/0", "rediss://shop:***@host:1/0"),
        ("redis://shop:hun@ter2@host:1/0", "redis://shop:***@host:1/0"),
        ("unix://shop:hunter2@/run/redis.sock?db=1", "unix://shop:***@/run/redis.sock?db=1"),
    ],
)
def test_the_password_of_redis_is_masked(monkeypatch: pytest.MonkeyPatch, url: str, shown: str) -> None:
    assert masked_url(url) == shown
    monkeypatch.setenv("RECSYS_REDIS__URL", url)
    assert described()["RECSYS_REDIS__URL"] == (shown, "environment")
    assert "hunter2" not in repr(load_settings())


@pytest.mark.parametrize("url", [":hunter2@host:6379", "shop:hunter2@host", "redis://host:1/0?password=hunter2"])
def test_a_password_in_an_unusual_place_is_masked(url: str) -> None:
    assert "hunter2" not in masked_url(url)


@pytest.mark.parametrize(
    "url",
    [
        *(f"redis://:pa{character}word@127.0.0.1:6379/0" for character in "#?/[]"),
        "redis://:1#word@127.0.0.1:6379/0",
        "redis://:1?word@127.0.0.1:6379/0",
        "redis://shop?word@127.0.0.1:6379/0",
        "rediss://:pa@x/word@127.0.0.1:6379/0",
        "unix://:pa/word@/run/redis.sock",
        "redis://127.0.0.1:6379/0?password=pa#word",
        "redis://127.0.0.1:99999/0",
    ],
)
def test_a_password_that_a_url_cannot_hold_is_to_be_percent_encoded(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("RECSYS_REDIS__URL", url)
    text = refusal()
    assert "must be percent-encoded" in text
    assert "word" not in text.replace("password", "")


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis://localhost",
        "redis://localhost/0",
        "rediss://redis.example/0?ssl_ca_certs=ca.pem",
        "redis://shop:word@redis",
        "redis://[::1]/1",
        "redis://:p%23%2Fw@[::1]:6379/1",
        "redis://shop:pa@wo:rd@redis:1",
        "redis://redis:1/0?password=p@ss",
        "unix:///run/redis@1.sock?db=1",
        "unix://shop:word@/run/redis.sock",
    ],
)
def test_a_url_that_can_be_read_in_one_way_is_accepted(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("RECSYS_REDIS__URL", url)
    assert load_settings().redis.url.get_secret_value() == url


@pytest.mark.parametrize("name", ["sasl.jaas.config", "sasl.pasword", "sasl.oauthbearer.extensions", "ssl.key.pwd"])
def test_a_property_that_may_be_a_secret_is_masked(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("RECSYS_KAFKA__LIBRDKAFKA", json.dumps({name: "hunter2"}))
    assert "hunter2" not in described()["RECSYS_KAFKA__LIBRDKAFKA"][0]


def test_the_password_in_the_url_of_the_data_dir_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_DATA_DIR", "s3://key:hunter2@bucket/recsys")
    assert described()["RECSYS_DATA_DIR"][0] == "s3://key:***@bucket/recsys"


def test_every_setting_is_described_with_its_source(toml: WriteToml, monkeypatch: pytest.MonkeyPatch) -> None:
    toml('data_dir = "from-file"\n[kafka]\ntopic = "from-file"\n[kafka.librdkafka]\n"client.id" = "me"\n')
    monkeypatch.setenv("RECSYS_KAFKA__TOPIC", "from-environment")
    monkeypatch.setenv("recsys_ranking__n", "7")
    found = described()
    assert found["RECSYS_DATA_DIR"] == ("from-file", "file")
    assert found["RECSYS_KAFKA__TOPIC"] == ("from-environment", "environment")
    assert found["RECSYS_KAFKA__LIBRDKAFKA"][1] == "file"
    assert found["RECSYS_RANKING__N"] == ("7", "environment")
    assert found["RECSYS_KAFKA__GROUP_ID"] == ("recsys", "default")
    assert found["RECSYS_REDIS__URL"] == ("redis://localhost:6379/0", "default")


def test_a_section_given_as_json_is_described_as_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_KAFKA", '{"topic": "orders"}')
    assert load_settings().kafka.topic == "orders"
    assert described()["RECSYS_KAFKA__TOPIC"] == ("orders", "environment")
    assert described()["RECSYS_KAFKA__GROUP_ID"] == ("recsys", "default")


def test_every_setting_has_a_meaning_and_can_be_set_by_the_variable_described(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = list(describe_settings(load_settings()))
    assert len({variable for variable, _, _, _ in lines}) == len(lines) > 25
    for variable, value, source, meaning in lines:
        assert source == "default"
        assert len(meaning) > 10
        monkeypatch.setenv(variable, value)
    assert {source for _, _, source, _ in describe_settings(load_settings())} == {"environment"}
    assert load_settings() == Settings()


@pytest.mark.parametrize("cron", ["soon", "* * * *", "61 * * * *", "0 0 30 2 *", "0 0 3 * * *"])
def test_a_cron_expression_is_checked(cron: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_TRAINER__CRON", cron)
    with pytest.raises(SettingsError, match="RECSYS_TRAINER__CRON: must be a cron expression of five fields"):
        load_settings()
    monkeypatch.setenv("RECSYS_TRAINER__CRON", "15 3 * * *")
    assert load_settings().trainer.cron == "15 3 * * *"


@pytest.mark.parametrize(
    ("variable", "given", "name", "value"),
    [
        ("RECSYS_RANKING__REPEATS", "include", "include_purchased", True),
        ("RECSYS_RANKING__REPEATS", "exclude", "include_purchased", False),
        ("RECSYS_TRAINER__RANKER", "als", "scoring", "als"),
        ("RECSYS_TRAINER__RANKER_WINDOW_DAYS", "14", "boost_window_days", 14.0),
        ("RECSYS_TRAINER__SWEEP_BATCH", "64", "refresh_batch", 64),
        ("RECSYS_TRAINER__SWEEP_PROCESSES", "1", "refresh_processes", 1),
    ],
)
def test_a_former_name_works_and_says_the_new_one(
    variable: str,
    given: str,
    name: str,
    value: object,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(variable, given)
    settings = load_settings()
    section = settings.ranking if "RANKING" in variable else settings.trainer
    assert getattr(section, name) == value
    (line,) = caplog.messages
    former = variable.rpartition("__")[2].lower()
    assert line == f"the setting {former} is now called {name}; the old name works in this release only"
    sources = {row[0]: row[2] for row in describe_settings(settings)}
    assert sources[f"{variable.rpartition('__')[0]}__{name.upper()}"] == "environment"


def test_of_two_names_of_a_setting_the_new_one_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_RANKING__REPEATS", "include")
    monkeypatch.setenv("RECSYS_RANKING__INCLUDE_PURCHASED", "false")
    assert not load_settings().ranking.include_purchased


@pytest.mark.parametrize(
    ("url", "user"),
    [
        ("redis://shop:word@redis:1/0", "shop"),
        ("redis://:word@redis:1/0", "default"),
        ("redis://redis:1/0", "default"),
        ("redis://redis:1/0?username=shop&password=word", "shop"),
        ("redis://word@redis:1/0", "of RECSYS_REDIS__URL"),
        ("redis://redis:1/0?username=word", "of RECSYS_REDIS__URL"),
    ],
)
def test_the_user_of_a_url_is_named_where_it_cannot_be_the_password(url: str, user: str) -> None:
    assert user_of(url) == user


@pytest.mark.parametrize(
    "folder",
    [
        "s3:/key:hunter2@bucket",
        "sftp//shop:hunter2@host/x",
        "shop:hunter2@host:/x",
        "ftp://shop:hun/ter2@host/x",
        "FTP://shop:hunter2@host/x",
        "ftp://host/x;password=hunter2",
        "s3://bucket?db=hunter2",
        "simplecache::ftp://shop:hunter2@host/x",
    ],
)
def test_a_password_of_the_data_dir_is_masked_wherever_it_stands(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.setenv("RECSYS_DATA_DIR", folder)
    assert "ter2" not in described()["RECSYS_DATA_DIR"][0]
    assert "ter2" not in repr(load_settings())


@pytest.mark.parametrize("folder", ["data", "/srv/data@shop", "/srv/10:30", "s3://bucket/recsys", "C:\\data"])
def test_a_data_dir_without_a_password_is_shown(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.setenv("RECSYS_DATA_DIR", folder)
    assert described()["RECSYS_DATA_DIR"][0] == folder


SECRETS_IN_FILES = [
    ("RECSYS_REDIS__URL", "redis://shop:hunter2@host:1/0"),
    ("RECSYS_KAFKA__LIBRDKAFKA", '{"sasl.password": "hunter2", "sasl.username": "shop"}'),
    ("RECSYS_DATA_DIR", "s3://key:hunter2@bucket/recsys"),
]


def secret_file(folder: Path, content: str, mode: int = 0o600) -> Path:
    path = folder / "secret"
    path.write_text(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(("variable", "value"), SECRETS_IN_FILES)
def test_a_secret_may_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    expected = load_settings()
    monkeypatch.delenv(variable)
    monkeypatch.setenv(f"{variable}_FILE", str(secret_file(tmp_path, f"{value}\n")))
    found, described_value = load_settings(), described()[variable]
    assert (found.redis.url, found.kafka.librdkafka, found.data_dir) == (
        expected.redis.url, expected.kafka.librdkafka, expected.data_dir,
    )  # fmt: skip
    assert described_value[1] == f"{variable}_FILE"
    assert "hunter2" not in described_value[0] + repr(found)
    assert secrets.hidden_in("it said hunter2") == "it said ***"
    monkeypatch.setenv(variable, value)
    assert refusal() == f"{variable} and {variable}_FILE: only one of them can be set"


@pytest.mark.parametrize(("variable", "value"), SECRETS_IN_FILES)
def test_a_file_with_a_secret_that_others_may_write_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = secret_file(tmp_path, value)
    monkeypatch.setenv(f"{variable}_FILE", str(path))
    for mode in (0o620, 0o602, 0o666):
        path.chmod(mode)
        assert re.match(rf"{variable}_FILE: others than its owner may write into .* \(mode {mode:04o}\)", refusal())
    path.chmod(0o644)
    load_settings()
    assert f"every user of this machine may read {path} (mode 0644)" in caplog.text
    caplog.clear()
    path.chmod(0o640)
    load_settings()
    assert not caplog.text


@pytest.mark.parametrize(("variable", "value"), SECRETS_IN_FILES)
def test_a_file_with_a_secret_that_belongs_to_another_user_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, value: str
) -> None:
    path = secret_file(tmp_path, value)
    monkeypatch.setenv(f"{variable}_FILE", str(path))
    load_settings()
    give_to_another_user(path, monkeypatch)
    assert re.match(
        rf"{variable}_FILE: .*/secret, which holds a secret, belongs to another user \(uid \d+\)", refusal()
    )


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("RECSYS_KAFKA__LIBRDKAFKA", '{"ssl.key.location": "PATH"}', "ssl.key.location"),
        ("RECSYS_KAFKA__LIBRDKAFKA", '{"ssl.keystore.location": "PATH"}', "ssl.keystore.location"),
        ("RECSYS_REDIS__URL", "rediss://host:1/0?ssl_keyfile=PATH&ssl_certfile=c", "ssl_keyfile"),
    ],
)
def test_a_private_key_that_others_may_write_or_that_is_theirs_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, value: str, named: str
) -> None:
    path = secret_file(tmp_path, "key")
    monkeypatch.setenv(variable, value.replace("PATH", str(path)))
    load_settings()
    path.chmod(0o620)
    assert refusal().startswith(f"{variable}: {named}: others than its owner may write into {path}")
    path.chmod(0o600)
    give_to_another_user(path, monkeypatch)
    assert refusal().startswith(f"{variable}: {named}: {path}, which holds a secret, belongs to another user")


@pytest.mark.parametrize(
    ("content", "why"), [("", "holds nothing"), ("\n", "holds nothing"), ("x" * 2_000_000, "is too large"), (None, "")]
)
def test_a_file_that_holds_no_secret_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None, why: str
) -> None:
    path = tmp_path / "none" if content is None else secret_file(tmp_path, content)
    monkeypatch.setenv("RECSYS_REDIS__URL_FILE", str(path))
    assert (why or "cannot read") in refusal()
    monkeypatch.setenv("RECSYS_REDIS__URL_FILE", "/dev/zero")
    assert refusal() == "RECSYS_REDIS__URL_FILE: cannot read /dev/zero: this is a device, not a file"


def test_a_file_of_properties_must_be_json_and_is_not_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RECSYS_KAFKA__LIBRDKAFKA_FILE", str(secret_file(tmp_path, "sasl.password=hunter2")))
    assert "must hold a JSON object" in refusal()
    assert "hunter2" not in refusal()


def test_files_of_secrets_can_be_named_in_the_toml_file(toml: WriteToml, tmp_path: Path) -> None:
    toml(f'[redis]\nurl_file = "{secret_file(tmp_path, "redis://:hunter2@host:1/0")}"\n')
    assert load_settings().redis.url.get_secret_value() == "redis://:hunter2@host:1/0"


def test_a_toml_file_with_a_secret_that_others_may_write_is_refused(
    toml: WriteToml, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml('[redis]\nurl = "redis://:hunter2@host:1/0"\n')
    path = Path(os.environ["RECSYS_CONFIG"])
    path.chmod(0o666)
    assert refusal().startswith("RECSYS_CONFIG: others than its owner may write into")
    toml('[kafka]\ntopic = "orders"\n')
    path.chmod(0o664)
    assert load_settings().kafka.topic == "orders", "it holds no secret"


def test_secrets_are_read_again_and_a_file_that_went_bad_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = secret_file(tmp_path, "redis://:hunter2@host:1/0")
    monkeypatch.setenv("RECSYS_REDIS__URL_FILE", str(path))
    monkeypatch.setenv("RECSYS_REDIS__PREFIX", "shop")
    given = load_settings().redis
    path.write_text("redis://:changed-too@host:1/0")
    found = given.reread()
    assert found.url.get_secret_value() == "redis://:changed-too@host:1/0"
    assert found.prefix == "shop"
    assert secrets.hidden_in("changed-too") == "***"
    path.write_text("half a U")
    assert given.reread().url == given.url
    assert "what was read before is used: Value error, must start with redis://" in caplog.text
    path.unlink()
    assert given.reread().url == given.url
    assert "cannot read" in caplog.text
