"""How the inner loops are compiled: by numba, at their first call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def compiled(*, fastmath: set[str] | None = None) -> Callable[[F], F]:
    """Compile a function to run without the interpreter's lock.

    The result is kept beside the function's file, or in the user's cache; where neither can be written, each process
    compiles anew.
    """

    def decorate(function: F) -> F:
        options: dict[str, Any] = {"nogil": True, "fastmath": fastmath or False}
        try:
            return njit(cache=True, **options)(function)  # type: ignore[no-any-return]
        except RuntimeError:  # there is no folder to keep it in, as for a user without a home
            return njit(**options)(function)  # type: ignore[no-any-return]

    return decorate
