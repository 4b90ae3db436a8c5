"""All settings, their defaults, where each value came from, and errors that name the setting."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from recsys.settings.fields import MetricsPort, NotEmpty, Positive, Seconds
from recsys.settings.formats import FormatSettings
from recsys.settings.masking import FOLDER, KEYS, PASSWORD, PROPERTIES
from recsys.settings.redis import RedisSettings
from recsys.settings.section import ENV_PREFIX, Section, with_secrets_from_files
from recsys.settings.status import StatusSettings

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


_SHORTEST_HALF_LIFE_DAYS = 0.01
_SHORTEST_HASH_KEY = 16


class KafkaSettings(Section):
    """The stream of events."""

    bootstrap_servers: NotEmpty = "localhost:9092"
    """Addresses of the first brokers to connect to, `host:port` separated by commas."""
    topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")] = "purchases"
    """Topic with the purchases."""
    dead_letter_topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{0,249}$")] = ""
    """Topic for malformed records (dead letters); empty means `<topic>.dlq`."""
    group_id: NotEmpty = "recsys"
    """Name of the consumer group."""
    group_protocol: Literal["classic", "consumer"] = "classic"
    """Rebalance protocol; `consumer` (KIP-848) needs brokers of version 4.0 or newer."""
    timeout_s: Seconds = 10.0
    """How long to wait for a broker's answer before it counts as unavailable."""
    librdkafka: Annotated[dict[str, str | int | float | bool], PROPERTIES, Field(repr=False)] = {}
    """Other librdkafka properties (TLS, SASL, tuning), passed on unchanged; a JSON object in the environment."""
    librdkafka_file: str = ""
    """File with these properties, a JSON object; instead of RECSYS_KAFKA__LIBRDKAFKA."""

    @field_validator("librdkafka")
    @classmethod
    def _not_ours(cls, value: dict[str, str | int | float | bool]) -> dict[str, str | int | float | bool]:
        if taken := sorted(_RESERVED_LIBRDKAFKA & value.keys()):
            raise ValueError(f"{', '.join(taken)}: cannot be set, because the delivery guarantees depend on it")
        return value

    @model_validator(mode="after")
    def _letters_elsewhere(self) -> Self:
        if self.dead_letter_topic == self.topic:
            raise ValueError("dead_letter_topic must not be the topic with the purchases")
        return self

    @property
    def dead_letters(self) -> str:
        """The dead-letter topic's name."""
        return self.dead_letter_topic or f"{self.topic}.dlq"


class EventsSettings(FormatSettings):
    """How events are read where they leave something open."""

    mapping: str = ""
    """How records of another form become events: a TOML file, or the name of a preset; empty for the contract's own."""
    envelope: Literal["none", "cloudevents"] = "none"
    """What records are wrapped in; the mapping then looks at what is inside."""
    max_record_bytes: Annotated[int, Field(ge=0, le=2**26)] = 0
    """A longer record is malformed; 0 means 64 KiB, or 1 MiB with a mapping."""
    oldest: Annotated[date, Field(ge=date(1970, 1, 1), le=date(9999, 12, 31))] = date(1990, 1, 1)
    """No integer timestamp is read as a time before this day (UTC)."""
    timestamp_unit: Literal["auto", "s", "ms", "us", "ns"] = "auto"
    """Unit of integer timestamps, since 1970; `auto`: the one that fits between `oldest` and a day after the record."""
    no_user: list[str] = []
    """Ids that are no customers, such as `["0", "guest"]`, in lower or upper case: their purchases are passed over."""
    max_return: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = 1_000.0
    """Most units of one return; a larger one is malformed: it would hide the item from its owner for good."""


MOST_EVENT_IDS: Final = 10_000
"""What `HistorySettings.max_event_ids` may be at most."""


class HistorySettings(Section):
    """How much is stored per user."""

    max_items: Annotated[int, Field(gt=0, le=20_000)] = 2000
    """Maximum items per history; the items whose newest event is oldest are removed first."""
    max_event_ids: Annotated[int, Field(gt=0, le=MOST_EVENT_IDS)] = 256
    """Event ids stored per user, to recognize an event that was sent twice."""


