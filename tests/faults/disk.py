"""A disk that can be filled: a small tmpfs where the kernel lets us mount one, else a fail point."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SIZE_BYTES = 4 * 1024 * 1024
_PAGE_BYTES = 4096


class SmallDisk:
    """A file system of 4 MiB, mounted in a namespace of its own, that every process can reach by its path."""

    description = "a small tmpfs"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trainer_environment: dict[str, str] = {}
        self._filler = folder / "filler"

    def fill(self, *, but_pages: int = 0) -> None:
        """Take all space, or all but so many pages."""
        with self._filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(_PAGE_BYTES))
            except OSError:
                file.truncate(max(0, file.tell() - but_pages * _PAGE_BYTES))

    def free(self) -> None:
        """Give it back."""
        self._filler.unlink()


class DiskOfFailPoints:
    """Stands in for a small disk: the first segment that the trainer writes, and the second model, find it full."""

    description = "fail points"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trainer_environment = {"RECSYS_TEST_FAIL_POINTS": "in-segment=full,in-model=full@6"}

    def fill(self, *, but_pages: int = 0) -> None:
        """Do nothing: the fail points are armed."""

    def free(self) -> None:
        """Do nothing: each fails once."""


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk | None]:
    """Mount a small disk until the block ends; yield None where no namespace can be had."""
    mounted = folder / "disk"
    mounted.mkdir()
    if shutil.which("unshare") is None:  # not on Linux
        yield None
        return
    # It lives as long as its standard input is open.
    script = f"mount -t tmpfs -o size={_SIZE_BYTES} tmpfs '{mounted}' && echo mounted && exec cat"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            if holder.stdout.readline() == b"mounted\n":
                yield SmallDisk(Path(f"/proc/{holder.pid}/root{mounted}"))
            else:
                yield None
        finally:
            holder.stdin.close()
