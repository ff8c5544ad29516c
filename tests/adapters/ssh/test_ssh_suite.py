"""The shipped contract suite, over a real SSH connection."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from elias.ports.backend import Backend
from elias.testing.backend_suite import BackendSuite
from tests.adapters.ssh.conftest import Server, make_backend


class TestSsh(BackendSuite):
    @pytest.fixture
    def backend(self, shared_server: Server, tmp_path: Path, there: Path) -> Iterator[Backend]:
        made = make_backend(shared_server, tmp_path / "here", there)
        yield made
        made.close()
