"""The demo: what a newcomer runs first, whole and with a sample of households."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from recsys.demo import purchases
from recsys.redis import open_store
from recsys.settings import Settings
from tests.services import running, wait_until

_DAY_S = 24 * 3600


@dataclass
class KeptDemo:
    """A demo that has played its last month, while everything is still running."""

    text: str
    addresses: dict[str, str]
    environment: Mapping[str, str]

    def settings(self) -> Settings:
        """Return the settings that its `export` lines make."""
        return Settings.model_validate(
            {
                "kafka": {"bootstrap_servers": self.addresses["RECSYS_KAFKA__BOOTSTRAP_SERVERS"]},
                "redis": {"url": self.addresses["RECSYS_REDIS__URL"]},
                "data_dir": self.addresses["RECSYS_DATA_DIR"],
            }
        )

    def recsys(self, *arguments: str) -> str:
        """Run a command that must succeed; return what it prints, in one line."""
        command = [sys.executable, "-m", "recsys", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        return " ".join(done.stdout.split())


@contextmanager
def kept_demo(folder: Path, *arguments: str) -> Iterator[KeptDemo]:
    """Play a demo, and check that it stops cleanly and leaves nothing behind."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RECSYS_", "COLUMNS"))}
    log = folder / "demo.log"
    with running([sys.executable, "-m", "recsys", "demo", "--keep", *arguments], log, environment) as demo:

        def kept() -> bool:
            assert demo.poll() is None, f"the demo ended with {demo.returncode}:\n{log.read_text()}"
            return "Ctrl-C stops it" in log.read_text()

        wait_until(kept, "the demo has played the last month", patience_s=900)
        text = log.read_text()
        addresses = dict(re.findall(r"export (RECSYS_\w+)=(\S+)", text))
        assert len(addresses) == 3
        yield KeptDemo(text, addresses, {**environment, **addresses, "COLUMNS": "160"})
        demo.send_signal(signal.SIGINT)
        assert demo.wait(timeout=120) == 0
    assert not Path(addresses["RECSYS_DATA_DIR"]).parent.exists(), "nothing is left behind"
    for address in (addresses["RECSYS_KAFKA__BOOTSTRAP_SERVERS"], urlsplit(addresses["RECSYS_REDIS__URL"]).netloc):
        host, port = address.split(":")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)), timeout=10)


def figure(text: str, label: str, column: int = 0) -> float:
    """Return a number of the first line that begins with a label."""
    line = next(line.strip() for line in text.splitlines() if line.strip().startswith(label))
    return float(re.findall(r"[\d,.]*\d", line.removeprefix(label))[column].replace(",", ""))


def check_what_is_shown(demo: KeptDemo) -> None:
    assert [line for line in demo.text.splitlines() if len(line) > 80 and "export" not in line] == []
    assert demo.text.count("its lists in Redis have changed") == 3
    transactions, _ = purchases.load()
    shown = demo.text.partition("3. Live")[2].partition("The month, replayed")[0]
    assert not set(re.findall(r"\d{5,}", shown)) & set(transactions["product_id"].astype(str)), "titles, no bare ids"
    known, _, newcomers = demo.text.partition("Households with a history")[2].partition("new households")
    names = ("the popular list", "own lists, as of", "own lists, refreshed")
    for part, rows in ((known, names), (newcomers, (names[0], names[2]))):
        for row in rows:
            assert 0 < figure(part, row, 0) < 100
            assert 0 < figure(part, row, 1) < 100
    # People buy again what they have bought: that is what a list of their own knows.
    assert figure(known, names[2]) > figure(known, names[0])


def check_what_is_kept(demo: KeptDemo, *, households: int) -> None:
    with open_store(demo.settings()) as store:
        users = sorted(user for part in store.users.user_ids() for user in part)
        histories = [state.history for state in store.users.read(users).values()]
        newest_s = max(entry.newest_s for history in histories for entry in history.entries.values())
        assert time.time() - 2 * _DAY_S < newest_s <= time.time(), "the year ends today, and not later"
        lists = [*store.users.lists(users), *store.users.again_lists(users), store.item_lists.popular()]
        listed = sorted({entry["item_id"] for published in lists if published for entry in published["items"]})
        titles = store.catalogue.titles(listed)
    assert len(users) == households
    assert len(listed) > 100
    assert titles.keys() == set(listed)
    assert len(set(titles.values())) == len(listed), "no two products have the same title"
    checked = demo.recsys("verify", "--all")
    assert re.search(rf"{households:,} histories and [\d,]+ lists .*: 0 differences", checked)


@pytest.mark.slow  # the README's blocks run in such a demo in every run of the tests
@pytest.mark.timeout(1800)
def test_demo_of_few_households_can_be_worked_with(tmp_path: Path) -> None:
    with kept_demo(tmp_path, "--households", "300") as demo:
        assert figure(demo.text, "purchases published") == 14_841
        assert figure(demo.text, "dead letters", -1) == 79
        check_what_is_shown(demo)
        check_what_is_kept(demo, households=300)
        retrained = demo.recsys("retrain", "--wait")
        assert "candidate − live" in retrained, "the live model has not seen the hold-out"
        assert "is live" in retrained
        assert "popular" in demo.recsys("evaluate")
        assert "Best of 1 trials" in demo.recsys("tune", "--trials", "1")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_whole_demo_is_verified_without_differences(tmp_path: Path) -> None:
    with kept_demo(tmp_path) as demo:
        assert figure(demo.text, "purchases published") == 130_087
        assert figure(demo.text, "dead letters", -1) == 819
        check_what_is_shown(demo)
        check_what_is_kept(demo, households=2_469)
