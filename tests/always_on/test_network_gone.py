"""No place answers: named in the API and in `elias status`, a run trains on here, and it ends by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from elias.cli.shell import run_command
from elias.config import Config
from elias.domain.label import Label
from elias.domain.run import HYBRID
from elias.domain.spend import Caps, Claim, Part
from elias.services.runs import Wanted
from elias.testing.bundles import small_corpus
from elias.testing.kaggle_emulator import KaggleEmulator
from elias.testing.ports import free_port
from elias.testing.sagemaker_emulator import SageMakerEmulator
from elias.units import Money
from elias.wiring.node import announce
from elias.wiring.offers import list_offers
from elias_trainer.contract import TINY, BaseModel, Recipe
from tests.always_on.conftest import Ahead

CREDENTIALS = {
    "KAGGLE_USERNAME": "ada",
    "KAGGLE_KEY": "a-key-that-nobody-may-log",
    "AWS_ACCESS_KEY_ID": "AKIATEST",
    "AWS_SECRET_ACCESS_KEY": "x",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}
FREE_ONE = Wanted(strategy=HYBRID, base=BaseModel(reference=TINY), recipe=Recipe(max_steps=12))


@dataclass
class Clouds:
    """Two emulated services that come and go under the same addresses."""

    root: Path
    ports: Mapping[str, int]

    @contextmanager
    def there(self) -> Iterator[None]:
        with ExitStack() as both:
            both.enter_context(KaggleEmulator(self.root / "kaggle", port=self.ports["kaggle"]))
            both.enter_context(SageMakerEmulator(self.root / "sagemaker", port=self.ports["sagemaker"]))
            yield

    @property
    def places(self) -> dict[str, dict[str, Any]]:
        kaggle, sagemaker = (f"http://127.0.0.1:{self.ports[name]}" for name in ("kaggle", "sagemaker"))
        return {
            "kaggle": {"base_url": kaggle, "retry_wait": "0.01s", "http_tries": 1},
            "sagemaker": {"region": "us-east-1", "endpoint_url": sagemaker, "http_tries": 1, "http_connect": "60s"},
        }


@pytest.fixture
def clouds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clouds:
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "none"))
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return Clouds(tmp_path, {"kaggle": free_port(), "sagemaker": free_port()})


@dataclass
class Told:
    """What people and programs are told of a node's state."""

    living: Any
    capsys: Any

    def __call__(self) -> dict[str, dict[str, Any]]:
        """By name; the same through each door."""
        self.living.node.weather.look()
        self.capsys.readouterr()
        assert run_command("elias", "status", "status", ["--json"]) == 0
        found = json.loads(self.capsys.readouterr().out)["degraded"]
        assert found == self._get("/api/degraded")
        assert found == self._get("/api/status")["degraded"]
        return {state["name"]: state for state in found}

    def _get(self, path: str) -> Any:
        return httpx.get(f"{self.living.url}{path}", timeout=60).json()


@pytest.fixture
def told_of(open_living: Any, clouds: Clouds, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Any:
    def make() -> tuple[Told, Ahead]:
        clock = Ahead()
        living = open_living(places=clouds.places, clock=clock)
        announce(living.home, living.url)
        monkeypatch.setenv("ELIAS_HOME", str(living.home))
        living.node.training.stores.corpora.add(
            small_corpus(living.node.training.coordinator.means.blobs, Label.PUBLIC, clock.now())
        )
        return Told(living, capsys), clock

    return make


def test_a_network_that_is_gone_has_its_name_through_every_door_until_it_is_back(clouds: Clouds, told_of: Any):
    told, clock = told_of()
    training = told.living.node.training
    corpus = training.stores.corpora.get("latest")
    with clouds.there():
        assert training.plan(FREE_ONE, corpus).segments
        assert told() == {}
    clock.by += timedelta(minutes=2)
    for _ in range(3):
        went_on = training.plan(FREE_ONE, corpus)
        assert [segment.offer.backend for segment in went_on.segments] == ["local"]
    found = told()
    assert set(found) == {"place-down", "network-gone"}
    assert "none of kaggle, sagemaker answers" in found["network-gone"]["cause"]
    assert "training on this machine" in found["network-gone"]["still_works"]
    listed = {place.backend: place for place in _offers(told.living.node.config)}
    for name in ("kaggle", "sagemaker"):
        assert listed[name].rows == () and "unavailable: down since" in (listed[name].not_ready or "")
    reasons = {taken.offer.backend: taken.why for taken in training.plan_ahead(FREE_ONE, corpus).not_taken}
    assert "down since" in reasons["sagemaker"] and "down since" in reasons["kaggle"]
    with clouds.there():
        clock.by += timedelta(minutes=1, seconds=5)
        assert told() == {}
        assert "down since" not in str(training.plan_ahead(FREE_ONE, corpus).not_taken)


def test_a_node_that_nobody_asks_anything_finds_out_by_itself(clouds: Clouds, told_of: Any):
    told, clock = told_of()
    look = told.living.node.weather.look
    with clouds.there():
        told.living.node.training.places(HYBRID)
        assert told() == {}
    for _ in range(8):  # quotas are asked every five minutes, and the others once one of them is down
        clock.by += timedelta(minutes=5)
        look()
    assert "network-gone" in told()
    with clouds.there():
        clock.by += timedelta(minutes=31)
        assert told() == {}


def test_a_day_whose_money_is_spent_has_its_name_until_the_next_one(told_of: Any):
    told, clock = told_of()
    purse = told.living.node.training.coordinator.means.purse
    claim, parts = (
        Claim(key="run-1-0001", run="run-1", backend="sagemaker"),
        [Part(name="compute", amount=Money.usd(5))],
    )
    purse.store.reserve(claim, parts, Caps(), clock.now())
    purse.store.settle(claim, parts, clock.now(), "done")
    assert "budget-gone" not in told(), "nobody has set a cap"
    assert run_command("elias", "budget", "budget", ["set", "day", "5usd"]) == 0
    found = told()["budget-gone"]
    assert found["about"] == "day" and "$5.00 spent" in found["cause"] and found["until"]
    clock.by += timedelta(days=1)
    assert "budget-gone" not in told()


def _offers(config: Config) -> Any:
    return list_offers(config, FREE_ONE, None, timedelta(minutes=5)).places
