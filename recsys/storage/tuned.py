"""The parameters that tuning found, kept under ``data_dir`` for the next rounds."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pydantic import ValidationError

from recsys.errors import DataDirError
from recsys.settings import ModelSettings, Settings
from recsys.storage.files import Storage
from recsys.training.parameters import Parameters, Tuned

_PATH = "tuned.json"


def read_tuned(storage: Storage) -> Tuned | None:
    """Return what the last tuning found, None if there was none.

    Raises
    ------
    DataDirError
        When the file is damaged.
    """
    try:
        return Tuned.model_validate_json(storage.read_file(_PATH))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise DataDirError(f"{storage.uri(_PATH)} is damaged; remove it, then tune again with recsys tune") from error


def write_tuned(storage: Storage, tuned: Tuned) -> None:
    """Let the next rounds use these parameters."""
    storage.write_file(_PATH, tuned.model_dump_json(indent=2).encode())


def model_settings(settings: Settings, storage: Storage) -> ModelSettings:
    """Return the hyper-parameters to fit with: what an operator has set, else what was tuned, else the defaults."""
    tuned = read_tuned(storage)
    if tuned is None:
        return settings.model
    found = {name: value for name, value in tuned.parameters.items() if name not in settings.model.model_fields_set}
    try:
        return ModelSettings.model_validate({**settings.model.model_dump(), **found})
    except ValidationError as error:
        raise DataDirError(f"{storage.uri(_PATH)} is damaged; remove it, then tune again with recsys tune") from error


def parameters_of(settings: Settings, model: ModelSettings) -> Parameters:
    """Return what to fit with."""
    window_days = settings.trainer.boost_window_days if settings.trainer.scoring == "linear" else 0.0
    return Parameters(
        **model.model_dump(),
        boost_window_days=window_days,
        popular_half_life_days=settings.ranking.popular_half_life_days,
    )


_FOLDER = "tuning"


def study_folder(storage: Storage) -> Path:
    """Return where trials are written: under data_dir if it is a local folder, else among temporary files."""
    return Path(storage.path(_FOLDER)) if storage.is_local else Path(tempfile.gettempdir()) / "recsys-tuning"
