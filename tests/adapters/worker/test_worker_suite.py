"""The shipped contract suite, with a real worker process over HTTP on loopback."""

import pytest

from elias.ports.backend import Backend
from elias.testing.backend_suite import BackendSuite
from tests.adapters.worker.conftest import Place


class TestWorker(BackendSuite):
    @pytest.fixture
    def backend(self, place: Place) -> Backend:
        return place.with_worker()
