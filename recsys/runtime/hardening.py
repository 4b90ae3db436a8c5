"""What a process with secrets and personal data keeps to itself: the files that it makes, and its memory in a crash."""

from __future__ import annotations

import os
import sys

_PRIVATE = 0o077
_NO_DUMP_BYTES = 1
"""Too small for a core file; and Linux, which pays no heed to limits where a program takes dumps, does to this one."""


def keep_to_itself() -> None:
    """Have nobody else read the files that this process and its children make, and none of them leave a core dump.

    Only what makes a file says who else may read it, as `recsys.runtime.private_files` does.
    """
    os.umask(_PRIVATE)
    if sys.platform == "win32":
        return
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    limit = 0 if most == 0 else _NO_DUMP_BYTES
    resource.setrlimit(resource.RLIMIT_CORE, (limit, most))
