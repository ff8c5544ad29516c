"""The whole contract, by one subclass; and that ELIAS finds the place by its entry point."""

from pathlib import Path

import pytest

from elias.adapters.clock import SystemClock
from elias.ports.backend import BackendContext
from elias.testing.backend_suite import BackendSuite
from elias.wiring.plugins import load_plugin


class TestSubprocessBackend(BackendSuite):
    @pytest.fixture
    def backend(self, tmp_path: Path):
        factory = load_plugin("elias.backends", "subprocess")
        context = BackendContext(
            name="subprocess", node="test", home=tmp_path / "place", settings={}, clock=SystemClock()
        )
        made = factory(context)
        yield made
        for key, child in made.children.items():
            made.cancel(key)
            child.wait()
