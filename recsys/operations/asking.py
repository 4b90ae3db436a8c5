"""Asks for facts side by side; what cannot be had is `Unknown`, and holds up none of the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from recsys.errors import RecsysError
from recsys.operations.status_facts import Unknown
from recsys.settings import secrets

T = TypeVar("T")


class Asking:
    """Asks in threads, and waits for each answer until the same moment."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._until = time.monotonic() + wait_s

    def begin(self, question: Callable[[], T], *needs: object) -> Future[T | Unknown]:
        """Ask, unless something that the question needs is not known."""
        answer: Future[T | Unknown] = Future()
        unknown = next((one for one in needs if isinstance(one, Unknown)), None)
        if unknown is not None:
            answer.set_result(unknown)
            return answer

        def call() -> None:
            try:
                answer.set_result(question())
            except RecsysError as error:
                answer.set_result(Unknown(secrets.hidden_in(str(error))))
            except Exception as error:  # a fact that nobody thought of must not hide the others
                answer.set_result(Unknown(secrets.hidden_in(f"unexpected: {type(error).__name__}: {error}")))

        threading.Thread(target=call, name="asking", daemon=True).start()
        return answer

    def end(self, answer: Future[T]) -> T | Unknown:
        """Return the answer."""
        try:
            return answer.result(max(0.0, self._until - time.monotonic()))
        except TimeoutError:
            return Unknown(f"no answer within {self._wait_s:g} s")
