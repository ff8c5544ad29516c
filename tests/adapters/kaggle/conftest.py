from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyrage
import pytest

from elias.adapters.backends.kaggle import KaggleBackend
from elias.adapters.backends.kaggle.notebook import as_script, template_text
from elias.adapters.clock import SystemClock
from elias.ports.backend import BackendContext
from elias.testing.bundles import Wanted, make_bundle, need_of
from elias.testing.fake_trainer import fake_base
from elias.testing.kaggle_emulator import Beside, Fault, FaultKind, KaggleEmulator
from elias.units import Clock
from elias_trainer.contract import Limits, Recipe
from tests.adapters.polled_place import PolledPlace

NODE_KEY = str(pyrage.x25519.Identity.generate())
QUICK = {
    "session_limit": "30m",  # whatever does not end by itself is ended with the test
    "margin": "60s",
    "retry_wait": "0.05s",
    "http_read": "60s",
    "poll_every": "0s",
    "processing_limit": "10m",
    "stale_wait": "0.05s",
    "settle": "0.3s",
    "missing_limit": "0.3s",
}


ENDLESS = {
    "recipe": Recipe(max_steps=100_000),
    "base": fake_base(step_s=0.02),
    "limits": Limits(checkpoint_every_s=0.2),
}
"""What is submitted to be ended by something else than its work."""
CHECKPOINT = "outbox.json"
"""What lies in a session's output when its first checkpoint is there whole, and named."""
LONG = (
    "test_a_final_state_stays",
    "test_cancelling_keeps_the_checkpoint",
    "test_fetching_twice_changes_nothing",
    "test_a_changed_checkpoint_is_refused_by_name",
    "refused_before_anything_is_copied[shared]",
    "test_what_was_forgotten_is_still_known",
    "test_events_come_in_order_and_once",
    "delay_the_segment_and_no_more[http_429]",
    "delay_the_segment_and_no_more[html]",
    "test_a_truncated_download_is_fetched_again",
    "test_a_stale_version_that_is_replaced_in_time",
    "[cancelled_from_web]",
    "test_the_output_of_a_notebook_is_adopted",
)
"""Sessions upon sessions: `make test` runs them, `make quick` does not. Some come from the shared suite."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "adapters/kaggle" in item.nodeid and any(name in item.nodeid for name in LONG):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KaggleEmulator]:
    with KaggleEmulator(tmp_path_factory.mktemp("kaggle")) as emulator:
        yield emulator


@pytest.fixture
def emulated(server: KaggleEmulator, tmp_path: Path) -> Iterator[Beside]:
    """A Kaggle for this test alone, behind the one server of all."""
    with server.beside(tmp_path / "emulated") as own:
        yield own


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN", raising=False)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("KAGGLE_USERNAME", "ada")
    monkeypatch.setenv("KAGGLE_KEY", "a-key-that-nobody-may-log")


@pytest.fixture
def make_backend(emulated: Beside, tmp_path: Path, account: None) -> Callable[..., KaggleBackend]:
    """A new backend over the same home, as after a restart of the node. Its kernels are scripts made of the template's
    cells, which start in a third of the time; `template=None` takes the notebook itself."""
    script = tmp_path / "template.py"
    script.write_text(as_script(template_text()))

    def make(clock: Clock | None = None, **settings: Any) -> KaggleBackend:
        chosen = QUICK | {"base_url": emulated.url, "template": str(script)} | settings
        context = BackendContext(
            name="kaggle",
            node="test-node",
            home=tmp_path / "node",
            settings={name: value for name, value in chosen.items() if value is not None},
            clock=clock or SystemClock(),
            node_key=NODE_KEY,
        )
        return KaggleBackend(context)

    return make


@pytest.fixture
def backend(make_backend: Callable[..., KaggleBackend]) -> KaggleBackend:
    return make_backend()


@dataclass(kw_only=True)
class Place(PolledPlace):
    """A backend and the emulated Kaggle behind it, as a test speaks to them."""

    emulated: Beside

    def fault(self, kind: FaultKind, call: str, **more: Any) -> None:
        self.emulated.disk.faults.add(Fault(kind=kind, call=call, **more))

    def submit(self, **wanted: Any) -> str:
        bundle = make_bundle(self.home / "bundles" / self.key, self.key, Wanted(**wanted))
        return self.backend.submit(self.key, bundle, self.backend.offers(need_of(bundle))[0])

    def pushes(self) -> int:
        """Kernel versions that there are, or were."""
        return len(self.emulated.disk.requests("SaveKernel"))


@pytest.fixture
def place(backend: KaggleBackend, emulated: Beside, tmp_path: Path) -> Place:
    return Place(backend=backend, emulated=emulated, home=tmp_path)
