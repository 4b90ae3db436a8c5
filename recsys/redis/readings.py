"""How records are read, and from which one on: kept so that no record is ever read in two ways."""

from __future__ import annotations

import re
from collections.abc import Mapping

import orjson

from recsys.data.reading_history import Reading, ReadingHistory
from recsys.redis.connection import Connection
from recsys.redis.damage import damaged, json_object
from recsys.redis.keys import Keys

_BEGINS = re.compile(r"[0-9]{1,15} \w+(?: [0-9]{1,15} \w+)*")
_FROM, _AS = "from ", "as "


class ReadingStore:
    """What consumers and archivers note about how they read."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    def begin(self, reading: Reading, unapplied: Mapping[str, int]) -> bool:
        """Note that a consumer reads on in a certain way; return whether that is another one than before.

        Records that are applied or archived already keep the way in which they were read.

        Parameters
        ----------
        reading : Reading
        unapplied : mapping
            Source → first offset that no consumer has applied.
        """
        return self._note(reading, {source: (offset, "") for source, offset in unapplied.items()})

    def claim(self, reading: Reading, ranges: Mapping[str, tuple[int, int]]) -> None:
        """Note that records are read now, as consumers read them: none of them may be read in another way later.

        Parameters
        ----------
        reading : Reading
            How they are read where no consumer has noted anything.
        ranges : mapping
            Source → first offset that no consumer has applied, end of what is read.
        """
        self._note(reading, ranges)

    def claim_to_apply(self, fingerprint: str, ends: Mapping[str, int]) -> str:
        """Note that a consumer is about to apply records, unless another one reads them in another way by now.

        Parameters
        ----------
        fingerprint : str
            How the consumer reads.
        ends : mapping of str → int
            Source → the first offset behind the records.

        Returns
        -------
        str
            A source that is read in another way; then nothing is noted. Empty: there is none.
        """
        if not ends:
            return ""
        arguments = [part for source, end in ends.items() for part in (source, end)]
        refused: bytes = self._connection.run_script("reads", [((self._keys.readings,), (fingerprint, *arguments))])[0]
        return refused.decode()

    def _note(self, reading: Reading, sources: Mapping[str, tuple[int, int | str]]) -> bool:
        arguments = [part for source, (unapplied, end) in sources.items() for part in (source, unapplied, end)]
        call = ((self._keys.readings,), (reading.fingerprint, orjson.dumps(reading.description), *arguments))
        return bool(self._connection.run_script("readings", [call])[0]) if arguments else False

    def history(self) -> ReadingHistory:
        """Return what is noted.

        Raises
        ------
        DamagedKey
            When it is nothing that was written here.
        """
        key = self._keys.readings
        flat = self._connection.run([(key, ("HGETALL", key))])[0]
        pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
        begins: dict[str, list[tuple[int, str]]] = {}
        descriptions = {}
        for name, value in ((name.decode(errors="replace"), value) for name, value in pairs):
            if name.startswith(_AS):
                descriptions[name.removeprefix(_AS)] = json_object(self._keys, key, value)
            elif name.startswith(_FROM):
                text = value.decode(errors="replace")
                if not _BEGINS.fullmatch(text):
                    raise damaged(self._keys, key, f"{name!r} holds {text[:40]!r}")
                words = text.split()
                begins[name.removeprefix(_FROM)] = [
                    (int(at), how) for at, how in zip(words[::2], words[1::2], strict=True)
                ]
        return ReadingHistory(begins, descriptions)
