"""DBOS's own database: `engine.db` in the node's home, or a schema beside ours in PostgreSQL."""

from __future__ import annotations

import logging
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog
from dbos import DBOS, DBOSClient
from dbos import error as dbos_error

from elias.adapters.engine.recorded import JsonSerializer
from elias.adapters.stores.database import postgres_url, set_up_sqlite
from elias.adapters.stores.failures import translated
from elias.errors import StoreError

APPLICATION = "elias"
SCHEMA = "elias_engine"
FILE = "engine.db"
_POOL = 20
"""Connections at most: one for each workflow at work, and DBOS's own threads."""


class SystemDatabase:
    """An SQLAlchemy engine with the settings that make DBOS fast and safe, and a client over it."""

    def __init__(self, home: Path, url: str | None) -> None:
        self.is_shared = url is not None
        """Whether other nodes use it too."""
        self._file = None if url is not None else home / FILE
        self.url = sa.URL.create("sqlite", database=str(self._file)) if url is None else postgres_url(url)
        self.place = self.url.render_as_string(hide_password=True) if self.is_shared else str(self._file)
        with self.translated():
            home.mkdir(parents=True, exist_ok=True)
            self.engine = self._open()
            self._make_tables()
        self.client = DBOSClient(
            system_database_engine=self.engine,
            dbos_system_schema=SCHEMA,
            serializer=JsonSerializer(),
            application_name=APPLICATION,
            retry_connection_errors=False,
            lazy=True,
        )

    @contextmanager
    def translated(self) -> Iterator[None]:
        with translated(self.place, self._file):
            try:
                yield
            except dbos_error.DBOSException as error:
                raise StoreError(
                    f"the durable engine's database {self.place}: {error}", fix="try again; see `elias doctor`"
                ) from error

    def close(self) -> None:
        self.client.destroy()
        self.engine.dispose()

    def _open(self) -> sa.Engine:
        engine = sa.create_engine(self.url, pool_size=_POOL, max_overflow=_POOL, pool_pre_ping=self.is_shared)
        if not self.is_shared:

            @sa.event.listens_for(engine, "connect")
            def connected(connection: sqlite3.Connection, record: object) -> None:
                set_up_sqlite(connection)
                # As DBOS sets up the engines that it makes itself.
                connection.isolation_level = "IMMEDIATE"
                connection.execute("PRAGMA foreign_keys=ON")

        return engine

    def _make_tables(self) -> None:
        """A client makes none by itself; whoever comes first to a fresh home may be one.

        In PostgreSQL they are made one after another: DBOS itself knows whether all are there, and waits for whoever
        makes them just now.
        """
        if self.is_shared or not sa.inspect(self.engine).has_table("dbos_migrations"):
            quiet()
            DBOS.migrate(self.url.render_as_string(hide_password=False), schema=SCHEMA)


class _ToStructlog(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        log: Any = structlog.wrap_logger(structlog.PrintLogger(sys.stderr))  # as it is now: it may have been replaced
        say = log.error if record.levelno >= logging.ERROR else log.warning
        cause = record.exc_info[1] if record.exc_info else None
        say("engine.dbos", message=record.getMessage(), **({"cause": repr(cause)} if cause else {}))


def quiet() -> None:
    """DBOS's log goes to ours, from warnings up; stdout is the answer, never a log."""
    logger = logging.getLogger("dbos")
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    if not any(isinstance(handler, _ToStructlog) for handler in logger.handlers):
        logger.handlers[:] = [_ToStructlog()]
