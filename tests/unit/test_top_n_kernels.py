import os
import subprocess
import sys

RANK_ONE = """
import numpy as np
from recsys.model.top_n import ItemIndex, top_n
index = ItemIndex.build(np.eye(3, dtype=np.float32))
(rows, _), = top_n(np.array([[0, 2, 1]], np.float32), index, excluded=[index.rows[:0]], n=2)
print(rows.tolist())
"""


def test_where_compiled_functions_cannot_be_kept_they_are_compiled_anew() -> None:
    # numba is told to look at one place alone, and that place is not set.
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    nowhere = {**environment, "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}
    done = subprocess.run([sys.executable, "-c", RANK_ONE], env=nowhere, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[1, 2]\n"), done.stderr
