"""The library: what a purchase, a history, a model and a list are, and how they reach Kafka, Redis and disk."""

from __future__ import annotations

from importlib.metadata import version

from recsys.data.event import Event, EventType, decode
from recsys.data.history import History
from recsys.data.interactions import Interactions
from recsys.data.vocabulary import Vocabulary
from recsys.model.factor_model import FactorModel
from recsys.recommend.user_lists import RankedList, refresh
from recsys.settings import Settings, load_settings

__all__ = [
    "Event",
    "EventType",
    "FactorModel",
    "History",
    "Interactions",
    "RankedList",
    "Settings",
    "Vocabulary",
    "decode",
    "load_settings",
    "refresh",
]
__version__ = version("recsys")