class RankingSettings(Section):
    """What a list looks like."""

    n: Annotated[int, Field(gt=0, le=1000)] = 50
    """Items per list."""
    similar_n: Annotated[int, Field(gt=0, le=1000)] = 20
    """Items per similar-items list."""
    popular_half_life_days: Annotated[float, Field(ge=0.01, le=36_500, allow_inf_nan=False)] = 30.0
    """After this many days a purchase counts half in popular lists."""
    again_n: Annotated[int, Field(ge=0, le=1000)] = 5
    """Items per list of what a user may buy again; 0 means no such list."""
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
    """Number of factors (dimensions of a user or item vector)."""
    alpha: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] = 1.0
    """Weight of a purchase's strength in its confidence, 1 + alpha · log2(1 + quantity)."""
    regularization: Annotated[float, Field(ge=1e-6, le=1e9, allow_inf_nan=False)] = 20.0
    """Regularization λ of the loss."""
    half_life_days: Annotated[float, Field(ge=0, le=36_500, allow_inf_nan=False)] = 0.0
    """After this many days without a new event the strength of an owned item is half; 0 means no decay."""
    repeat_weight: Annotated[float, Field(ge=0, le=1_000, allow_inf_nan=False)] = 0.0
    """Weight of log(1 + recent purchases of an owned item by the user) in its score, added to the learned weights."""
    iterations: Annotated[int, Field(gt=0, le=1_000)] = 15
    """Iterations of one fit."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Random seed."""
    min_buyers: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] = 1.0
    """An item enters the model when its buyers support it this much together: a regular customer counts 1, one of few
    days less, a fifth after one day. With fewer than 1,000 users it is less in proportion; 0 means that
    every item enters."""

    @field_validator("half_life_days")
    @classmethod
    def _none_or_not_too_short(cls, value: float) -> float:
        if 0 < value < _SHORTEST_HALF_LIFE_DAYS:
            raise ValueError(f"must be 0 (no decay) or at least {_SHORTEST_HALF_LIFE_DAYS}: else no purchase counts")
        return value


class ConsumerSettings(Section):
    """The service that keeps histories and lists."""

    batch_size: Annotated[int, Field(gt=0, le=100_000)] = 1000
    """Maximum records per micro-batch; a batch is sent as soon as it is read."""
    max_malformed: Annotated[int, Field(ge=0, le=1000)] = 500
    """Malformed-record limit: with more than this among the newest 1,000 the consumer stops; 1000 never stops it."""
    commit_interval_s: Seconds = 1.0
    """Time between commits of offsets."""
    model_poll_s: Seconds = 0.5
    """Time between checks of the model pointer and the hidden items."""
    stats_interval_s: Seconds = 10.0
    """Time between log lines with rates and latencies."""
    metrics_host: NotEmpty = "127.0.0.1"
    """Address on which the metrics are served; 0.0.0.0 = all addresses: they ask for no key."""
    metrics_port: MetricsPort = 0
    """Port of the Prometheus metrics; 0 means none, `any` a free one, which the log names."""


