"""Everything under ``data_dir``, opened once, beside the Redis store."""

from __future__ import annotations

from dataclasses import dataclass

from recsys.settings import Settings
from recsys.storage.archive import Archive
from recsys.storage.catalogue import CatalogueFile
from recsys.storage.files import Storage
from recsys.storage.hidden import HiddenFile
from recsys.storage.imports import ImportLog
from recsys.storage.models import ModelStore
from recsys.storage.rounds import RoundLog
from recsys.storage.tuned import TunedFile
from recsys.storage.verified import VerifiedFile


@dataclass(frozen=True, slots=True)
class DataDir:
    """What is kept under ``data_dir``, by what it concerns.

    Its methods raise `DataDirError` when the folder cannot be read or written. Only the process that holds the
    trainer's lock may write.

    Attributes
    ----------
    storage : Storage
        The folder itself.
    archive : Archive
        Purchases, the source of truth.
    models : ModelStore
    rounds : RoundLog
        What the trainer's rounds and rollbacks were like.
    catalogue : CatalogueFile
        What the shop says of its items.
    hidden : HiddenFile
        What operators hide; written by the trainer, which needs no lock for it.
    imports : ImportLog
        Which files were imported.
    tuned : TunedFile
        Parameters that tuning found.
    verified : VerifiedFile
        What the newest `recsys verify` has found; written by that, which needs no lock for it.
    """

    storage: Storage
    archive: Archive
    models: ModelStore
    rounds: RoundLog
    catalogue: CatalogueFile
    hidden: HiddenFile
    imports: ImportLog
    tuned: TunedFile
    verified: VerifiedFile

    @classmethod
    def of(cls, storage: Storage) -> DataDir:
        """Return what is kept in a folder."""
        return cls(
            storage,
            Archive(storage),
            ModelStore(storage),
            RoundLog(storage),
            CatalogueFile(storage),
            HiddenFile(storage),
            ImportLog(storage),
            TunedFile(storage),
            VerifiedFile(storage),
        )

    @property
    def url(self) -> str:
        """The folder, as the setting names it, without the password that a URL may hold."""
        return self.storage.url


def open_data_dir(settings: Settings) -> DataDir:
    """Open the folder that ``data_dir`` names; nothing is read or written before the first call.

    Raises
    ------
    DataDirError
        When the setting names neither a folder nor a URL that can be opened.
    """
    return DataDir.of(Storage(settings.data_dir))
