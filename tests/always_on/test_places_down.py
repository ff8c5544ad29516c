"""An emulated Kaggle that is stopped and started again: plans go elsewhere, the state has a name, and it ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from elias.config import Config
from elias.domain.degraded import Trouble
from elias.domain.hold import YieldRule
from elias.domain.label import Label
from elias.domain.plan import Plan
from elias.domain.run import HYBRID, Run, RunState, Segment, Wish
from elias.errors import BackendError
from elias.services.demand import DemandMeter
from elias.services.runs import Wanted
from elias.services.weather import Weather
from elias.services.yielding import Yielding
from elias.testing.blobs import FolderBlobs
from elias.testing.bundles import small_corpus
from elias.testing.fake_trainer import build_fake_trainer
from elias.testing.kaggle_emulator import KaggleEmulator
from elias.testing.nouns import a_run
from elias.testing.ports import free_port
from elias.wiring.stores import open_engine, open_stores
from elias.wiring.train import Parts, Training, make_training
from elias.wiring.weather import weather
from elias_trainer.contract import TINY, BaseModel, Digest, Recipe
from tests.always_on.conftest import Ahead


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("KAGGLE_USERNAME", "ada")
    monkeypatch.setenv("KAGGLE_KEY", "a-key-that-nobody-may-log")
    table = {"base_url": f"http://127.0.0.1:{free_port()}", "retry_wait": "0.01s"}
    return Config(home=tmp_path / "home", backends={"kaggle": table})


@contextmanager
def a_node(config: Config, clock: Ahead) -> Iterator[tuple[Training, Weather]]:
    """Not launched: it only plans."""
    blobs = FolderBlobs(config.home / "blobs")

    def finish(run: Run, segments: Sequence[Segment], out: Path) -> Digest:
        pytest.fail("nothing ends here")

    parts = Parts(archive=build_fake_trainer, finish=finish, blobs=blobs, clock=clock)
    with open_stores(config) as stores:
        training = make_training(config, stores, open_engine(config), parts)
        stores.corpora.add(small_corpus(blobs, Label.PUBLIC, clock.now()))
        yielding = Yielding(YieldRule(), DemandMeter().look, clock)
        yield training, weather(config, training, yielding)


def plan(training: Training, strategy: str) -> Plan:
    wanted = Wanted(strategy=strategy, base=BaseModel(reference=TINY), recipe=Recipe(max_steps=12))
    return training.plan(wanted, training.stores.corpora.get("latest"))


def emulator(config: Config) -> KaggleEmulator:
    port = config.backends["kaggle"]["base_url"].rpartition(":")[2]
    return KaggleEmulator(config.home.parent / "kaggle", port=int(port))


def test_plans_leave_a_place_that_is_down_alone_and_it_is_back_by_itself(config: Config):
    clock = Ahead()
    with a_node(config, clock) as (training, told):
        with emulator(config):
            assert plan(training, "kaggle").segments
            assert told.look() == []
        for _ in range(3):
            with pytest.raises(BackendError):
                plan(training, "kaggle")
        went_on = plan(training, HYBRID)
        assert [segment.offer.backend for segment in went_on.segments] == ["local"]
        alone = plan(training, "kaggle")
        assert alone.segments == () and alone.wait_until is not None
        assert "down since" in (alone.reason or "") and "probed again at" in (alone.reason or "")
        (state,) = [state for state in told.look() if state.name is Trouble.PLACE_DOWN]
    with a_node(config, clock) as (training, told):
        assert state in told.look(), "a restart forgets neither that it is down nor since when"
        assert plan(training, "kaggle").wait_until == state.until
        clock.by = timedelta(minutes=1, seconds=5)
        (later,) = [s for s in told.look() if s.name is Trouble.PLACE_DOWN]
        assert later.since == state.since and later.until and state.until and later.until > state.until
        with emulator(config):
            assert plan(training, "kaggle").segments == (), "not before its next probe"
            clock.by += timedelta(minutes=2, seconds=5)
            assert told.look() == []
            assert plan(training, "kaggle").segments


def test_a_quota_that_is_gone_has_a_name_until_there_is_one_again(config: Config):
    clock = Ahead()
    with emulator(config) as emulated, a_node(config, clock) as (_, told):
        emulated.disk.configure(gpu_seconds_a_week=60.0)
        (state,) = told.look()
        assert (state.name, state.about) == (Trouble.QUOTA_GONE, "kaggle")
        assert state.until and state.until > clock.now() and "of 0.0 h" in state.cause
        emulated.disk.configure(gpu_seconds_a_week=3600.0)
        clock.by = timedelta(minutes=6)
        assert told.look() == []


def test_a_run_that_a_cap_has_paused_is_told_and_one_that_a_person_has_paused_is_not(config: Config):
    with a_node(config, Ahead()) as (training, told):
        for run_id, wish in (("run-capped", Wish.GO), ("run-put-off", Wish.PAUSE)):
            run = replace(a_run(run_id), state=RunState.PAUSED, wish=wish, reason="the cap of the run is $1.00")
            training.stores.runs.add(run)
        (state,) = told.look()
        assert (state.name, state.about) == (Trouble.BUDGET_GONE, "run-capped")
        training.stores.runs.update("run-capped", state=RunState.QUEUED)
        assert told.look() == []
