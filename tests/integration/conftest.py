"""What integration tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from recsys.kafka.embedded import embedded_broker


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    """The address of librdkafka's embedded broker."""
    with embedded_broker() as address:
        yield address
