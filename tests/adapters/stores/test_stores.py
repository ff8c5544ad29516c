"""The shipped suites, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from elias.adapters.stores.database import open_database
from elias.adapters.stores.files import SqlFiles
from elias.config.schema import Config, Store
from elias.ports.stores import CorpusStore, FolderStore, ModelStore, RunStore, SessionStore, SpendStore
from elias.testing.postgres import emptied
from elias.testing.spend_suite import SpendStoreSuite
from elias.testing.store_suite import (
    CorpusStoreSuite,
    FolderStoreSuite,
    ModelStoreSuite,
    RunStoreSuite,
    SessionStoreSuite,
)
from elias.wiring.stores import Stores, open_stores


@pytest.fixture(params=["sqlite", "postgres"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    url = None if request.param == "sqlite" else emptied(request.getfixturevalue("postgres"))
    with open_stores(Config(home=tmp_path, store=Store(url=url))) as opened:
        yield opened


class TestSessions(SessionStoreSuite):
    @pytest.fixture
    def store(self, stores: Stores) -> SessionStore:
        return stores.sessions


class TestCorpora(CorpusStoreSuite):
    @pytest.fixture
    def store(self, stores: Stores) -> CorpusStore:
        return stores.corpora


class TestRuns(RunStoreSuite):
    @pytest.fixture
    def store(self, stores: Stores) -> RunStore:
        return stores.runs


class TestSpending(SpendStoreSuite):
    @pytest.fixture
    def store(self, stores: Stores) -> SpendStore:
        return stores.spend


class TestModels(ModelStoreSuite):
    @pytest.fixture
    def store(self, stores: Stores) -> ModelStore:
        return stores.models


class TestFolders(FolderStoreSuite):
    """On SQLite as well, where no node shares it."""

    @pytest.fixture(params=["sqlite", "postgres"])
    def store(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FolderStore]:
        url = None if request.param == "sqlite" else emptied(request.getfixturevalue("postgres"))
        database = open_database(url, tmp_path / "elias.db")
        yield SqlFiles(database)
        database.close()
