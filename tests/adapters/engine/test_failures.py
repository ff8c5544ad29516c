"""An engine that cannot begin says why, lets go of its lock, and leaves no process-wide trace."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from elias.adapters.clock import SystemClock
from elias.adapters.engine.dbos_engine import DbosEngine, EngineSettings
from elias.adapters.engine.system_database import SCHEMA
from elias.config.schema import Config, Store
from elias.errors import Refused, StoreError
from elias.ports.durable import CanAdopt, Steps
from elias.testing.postgres import fresh_database
from elias.wiring.stores import open_engine


def test_a_damaged_engine_database_is_named_and_the_lock_is_free_again(tmp_path: Path) -> None:
    (tmp_path / "engine.db").write_bytes(b"this was never a database, not in the least. " * 100)
    engine = open_engine(Config(home=tmp_path))
    for _ in range(2):
        with pytest.raises(StoreError, match=r"engine\.db"):
            engine.launch()
    with pytest.raises(StoreError, match=r"engine\.db"):
        engine.start("work", "run-1")
    (tmp_path / "engine.db").unlink()
    engine.launch()
    engine.stop()


def test_a_postgresql_that_does_not_answer_is_a_store_error(tmp_path: Path) -> None:
    engine = open_engine(Config(home=tmp_path, store=Store(url=f"postgresql://u:hush@/db?host={tmp_path}")))
    with pytest.raises(StoreError, match="cannot be reached") as raised:
        engine.launch()
    assert "hush" not in str(raised.value)


def test_a_home_that_is_a_file_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("not a folder")
    with pytest.raises(StoreError, match="home"):
        open_engine(Config(home=tmp_path / "home")).launch()


def test_the_engines_own_log_stays_off_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = open_engine(Config(home=tmp_path))
    engine.launch()
    logging.getLogger("dbos").warning("something to know")
    engine.stop()
    assert capsys.readouterr().out == ""


def test_a_workflow_that_changed_under_work_in_progress_fails_with_a_fix(tmp_path: Path) -> None:
    settings = EngineSettings(home=tmp_path, node="attic", poll_s=0.05)
    begun, failed, errors = threading.Event(), threading.Event(), []

    def old(steps: Steps, key: str) -> None:
        steps.step("one", begun.set)
        steps.sleep(timedelta(hours=1))

    def new(steps: Steps, key: str) -> None:
        try:
            steps.step("another", begun.set)
        except StoreError as error:
            errors.append(error)
            failed.set()

    for workflow, event in ((old, begun), (new, failed)):
        engine = DbosEngine(settings, SystemClock())
        engine.register("work", workflow)
        engine.launch()
        engine.start("work", "run-1")
        assert event.wait(300)
        engine.stop()
    assert "program changed" in str(errors[0])
    assert "elias run resume" in errors[0].fix


def test_a_second_engine_in_one_process_is_refused_until_the_first_stops(tmp_path: Path) -> None:
    first, second = open_engine(Config(home=tmp_path / "a")), open_engine(Config(home=tmp_path / "b"))
    assert isinstance(first, CanAdopt)
    first.launch()
    with pytest.raises(Refused, match="this very process"):
        second.launch()
    first.stop()
    second.launch()
    second.stop()


def test_whoever_finds_tables_half_made_by_another_process_has_all_of_them(tmp_path: Path, postgres: str) -> None:
    url = fresh_database(postgres)
    with psycopg.connect(url, autocommit=True) as connection:  # as another process has them right after it began
        connection.execute(f"CREATE SCHEMA {SCHEMA}")
        connection.execute(f"CREATE TABLE {SCHEMA}.dbos_migrations (version BIGINT NOT NULL PRIMARY KEY)")
    engine = DbosEngine(EngineSettings(home=tmp_path, node="attic", url=url), SystemClock())
    engine.start("work", "run-1")
    engine.stop()
