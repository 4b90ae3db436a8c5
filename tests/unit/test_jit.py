import os
import subprocess
import sys

COPY = """
import numpy as np
from recsys.lists.encoding_kernels import _copied
copy = np.zeros(3, np.uint8)
print(_copied(np.arange(5, dtype=np.uint8), 1, 4, copy, 0), copy.tolist())
"""
"""It runs one of the functions that compile in little time."""


def test_where_compiled_functions_cannot_be_kept_they_are_compiled_anew() -> None:
    # numba is told to look at one place alone, and that place is not set.
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    nowhere = {**environment, "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}
    done = subprocess.run([sys.executable, "-c", COPY], env=nowhere, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "3 [1, 2, 3]\n"), done.stderr
