"""What integration tests share."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from recsys.kafka.embedded import embedded_broker
from tests.registries import registry_folder, started_registry
from tests.services import IN_CI
from tests.shared_servers import SharedServers


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    """The address of librdkafka's embedded broker."""
    with embedded_broker() as address:
        yield address


@pytest.fixture(scope="session")
def registry_url(shared: SharedServers) -> str:
    """A real Schema Registry of this run; schemas are registered for subjects that no other test uses."""
    try:
        registry_folder()
    except (OSError, subprocess.CalledProcessError) as error:
        if IN_CI:
            raise
        pytest.skip(f"no Schema Registry here: {error}")
    return shared.get("registry", started_registry).address