class TrainerSettings(Section):
    """The service that rebuilds the model."""

    interval_s: Seconds = 3600.0
    """Time from the start of one scheduled round to the next."""
    cron: str = ""
    """Cron expression (UTC) of the scheduled rounds, such as `15 3 * * *`; empty means every interval_s."""
    min_new_events: Annotated[int, Field(ge=0)] = 0
    """A scheduled round is skipped if fewer events are new; a requested round never is."""
    scoring: Literal["linear", "als"] = "linear"
    """`linear` adds boosts for recent demand and the user's habits to the ALS score; `als` uses the ALS score alone."""
    boost_window_days: Annotated[float, Field(gt=0, le=3650, allow_inf_nan=False)] = 30.0
    """Boost weights are learned from the purchases of the newest days, this many."""
    holdout_days: Annotated[float, Field(ge=0, le=3650, allow_inf_nan=False)] = 7.0
    """Days of the newest purchases that a candidate is compared on and has not seen; 0 means no gate."""
    gate_tolerance: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.02
    """A candidate is rejected if its NDCG is lower than the live model's by more than this share (whole interval)."""
    tune_every_days: Annotated[float, Field(ge=0, le=3650, allow_inf_nan=False)] = 0.0
    """A scheduled round runs `recsys tune` first if the last tuning is older than this; 0 means never."""
    tune_trials: Positive = 40
    """Trials of such a tuning run."""
    keep_versions: Annotated[int, Field(ge=1)] = 5
    """Model versions that are kept, the live one included; as many rejected ones are kept at most."""
    lock_ttl_s: Annotated[float, Field(ge=3, allow_inf_nan=False)] = 60.0
    """The trainer's lock expires this long after the process that holds it has died."""
    refresh_batch: Positive = 512
    """Users per batch of a full refresh."""
    refresh_processes: Annotated[int, Field(ge=0, le=256)] = 0
    """Processes of a full refresh of many users; 0 means one per core."""
    former_names = {
        "ranker": "scoring",
        "ranker_window_days": "boost_window_days",
        "sweep_batch": "refresh_batch",
        "sweep_processes": "refresh_processes",
    }

    niceness: Annotated[int, Field(ge=0, le=19)] = 10
    """Added to the niceness of the trainer's processes, so that consumers on the same machine go first."""
    metrics_host: NotEmpty = "127.0.0.1"
    """Address on which the metrics are served; 0.0.0.0 = all addresses: they ask for no key."""
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
    """Address to listen on; with 0.0.0.0 (all addresses) set keys as well."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Port to listen on; 0 means any free port, which the log names."""
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    """Worker processes."""
    keys: Annotated[SecretStr, KEYS] = SecretStr("")
    """Keys (`recsys key` makes one), separated by commas. Without keys only programs on this machine can read."""
    keys_file: str = ""
    """File with the keys, one per line, which no other user may write to; instead of RECSYS_API__KEYS."""
    rate_limit: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Requests per second, per key and worker; as many may come at once; 0 means no limit."""
    event_limit: Annotated[int, Field(ge=0, le=2**31)] = 6_000
    """Events per minute that a key may post, per worker; a minute's worth may come at once; 0 means no limit."""
    max_concurrency: Annotated[int, Field(gt=0, le=100_000)] = 200
    """Requests that a worker handles at the same time; more are answered 503 at once."""
    max_connections: Annotated[int, Field(gt=0, le=100_000)] = 800
    """Connections of a worker; then the oldest one that waits for its client ends, or the new one is answered 503."""
    max_connections_per_address: Annotated[int, Field(gt=0, le=100_000)] = 400
    """The same for connections from one address; behind a proxy all of them are the proxy's."""
    client_timeout_s: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 20.0
    """How long a client may take to send the head of a request, and again for its body, and to read an answer."""
    max_body_bytes: Annotated[int, Field(ge=1024, le=2**30)] = 1_048_576
    """Maximum size of a request body; a longer one is answered 413."""
    redis_timeout_ms: Annotated[float, Field(gt=0, le=60_000, allow_inf_nan=False)] = 50.0
    """How long a read from Redis waits; a second try on another connection waits twice as long."""
    purchases: bool = True
    """Whether apps can post purchases and erase users; both need Kafka."""
    audit_file: str = ""
    """File for the audit log, one JSON object per line, in addition to the log; empty means none."""
    cors_origins: list[str] = []
    """Origins whose web pages may read answers (CORS), such as `["https://shop.example"]`; empty means none."""

    @model_validator(mode="after")
    def _keys_once(self) -> ApiSettings:
        if self.keys.get_secret_value().strip() and self.keys_file:
            raise ValueError("RECSYS_API__KEYS and RECSYS_API__KEYS_FILE: only one of them can be set")
        return self


class LogSettings(Section):
    """What is logged."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Lowest level of messages that are logged to standard error."""
    format: Literal["auto", "text", "json"] = "auto"
    """Form of the lines: `text` for people, `json` for programs; `auto` = text on a terminal, otherwise JSON."""
    hash_user_ids: bool = False
    """Name users in log lines by hashes of their ids, made with `hash_key`."""
    hash_key: Annotated[SecretStr, PASSWORD] = SecretStr("")
    """Secret of these hashes, the same for all services: at least 16 characters (`openssl rand -hex 32` makes one)."""
    hash_key_file: str = ""
    """File with that secret, instead of RECSYS_LOG__HASH_KEY."""

    @model_validator(mode="after")
    def _has_a_key(self) -> Self:
        if self.hash_user_ids and len(self.hash_key.get_secret_value()) < _SHORTEST_HASH_KEY:
            raise ValueError(
                "hash_user_ids needs RECSYS_LOG__HASH_KEY, or RECSYS_LOG__HASH_KEY_FILE, with at least "
                f"{_SHORTEST_HASH_KEY} characters: openssl rand -hex 32 makes one"
            )
        return self


class Settings(BaseSettings):
    """Everything that can be set; `load_settings` is the way to get one."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    data_dir: Annotated[NotEmpty, FOLDER, Field(repr=False)] = "data"
    """Folder of archive and models: a local folder, or any fsspec URL such as `s3://bucket/recsys`."""
    data_dir_file: str = ""
    """File with that URL, where it holds a password; instead of RECSYS_DATA_DIR."""
    kafka: KafkaSettings = KafkaSettings()
    events: EventsSettings = EventsSettings()
    redis: RedisSettings = RedisSettings()
    history: HistorySettings = HistorySettings()
    ranking: RankingSettings = RankingSettings()
    model: ModelSettings = ModelSettings()
    consumer: ConsumerSettings = ConsumerSettings()
    trainer: TrainerSettings = TrainerSettings()
    api: ApiSettings = ApiSettings()
    status: StatusSettings = StatusSettings()
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

    @model_validator(mode="before")
    @classmethod
    def _secrets_from_files(cls, given: Any) -> Any:
        return with_secrets_from_files(cls, given) if isinstance(given, Mapping) else given
