"""All settings, their defaults, where each value came from, and errors that name the setting."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

log = logging.getLogger(__name__)


ENV_PREFIX = "RECSYS_"


CONFIG_VARIABLE = "RECSYS_CONFIG"


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


class Section(BaseModel):
    """Settings that concern one thing."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
    former_names: ClassVar[Mapping[str, str]] = {}
    """Names that settings had in the release before: they still work, with a warning."""

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
                log.warning("the setting %s is now called %s; the old name works in this release only", former, name)
        return renamed


class KafkaSettings(Section):
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


class RedisSettings(Section):
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


class HistorySettings(Section):
    """How much is remembered of a user."""

    max_items: Annotated[int, Field(gt=0, le=20_000)] = 2000
    """Items per history; the ones whose newest event is oldest leave first."""
    max_event_ids: Annotated[int, Field(gt=0, le=10_000)] = 256
    """Event ids remembered per user, to recognize an event that was sent twice."""


class RankingSettings(Section):
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
    """A list expires after this many days without an event or a full refresh."""
    include_purchased: bool = False
    """Whether lists may hold items that the user has purchased already."""
    former_names = {"repeats": "include_purchased"}

    @field_validator("include_purchased", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        return {"include": True, "exclude": False}.get(value, value) if isinstance(value, str) else value


class ModelSettings(Section):
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


class ConsumerSettings(Section):
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


class TrainerSettings(Section):
    """The service that rebuilds the model."""

    interval_s: Seconds = 3600.0
    """Time from the start of one scheduled round to the next."""
    cron: str = ""
    """When rounds start, in UTC, as a cron expression such as `15 3 * * *`; empty means every interval_s."""
    min_new_events: Annotated[int, Field(ge=0)] = 0
    """A scheduled round is left out if fewer events are new; one that is asked for is not."""
    scoring: Literal["linear", "als"] = "linear"
    """What scores are made of: `linear` adds boosts for recent demand and the user's habits, `als` adds none."""
    boost_window_days: Annotated[float, Field(gt=0, le=3650, allow_inf_nan=False)] = 30.0
    """Boost weights are learned on the purchases of this many days."""
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
    refresh_batch: Positive = 512
    """Users per step of a full refresh."""
    refresh_processes: Annotated[int, Field(ge=0, le=256)] = 0
    """Processes that write the lists of many users after a new model; 0 means one per core."""
    niceness: Annotated[int, Field(ge=0, le=19)] = 10
    """Added to the niceness of the trainer's processes, so that consumers on the same machine go first."""
    former_names = {
        "ranker": "scoring",
        "ranker_window_days": "boost_window_days",
        "sweep_batch": "refresh_batch",
        "sweep_processes": "refresh_processes",
    }

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


class ApiSettings(Section):
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


class LogSettings(Section):
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
