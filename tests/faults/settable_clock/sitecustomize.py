"""Python imports this before anything else when its folder is on PYTHONPATH: the wall clock then goes wrong on purpose.

The file named by RECSYS_TEST_CLOCK holds by how many seconds; it may change while the process runs. The C libraries
still see the true time: a tool that shifts it for them as well, such as faketime, leaves out the call by which
librdkafka waits, which then never ends or never begins.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_CLOCK = Path(os.environ["RECSYS_TEST_CLOCK"])
_true_time = time.time


def _shifted_time() -> float:
    return _true_time() + float(_CLOCK.read_text())


time.time = _shifted_time
