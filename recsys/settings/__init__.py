"""Settings: what can be set, where values come from, and errors that name the setting."""

from __future__ import annotations

from recsys.settings.loading import load_settings, variable_name
from recsys.settings.masking import hide_in_records, masked_folder, masked_url, secrets
from recsys.settings.redis import RedisSettings
from recsys.settings.section import ENV_PREFIX
from recsys.settings.sections import (
    CONFIG_VARIABLE,
    ApiSettings,
    EventsSettings,
    HistorySettings,
    KafkaSettings,
    LogSettings,
    ModelSettings,
    RankingSettings,
    Settings,
    TrainerSettings,
)

__all__ = [
    "CONFIG_VARIABLE",
    "ENV_PREFIX",
    "ApiSettings",
    "EventsSettings",
    "HistorySettings",
    "KafkaSettings",
    "LogSettings",
    "ModelSettings",
    "RankingSettings",
    "RedisSettings",
    "Settings",
    "TrainerSettings",
    "hide_in_records",
    "load_settings",
    "masked_folder",
    "masked_url",
    "secrets",
    "variable_name",
]
