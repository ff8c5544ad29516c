from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyrage
import pytest

from elias.adapters.backends.kaggle import KaggleBackend
from elias.adapters.clock import SystemClock
from elias.ports.backend import BackendContext
from elias.testing.kaggle_emulator import KaggleEmulator

NODE_KEY = str(pyrage.x25519.Identity.generate())
QUICK = {
    "session_limit": "20s",
    "margin": "14s",
    "retry_wait": "0.05s",
    "http_read": "5s",
    "poll_every": "0s",
    "processing_limit": "20s",
    "stale_wait": "0.05s",
    "settle": "0.3s",
    "missing_limit": "0.3s",
}


@pytest.fixture
def emulated(tmp_path: Path) -> Iterator[KaggleEmulator]:
    with KaggleEmulator(tmp_path / "emulated") as emulator:
        yield emulator


@pytest.fixture
def make_backend(
    emulated: KaggleEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., KaggleBackend]:
    """A new backend over the same home, as after a restart of the node."""
    monkeypatch.delenv("KAGGLE_API_TOKEN", raising=False)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("KAGGLE_USERNAME", "ada")
    monkeypatch.setenv("KAGGLE_KEY", "secret")

    def make(**settings: Any) -> KaggleBackend:
        context = BackendContext(
            name="kaggle",
            node="test-node",
            home=tmp_path / "node",
            settings=QUICK | {"base_url": emulated.url} | settings,
            clock=SystemClock(),
            node_key=NODE_KEY,
        )
        return KaggleBackend(context)

    return make


@pytest.fixture
def backend(make_backend: Callable[..., KaggleBackend]) -> KaggleBackend:
    return make_backend()
