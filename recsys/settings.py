"""All settings, their defaults, where each value came from, and errors that name the setting."""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from recsys.errors import SettingsError

ENV_PREFIX = "RECSYS_"
CONFIG_VARIABLE = "RECSYS_CONFIG"
_TEST_PREFIX = "RECSYS_TEST_"
_SECRET = (["redis", "url"], ["api", "keys"])

_RESERVED_LIBRDKAFKA = frozenset(
    {
        "bootstrap.servers",
        "group.id",
        "group.protocol",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "auto.offset.reset",
        "allow.auto.create.topics",
        "enable.partition.eof",
        "partition.assignment.strategy",
        "isolation.level",
        "enable.idempotence",
        "acks",
    }
)

Positive = Annotated[int, Field(gt=0)]
NotEmpty = Annotated[str, Field(min_length=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _port_or_any(value: object) -> object:
    """Check here, so that one line names the setting: pydantic would say what is wrong for each type of the union."""
    if value == "any" or (isinstance(value, int | str) and str(value).isdecimal() and int(value) <= 65535):
        return value if value == "any" else int(value)
    raise ValueError("must be a port up to 65535, 0 for none, or any for one that is free")


MetricsPort = Annotated[int | Literal["any"], BeforeValidator(_port_or_any)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class KafkaSettings(_Section):
    """The stream of events."""

    bootstrap_servers: NotEmpty = "localhost:9092"
    """Brokers to start from, `host:port` separated by commas."""
    topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")] = "purchases"
    """Topic that the purchases are published to."""
    dead_letter_topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,249}$")] = ""
    """Topic for malformed records; empty means `<topic>.dlq`."""
    group_id: NotEmpty = "recsys"
    """Consumer group of the consumers."""
    group_protocol: Literal["classic", "consumer"] = "classic"
    """Rebalance protocol; `consumer` (KIP-848) needs brokers from 4.0 on."""
    timeout_s: Seconds = 10.0
    """How long to wait for a broker's answer before it counts as unavailable."""
    librdkafka: dict[str, str | int | float | bool] = {}
    """Any other librdkafka property, passed through as it is (TLS, SASL, tuning); as JSON in the environment."""

    @field_validator("librdkafka")
    @classmethod
    def _not_ours(cls, value: dict[str, str | int | float | bool]) -> dict[str, str | int | float | bool]:
        if taken := sorted(_RESERVED_LIBRDKAFKA & value.keys()):
            raise ValueError(f"{', '.join(taken)}: the delivery guarantees depend on it, so it cannot be set")
        return value

    @property
    def dead_letters(self) -> str:
        """The dead-letter topic's name."""
        return self.dead_letter_topic or f"{self.topic}.dlq"


class RedisSettings(_Section):
    """Where histories and lists live."""

    url: SecretStr = SecretStr("redis://localhost:6379/0")
    """`redis://`, `rediss://` (TLS, certificates verified) or `unix://`, with password and database if any."""

    @field_validator("url")
    @classmethod
    def _is_redis_url(cls, value: SecretStr) -> SecretStr:
        parts = urlsplit(value.get_secret_value())
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise ValueError("must start with redis://, rediss:// or unix://")
        if parts.scheme != "unix" and not re.fullmatch(r"/?[0-9]*", parts.path):
            raise ValueError("the database, after the last /, must be a number")
        return value

    cluster: bool = False
    """The URL names a node of a Redis Cluster; the others are learned from it."""
    prefix: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.:-]+$")] = "recsys"
    """First part of every key."""
    timeout_s: Seconds = 5.0
    """How long each of two tries waits for an answer."""


class HistorySettings(_Section):
    """How much is remembered of a user."""

    max_items: Annotated[int, Field(gt=0, le=20_000)] = 2000
    """Items per history; the ones whose newest event is oldest leave first."""
    max_event_ids: Annotated[int, Field(gt=0, le=10_000)] = 256
    """Event ids remembered per user, to recognize an event that was sent twice."""


class RankingSettings(_Section):
    """What a list looks like."""

    n: Annotated[int, Field(gt=0, le=1000)] = 50
    """Items per list."""
    similar_n: Annotated[int, Field(gt=0, le=1000)] = 20
    """Items per similar-items list."""
    popular_half_life_days: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    """In popular lists a purchase counts half after so many days."""
    again_n: Annotated[int, Field(ge=0, le=1000)] = 5
    """Items per list of what a user may buy again; 0 means no such lists."""
    list_ttl_days: Annotated[float, Field(ge=0.001, le=36_500, allow_inf_nan=False)] = 30.0
    """A list expires after this many days without an event or a sweep."""
    repeats: Literal["exclude", "include"] = "exclude"
    """Whether lists may hold items that the user owns already."""

    @property
    def with_owned(self) -> bool:
        """Whether owned items compete."""
        return self.repeats == "include"


class ModelSettings(_Section):
    """Hyper-parameters of the ALS model."""

    factors: Annotated[int, Field(gt=0, le=1024)] = 64
    """Dimensions of the factors."""
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """Weight of a purchase's strength in its confidence, 1 + alpha · log2(1 + quantity)."""
    regularization: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 20.0
    """λ of the loss."""
    half_life_days: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """The strength of what is owned halves this often, by the time since its newest event; 0 = it does not age."""
    repeat_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """How much log(1 + how often the user bought it lately) lifts an owned item, beside what is learned."""
    iterations: Positive = 15
    """Alternations of one fit."""
    seed: int = 0
    """Of the random start of a fit."""


class ConsumerSettings(_Section):
    """The service that keeps histories and lists."""

    batch_size: Annotated[int, Field(gt=0, le=100_000)] = 1000
    """Most records of one micro-batch; it takes what has come, and waits for no more."""
    max_malformed: Annotated[int, Field(ge=0, le=1000)] = 500
    """Most malformed records among the newest 1,000; beyond that the consumer stops; 1000 never stops."""
    commit_interval_s: Seconds = 1.0
    """Time between commits of the offsets."""
    model_poll_s: Seconds = 0.5
    """Time between looks at the model pointer and the hidden items."""
    stats_interval_s: Seconds = 10.0
    """Time between log lines with rates and latencies."""
    metrics_port: MetricsPort = 0
    """Port of the Prometheus metrics; 0 means none, `any` a free one, which the log names."""


class TrainerSettings(_Section):
    """The service that rebuilds the model."""

    interval_s: Seconds = 3600.0
    """Time from the start of one scheduled round to the next."""
    cron: str = ""
    """When rounds start, in UTC, as a cron expression such as `15 3 * * *`; empty means every interval_s."""
    min_new_events: Annotated[int, Field(ge=0)] = 0
    """A scheduled round is left out if fewer events are new; one that is asked for is not."""
    ranker: Literal["linear", "als"] = "linear"
    """What scores are made of: `linear` adds what recent demand and the user's habits say, `als` adds nothing."""
    ranker_window_days: Annotated[float, Field(gt=0, le=3650, allow_inf_nan=False)] = 30.0
    """The weights of demand and habits are learned on the purchases of so many days."""
    holdout_days: Annotated[float, Field(ge=0, le=3650, allow_inf_nan=False)] = 7.0
    """A candidate is judged on the purchases of the newest so many days, which it has not seen; 0 means no gate."""
    gate_tolerance: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.02
    """A candidate is rejected if its NDCG, with all its interval, is below the live one's by more than this share."""
    tune_every_days: Annotated[float, Field(ge=0, le=3650, allow_inf_nan=False)] = 0.0
    """A scheduled round tunes first (recsys tune) if the last tuning is older than this; 0 means never."""
    tune_trials: Positive = 40
    """Trials of such a tuning."""
    keep_versions: Annotated[int, Field(ge=1)] = 5
    """Model versions kept in the store, the live one included, and at most as many rejected ones."""
    lock_ttl_s: Annotated[float, Field(ge=3, allow_inf_nan=False)] = 60.0
    """The trainer's lock expires this long after its holder died."""
    sweep_batch: Positive = 512
    """Users refreshed at a time."""
    sweep_processes: Annotated[int, Field(ge=0, le=256)] = 0
    """Processes that write the lists of many users after a new model; 0 means one per core."""
    niceness: Annotated[int, Field(ge=0, le=19)] = 10
    """Added to the niceness of the trainer's processes, so that consumers on the same machine go first."""
    metrics_port: MetricsPort = 0
    """Port of the Prometheus metrics; 0 means none, `any` a free one, which the log names."""

    @field_validator("cron")
    @classmethod
    def _is_cron(cls, value: str) -> str:
        if not value:
            return value
        from croniter import CroniterError, croniter  # only where it is needed: consumers have no use for it

        problem = "must be a cron expression of five fields, such as 15 3 * * * for a quarter past three"
        if len(value.split()) != 5:
            raise ValueError(problem)
        try:
            croniter(value, datetime.now(UTC)).get_next(datetime)
        except CroniterError as error:
            raise ValueError(f"{problem}: {error}") from None
        return value


class ApiSettings(_Section):
    """The HTTP API."""

    host: NotEmpty = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for all, which calls for keys."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Port to listen on; 0 means any free one, which the log names."""
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Processes that answer requests."""
    keys: SecretStr = SecretStr("")
    """Who may do what: `name:role:key`, separated by commas (`recsys key` makes one). None: reading, from here only."""
    keys_file: str = ""
    """A file that holds them instead, as a mounted secret."""
    rate_limit: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Requests a second of each key, in each worker; a second's worth may come at once; 0 means no limit."""
    max_concurrency: Annotated[int, Field(gt=0, le=100_000)] = 200
    """Requests that each worker has under way; more are answered 503 at once."""
    max_body_bytes: Annotated[int, Field(ge=1024, le=2**30)] = 1_048_576
    """Longest body of a request; a longer one is answered 413."""
    redis_timeout_ms: Annotated[float, Field(gt=0, le=60_000, allow_inf_nan=False)] = 50.0
    """How long a read from Redis waits; a second try, on another connection, waits twice as long."""
    purchases: bool = True
    """Whether POST /v1/purchases, and erasing users, are offered; both need Kafka."""
    audit_file: str = ""
    """Where what operators do is written as well, a JSON object a line; empty means the log alone."""
    cors_origins: list[str] = []
    """Origins whose pages may read the answers, such as `["https://shop.example"]`; empty means none."""

    @model_validator(mode="after")
    def _keys_once(self) -> ApiSettings:
        if self.keys.get_secret_value().strip() and self.keys_file:
            raise ValueError("RECSYS_API__KEYS and RECSYS_API__KEYS_FILE: only one of them can be set")
        return self


class LogSettings(_Section):
    """What is logged."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe level that is written to standard error."""


class Settings(BaseSettings):
    """Everything that can be set; `load_settings` is the way to get one."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    data_dir: NotEmpty = "data"
    """Archive and models: a local folder, or any fsspec URL such as `s3://bucket/recsys`."""
    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    history: HistorySettings = HistorySettings()
    ranking: RankingSettings = RankingSettings()
    model: ModelSettings = ModelSettings()
    consumer: ConsumerSettings = ConsumerSettings()
    trainer: TrainerSettings = TrainerSettings()
    api: ApiSettings = ApiSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order of precedence: arguments, environment, then the TOML file."""
        sources = [init_settings, env_settings]
        if path := os.environ.get(CONFIG_VARIABLE):
            sources.append(TomlConfigSettingsSource(settings_cls, toml_file=path))
        return tuple(sources)


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
        return Settings()
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        raise SettingsError("; ".join(_explained(problem) for problem in problems)) from None


def _explained(problem: Any) -> str:
    """Return one line that names the setting; a value that may hold a secret is not shown."""
    path = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        return f"{_no_such_setting(variable_name(path))}{_where(path)}"
    message = problem["msg"].removeprefix("Value error, ")
    if path[:2] == ["kafka", "librdkafka"]:
        return f"{variable_name(path[:2])}: {': '.join([*path[2:3], message])}"
    value = problem["input"]
    shown = isinstance(value, str | int | float) and path not in _SECRET and not _is_section(path)
    return f"{variable_name(path)}: {message}" + (f" (given: {value!r})" if shown else "") + _where(path)


def _no_such_setting(name: str) -> str:
    paths = [
        [section, *inner]
        for section, field in Settings.model_fields.items()
        for inner in ([[part] for part in type(field.default).model_fields] if _is_section([section]) else [[]])
    ]
    near = difflib.get_close_matches(name.upper(), map(variable_name, paths), n=1)
    return f"{name}: there is no such setting; " + (f"is it {near[0]}?" if near else "recsys config lists them all")


def _where(path: Sequence[str]) -> str:
    """Name the file, if that is where the setting comes from."""
    file, variables = os.environ.get(CONFIG_VARIABLE), {name.upper() for name in os.environ}
    from_environment = not variables.isdisjoint(variable_name(path[:n]) for n in range(1, len(path) + 1))
    return "" if file is None or from_environment else f", in {file}"


def _is_section(path: Sequence[str]) -> bool:
    return len(path) == 1 and isinstance(Settings.model_fields[path[0]].default, _Section)


def variable_name(path: Sequence[str]) -> str:
    """Return the environment variable of a setting, given the names that lead to it."""
    return ENV_PREFIX + "__".join(part.upper() for part in path)


def _check_config_file() -> None:
    path = os.environ.get(CONFIG_VARIABLE)
    if not path:
        return
    try:
        tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{CONFIG_VARIABLE}: cannot read {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{CONFIG_VARIABLE}: {path} is not TOML: {error}") from None


def _check_variables() -> None:
    """Refuse variables that pydantic-settings would pass over, and name those that it could not read."""
    for variable in sorted(os.environ):
        upper = variable.upper()
        if not upper.startswith(ENV_PREFIX) or upper == CONFIG_VARIABLE or upper.startswith(_TEST_PREFIX):
            continue
        path = upper.removeprefix(ENV_PREFIX).lower().split("__")
        if path[0] not in Settings.model_fields or (len(path) > 1 and not _is_section(path[:1])):
            raise SettingsError(_no_such_setting(variable))
        if path == ["api", "cors_origins"]:
            if not _is_json(os.environ[variable], list):
                raise SettingsError(f'{variable}: a JSON array is needed, such as ["https://shop.example"]')
        elif (_is_section(path) or path == ["kafka", "librdkafka"]) and not _is_json(os.environ[variable], dict):
            raise SettingsError(f'{variable}: a JSON object is needed, such as {{"name": "value"}}')


def _is_json(text: str, kind: type) -> bool:
    try:
        return isinstance(json.loads(text), kind)
    except ValueError:
        return False


def masked_url(url: str) -> str:
    """Hide the password of a URL, wherever it stands."""
    scheme, separator, rest = url.rpartition("://")
    address, question, query = rest.partition("?")
    credentials, at, host = address.rpartition("@")
    if at:
        address = f"{credentials.partition(':')[0]}:***@{host}"
    query = re.sub(r"((?:password|passphrase|secret)[^=&]*=)[^&]*", r"\1***", query, flags=re.IGNORECASE)
    return f"{scheme}{separator}{address}{question}{query}"
