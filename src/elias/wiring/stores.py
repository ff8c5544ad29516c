"""From Config to the stores and to the durable engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

from elias.config.schema import Config
from elias.errors import MissingPackage
from elias.ports.durable import DurableEngine
from elias.ports.stores import CorpusStore, FolderStore, ModelStore, RunStore, SessionStore, SpendStore

if TYPE_CHECKING:
    from elias.adapters.stores.database import Database

DATABASE_FILE = "elias.db"


@dataclass(frozen=True, kw_only=True, slots=True)
class Stores:
    """The stores over one open database. Use it in a `with`, or `close` it."""

    sessions: SessionStore
    corpora: CorpusStore
    runs: RunStore
    models: ModelStore
    spend: SpendStore
    folders: FolderStore | None
    """What the nodes of a shared database leave each other; None where this node has it alone."""
    _database: Database = field(repr=False)

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_stores(config: Config) -> Stores:
    """Safe to use from several threads. Raises StoreError, ConfigError, MissingPackage."""
    try:  # here, since importing SQLAlchemy takes a third of a second
        from elias.adapters.clock import SystemClock
        from elias.adapters.stores.corpora import SqlCorpusStore
        from elias.adapters.stores.database import open_database
        from elias.adapters.stores.files import SqlFiles
        from elias.adapters.stores.models import SqlModelStore
        from elias.adapters.stores.runs import SqlRunStore
        from elias.adapters.stores.sessions import SqlSessionStore
        from elias.adapters.stores.spend import SqlSpendStore
    except ModuleNotFoundError as error:
        raise missing_node_package(error) from error
    database = open_database(config.store.url, config.home / DATABASE_FILE)
    return Stores(
        sessions=SqlSessionStore(database),
        corpora=SqlCorpusStore(database),
        runs=SqlRunStore(database),
        models=SqlModelStore(database, SystemClock()),
        spend=SqlSpendStore(database),
        folders=SqlFiles(database) if config.store.url else None,
        _database=database,
    )


def open_engine(config: Config, *, workers: int = 8) -> DurableEngine:
    """Not launched: it may `start` and `restart` as it is. `workers` is how many runs are at work at once."""
    try:  # here, since importing DBOS takes half a second
        from elias.adapters.clock import SystemClock
        from elias.adapters.engine.dbos_engine import DbosEngine, EngineSettings
    except ModuleNotFoundError as error:
        raise missing_node_package(error) from error
    settings = EngineSettings(home=config.home, node=config.node.name, url=config.store.url, workers=workers)
    return DbosEngine(settings, SystemClock())


def missing_node_package(error: ModuleNotFoundError) -> MissingPackage:
    return MissingPackage(f"the node needs the package {error.name!r}", fix="pip install 'elias-node[node]'")
