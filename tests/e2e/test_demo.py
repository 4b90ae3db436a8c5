"""The demo, whole: what a newcomer runs first."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.services import running, wait_until


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kept_demo_is_verified_without_differences_and_stops_cleanly(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")}
    log = tmp_path / "demo.log"
    with running([sys.executable, "-m", "recsys", "demo", "--keep"], log, environment) as demo:

        def kept() -> bool:
            assert demo.poll() is None, f"the demo ended with {demo.returncode}:\n{log.read_text()}"
            return "Ctrl-C stops it" in log.read_text()

        wait_until(kept, "the demo has played December", patience_s=600)
        text = log.read_text()
        assert re.search(r"events +│ 130,087 ", text)
        assert re.search(r"dead letters .*│ +819 │", text)
        assert text.count("its list in Redis had changed") == 3
        addresses = dict(re.findall(r"export (RECSYS_\w+)=(\S+)", text))
        assert len(addresses) == 3
        command = [sys.executable, "-m", "recsys", "verify", "--all"]
        verified = subprocess.run(
            command, env={**environment, **addresses}, capture_output=True, text=True, timeout=300
        )
        assert verified.returncode == 0, verified.stdout + verified.stderr
        assert re.search(r"2,46\d histories and 2,4\d\d lists .*: 0 differences", " ".join(verified.stdout.split()))
        folder = Path(addresses["RECSYS_DATA_DIR"]).parent
        demo.send_signal(signal.SIGINT)
        assert demo.wait(timeout=120) == 0
        assert not folder.exists(), "nothing is left behind"
