"""How settings ask to read records, described so that services can agree on it."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import lru_cache

import orjson

from recsys.data.epoch import EpochUnit
from recsys.data.event import EventReading
from recsys.data.mapping import EventMapping
from recsys.data.mapping_file import CONTRACT, preset, presets
from recsys.data.reading_history import Reading
from recsys.errors import InputFileError, SettingsError
from recsys.settings import EventsSettings
from recsys.settings.regular_files import open_regular

_LONGEST_MAPPING_BYTES = 2**18


@lru_cache
def load_mapping(name: str) -> EventMapping:
    """Read a mapping: one of `presets` by its name, or a file by its path.

    It is read once: what changes in a file counts when the process is started again, as with settings.

    Raises
    ------
    InputFileError
        When there is none, or it is wrong.
    """
    if name in presets():
        return EventMapping.parse(preset(name), name=name)
    try:
        with open_regular(name) as file:
            content = file.read(_LONGEST_MAPPING_BYTES + 1)
        if len(content) > _LONGEST_MAPPING_BYTES:
            raise InputFileError(f"{name}: has more than {_LONGEST_MAPPING_BYTES:,} bytes: it is no mapping")
        return EventMapping.parse(content.decode("utf-8-sig"), name=name)
    except FileNotFoundError:
        raise InputFileError(f"{name}: is neither a file nor one of {', '.join(presets())}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputFileError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def event_reading(settings: EventsSettings) -> EventReading:
    """Return how these settings ask to read events."""
    oldest = datetime(settings.oldest.year, settings.oldest.month, settings.oldest.day, tzinfo=UTC)
    return EventReading(
        unit=None if settings.timestamp_unit == "auto" else EpochUnit(settings.timestamp_unit),
        oldest_ms=round(oldest.timestamp() * 1000),
        no_user=frozenset(word.lower() for word in settings.no_user),
        max_return=settings.max_return,
    )


def reading_of(settings: EventsSettings) -> Reading:
    """Return how these settings ask to read records.

    Raises
    ------
    SettingsError
        When the mapping cannot be read.
    """
    mapping = None
    if settings.mapping or settings.envelope != "none":
        try:
            mapping = load_mapping(settings.mapping or CONTRACT).described
        except InputFileError as error:
            raise SettingsError(f"RECSYS_EVENTS__MAPPING: {error}") from None
    reading = event_reading(settings)
    description: dict[str, object] = {
        "mapping": mapping,
        "envelope": settings.envelope,
        "max_bytes": settings.max_record_bytes,
        "unit": reading.unit,
        "oldest_ms": reading.oldest_ms,
        "no_user": sorted(reading.no_user),
        "max_return": reading.max_return,
    }
    if settings.format != "json":  # JSON is described as before there were other formats: it is the same way to read
        description["format"] = settings.format
        description["message"] = settings.protobuf_message if settings.format == "protobuf" else ""
    return Reading(hashlib.sha256(orjson.dumps(description, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16], description)
