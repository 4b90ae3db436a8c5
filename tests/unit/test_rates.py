"""Limits of how often: by requests, and by what they weigh."""

from __future__ import annotations

import pytest

from api.problems import ProblemError
from api.rates import RateLimiter


def test_what_weighs_more_uses_up_more() -> None:
    now = [0.0]
    rates = RateLimiter(10, at_once=600, allowed="600 events per minute are allowed", clock=lambda: now[0])
    assert [rates.has("a", 250) for _ in range(3)] == [True, True, False]
    with pytest.raises(ProblemError, match="600 events per minute are allowed; wait 16 s") as told:
        rates.spend("a", 250)
    assert told.value.headers["Retry-After"] == "16"
    now[0] += 16
    assert rates.has("a", 250)
    assert rates.has("b", 600)


def test_one_request_that_weighs_more_than_a_full_bucket_passes_and_is_paid_for_afterwards() -> None:
    now = [0.0]
    rates = RateLimiter(1, at_once=60, clock=lambda: now[0])
    assert rates.has("a", 1000)
    now[0] += 940
    assert not rates.has("a", 1)
    now[0] += 1
    assert rates.has("a", 1)
