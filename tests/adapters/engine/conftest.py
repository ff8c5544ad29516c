from __future__ import annotations

from collections.abc import Iterator

import pytest

from elias.testing.postgres import postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a real server, started once."""
    with postgres_server() as url:
        yield url
