"""Work on many users, spread over the cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from typing import TypeVar

import numpy as np
import scipy.linalg.cython_blas  # noqa: F401 - loaded before _threadpools() looks: what numba calls is here
from threadpoolctl import ThreadpoolController

_LEAST_PER_THREAD = 32
T = TypeVar("T")
_threads = 0
"""How many to use; 0 means one on each core."""


def map_ranges(n_users: int, part: Callable[[int, int], T]) -> list[T]:
    """Call ``part(start, stop)`` for consecutive ranges of users, one on each core; return the results in order.

    ``part`` must spend its time without the interpreter's lock. Few users are one range, here and now.
    """
    threads = min(_threads or available(), n_users // _LEAST_PER_THREAD)
    if threads < 2 and _threads != 1:
        return [part(0, n_users)]
    # BLAS stays within each thread; more threads below these would only be in the way.
    with _threadpools().limit(limits=1, user_api="blas"):
        if threads < 2:
            return [part(0, n_users)]
        own, *others = pairwise(np.linspace(0, n_users, threads + 1).astype(int).tolist())
        # One range here: the allocator keeps what a batch needs for every thread that has once needed it.
        futures = [_executor().submit(part, *span) for span in others]
        return [part(*own), *(future.result() for future in futures)]


@contextmanager
def limit(threads: int) -> Iterator[None]:
    """Spread over so many threads meanwhile; for a process that shares the cores with others of its kind."""
    global _threads
    before, _threads = _threads, threads
    try:
        yield
    finally:
        _threads = before


def available() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _threadpools() -> ThreadpoolController:
    # Entering a kept controller costs 0.05 ms; threadpool_limits() would scan all loaded libraries, 1.7 ms.
    return ThreadpoolController()


@cache
def _executor() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(available(), thread_name_prefix="cores")
