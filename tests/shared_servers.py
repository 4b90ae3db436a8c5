"""One Kafka broker and one Redis server for all workers of a run: the first who needs one starts it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class StartedServer:
    """A server that lives until the run ends, whoever started it."""

    address: str
    description: str


_VARIABLE = "RECSYS_TEST_SHARED"


class SharedServers:
    """What the workers of one run share, in a folder that the run's first process makes and ends.

    Parameters
    ----------
    folder : Path
        Known to all workers of the run, and to no other run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of_this_run(cls) -> SharedServers | None:
        """Return those of the run that this process belongs to, if it belongs to one."""
        folder = os.environ.get(_VARIABLE)
        return cls(Path(folder)) if folder else None

    @classmethod
    def begin(cls) -> SharedServers:
        """Begin to share with all processes that this one starts from now on."""
        os.environ[_VARIABLE] = tempfile.mkdtemp(prefix="recsys-tests-")
        return cls(Path(os.environ[_VARIABLE]))

    def get(self, name: str, start: Callable[[Path], StartedServer]) -> StartedServer:
        """Return a server; if nobody has needed it before, ``start`` starts it in a folder of its own."""
        with self.alone(name):
            note = self.folder / f"{name}.json"
            if note.exists():
                return StartedServer(**json.loads(note.read_text()))
            folder = self.folder / name
            folder.mkdir()
            started = start(folder)
            note.write_text(json.dumps(asdict(started)))
            return started

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Keep other workers out of what has this name until the block ends; a worker that dies lets go."""
        with (self.folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def started(self) -> list[StartedServer]:
        """Return all servers that were needed."""
        return [StartedServer(**json.loads(note.read_text())) for note in sorted(self.folder.glob("*.json"))]

    def ends_with_the_run(self, pid: int) -> None:
        """Note a process that is to be killed when the run ends, should it still be there.

        A worker that is interrupted ends without its fixtures having ended what they started.
        """
        notes = self.folder / "processes"
        notes.mkdir(exist_ok=True)
        with suppress(psutil.NoSuchProcess):  # it has ended already
            (notes / f"{pid}-{psutil.Process(pid).create_time()}").touch()

    def end(self) -> None:
        """Kill what is still there, and remove the folder."""
        for note in self.folder.glob("processes/*"):
            pid, _, started = note.name.partition("-")
            try:
                process = psutil.Process(int(pid))
                if abs(process.create_time() - float(started)) < 1:  # else another process has the number now
                    process.kill()
                    process.wait(timeout=10)
            except (psutil.NoSuchProcess, psutil.TimeoutExpired):  # one that nobody waits for remains as a zombie
                pass
        shutil.rmtree(self.folder, ignore_errors=True)
