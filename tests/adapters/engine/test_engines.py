"""The shipped suite on the DBOS engine, over SQLite and PostgreSQL, and on the engine in memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from elias.adapters.clock import SystemClock
from elias.adapters.engine.dbos_engine import DbosEngine, EngineSettings
from elias.ports.durable import Steps
from elias.testing.engine_suite import EngineSuite, MakeEngine
from elias.testing.inline_engine import InlineEngine, InlineMemory
from elias.testing.postgres import emptied


class TestDbosEngine(EngineSuite):
    @pytest.fixture(params=["sqlite", "postgres"])
    def make_engine(self, request: pytest.FixtureRequest, tmp_path: Path) -> MakeEngine:
        url = None if request.param == "sqlite" else emptied(request.getfixturevalue("postgres"))
        settings = EngineSettings(home=tmp_path, node="attic", url=url, poll_s=0.05)
        return lambda: DbosEngine(settings, SystemClock())


class TestInlineEngine(EngineSuite):
    @pytest.fixture
    def make_engine(self) -> MakeEngine:
        memory = InlineMemory()
        return lambda: InlineEngine(SystemClock(), memory)


class SimulatedClock:
    def __init__(self) -> None:
        self.moment = datetime(2026, 11, 24, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def sleep(self, span: timedelta) -> None:
        self.moment += span


def test_a_simulated_week_passes_in_order_and_at_once() -> None:
    clock = SimulatedClock()
    seen: list[tuple[str, float]] = []

    def workflow(steps: Steps, key: str) -> None:
        for _ in range(3):
            steps.sleep(timedelta(hours=int(key)))
            seen.append((key, (clock.now() - datetime(2026, 11, 24, tzinfo=UTC)) / timedelta(hours=1)))

    engine = InlineEngine(clock)
    engine.register("work", workflow)
    for key in ("56", "24", "30"):
        engine.start("work", key)
    engine.launch()
    engine.join()
    engine.stop()
    assert seen == [
        ("24", 24),
        ("30", 30),
        ("24", 48),
        ("56", 56),
        ("30", 60),
        ("24", 72),
        ("30", 90),
        ("56", 112),
        ("56", 168),
    ]


def test_join_raises_what_a_workflow_ended_with() -> None:
    def workflow(steps: Steps, key: str) -> None:
        raise ZeroDivisionError(key)

    engine = InlineEngine(SimulatedClock())
    engine.register("work", workflow)
    engine.start("work", "run-1")
    engine.launch()
    with pytest.raises(ZeroDivisionError, match="run-1"):
        engine.join()
    engine.stop()
