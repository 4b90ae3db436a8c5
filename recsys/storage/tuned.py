"""The parameters that tuning found, kept under ``data_dir`` for the next rounds."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from recsys.errors import DataDirError
from recsys.runtime.full_disk import problem_of
from recsys.runtime.private_files import ensure_own_folder, make_folder
from recsys.settings import ModelSettings, Settings
from recsys.storage.files import Storage
from recsys.training.parameters import Parameters, Tuned

_PATH = "tuned.json"
_FOLDER = "tuning"


class TunedFile:
    """The file."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def read(self) -> Tuned | None:
        """Return what the last tuning found, None if there was none.

        Raises
        ------
        DataDirError
            When the file is damaged.
        """
        try:
            return Tuned.model_validate_json(self._storage.read_file(_PATH))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise self._damaged() from error

    def write(self, tuned: Tuned) -> None:
        """Let the next rounds use these parameters."""
        self._storage.write_file(_PATH, tuned.model_dump_json(indent=2).encode())

    def remove(self) -> bool:
        """Let the next rounds use the defaults again; return whether there was anything to remove."""
        was_there = True
        with suppress(DataDirError):  # a damaged file is there as well
            was_there = self.read() is not None
        self._storage.delete(_PATH)
        return was_there

    def parameters(self, settings: Settings) -> Parameters:
        """Return what to fit with: what an operator has set, else what was tuned, else the defaults."""
        model, tuned = settings.model, self.read()
        if tuned is not None:
            found = {name: value for name, value in tuned.parameters.items() if name not in model.model_fields_set}
            try:
                model = ModelSettings.model_validate({**model.model_dump(), **found})
            except ValidationError as error:
                raise self._damaged() from error
        return Parameters(
            **model.model_dump(),
            boost_window_days=settings.trainer.boost_window_days if settings.trainer.scoring == "linear" else 0.0,
            popular_half_life_days=settings.ranking.popular_half_life_days,
        )

    def _damaged(self) -> DataDirError:
        return DataDirError(f"{self._storage.uri(_PATH)} is damaged; remove it, then tune again with recsys tune")


def study_folder(storage: Storage) -> Path:
    """Return where trials are written: under data_dir if it is a local folder, else among temporary files.

    Among these every user has a folder of his own, which the next tuning finds again.

    Raises
    ------
    DataDirError
        When it cannot be made, or may be somebody else's.
    """
    own = Path(tempfile.gettempdir()) / f"recsys-tuning-{os.getuid()}"
    folder = Path(storage.path(_FOLDER)) if storage.is_local else own
    try:
        if storage.is_local:
            make_folder(folder, shared_with=Path(storage.root))
        else:
            ensure_own_folder(folder)
    except OSError as error:
        raise DataDirError(f"{folder}: the trials cannot be written: {problem_of(error, folder)}") from error
    return folder
