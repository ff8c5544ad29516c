"""An open database: SQLite in WAL mode, or PostgreSQL by its URL."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from elias.adapters.stores.failures import corrupted, translated
from elias.adapters.stores.schema import MIGRATIONS, prepare, version_row
from elias.errors import ConfigError, StoreError

BUSY_S = 15.0
"""How long a writer waits for another before it gives up."""
SCHEMA = "elias"
"""PostgreSQL's namespace of our tables, so that a database may be shared."""
_PREPARE_LOCK = 0x656C6961
"""Any number that no other program takes: `elia` in ASCII."""


class Database:
    """Hands out connections inside transactions; every failure that leaves it is a StoreError."""

    def __init__(self, engine: sa.Engine, place: str, file: Path | None) -> None:
        self.engine = engine
        self.place = place
        """What people call it: the file, or the URL without its password."""
        self._file = file
        self._writer = engine.execution_options(writes=True)
        self._through = engine.execution_options(writes=True, synced=True)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        with translated(self.place, self._file), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """All of it or nothing. On SQLite one writer at a time, who waits at the start and never in the middle."""
        with translated(self.place, self._file), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def write_through(self) -> Iterator[sa.Connection]:
        """As `write`, and on the disk before it ends: what a power cut may not take back, such as a reservation."""
        with translated(self.place, self._file), self._through.begin() as connection:
            yield connection

    def damaged(self, what: str, error: Exception) -> StoreError:
        """For a row whose document cannot be read."""
        if self._file is not None:
            return corrupted(self._file, f"{what}: {error}")
        return StoreError(
            f"the database {self.place} is damaged: {what}: {error}", fix="restore it from a backup, or upgrade"
        )

    def close(self) -> None:
        self.engine.dispose()


def open_database(url: str | None, file: Path) -> Database:
    """The PostgreSQL database at `url`, or without one the SQLite `file`; its tables made and up to date.

    Raises ConfigError for a URL that is not PostgreSQL's, StoreError when it cannot be opened.
    """
    database = _open_sqlite(file) if url is None else _open_postgres(url)
    try:
        with database.read() as connection:
            is_ready = _version(connection) == 1 + len(MIGRATIONS)
        if not is_ready:
            with database.write() as connection:
                if connection.dialect.name == "postgresql":
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_PREPARE_LOCK)))
                    connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
                prepare(connection, database.place)
    except BaseException:
        database.close()
        raise
    return database


def postgres_url(text: str) -> sa.URL:
    """With the driver filled in. Raises ConfigError."""
    try:
        url = sa.make_url(text)
    except sa.exc.ArgumentError as error:
        raise _bad_url() from error
    if url.drivername not in ("postgres", "postgresql", "postgresql+psycopg"):
        raise _bad_url()
    return url.set(drivername="postgresql+psycopg")


def set_up_sqlite(connection: sqlite3.Connection) -> None:
    """WAL lets readers and one writer work side by side; with it, NORMAL loses no consistency, only fsyncs."""
    connection.isolation_level = None  # SQLAlchemy's events begin and end transactions, not the driver
    connection.execute(f"PRAGMA busy_timeout={int(BUSY_S * 1000)}")
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchone()
            break
        except sqlite3.OperationalError as error:
            # Two first openings at once: SQLite answers this one at once, whatever the timeout.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    connection.execute("PRAGMA synchronous=NORMAL")


def _open_sqlite(file: Path) -> Database:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"cannot make {file.parent}: {error.strerror}", fix="set ELIAS_HOME to a folder of yours"
        ) from (error)
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(file)), connect_args={"timeout": BUSY_S})

    @sa.event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, record: object) -> None:
        set_up_sqlite(connection)

    @sa.event.listens_for(engine, "begin")
    def begun(connection: sa.Connection) -> None:
        options = connection.get_execution_options()
        connection.exec_driver_sql(f"PRAGMA synchronous={'FULL' if options.get('synced') else 'NORMAL'}")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("writes") else "BEGIN")

    return Database(engine, str(file), file)


def _open_postgres(text: str) -> Database:
    url = postgres_url(text)
    engine = sa.create_engine(url, pool_pre_ping=True)

    @sa.event.listens_for(engine, "connect")
    def connected(connection: Any, record: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET search_path TO {SCHEMA}")
        connection.commit()

    return Database(engine, url.render_as_string(hide_password=True), None)


def _version(connection: sa.Connection) -> int | None:
    """None where there are no tables yet."""
    if not sa.inspect(connection).has_table(version_row.name):
        return None
    return int(connection.execute(sa.select(version_row.c.version)).scalar_one())


def _bad_url() -> ConfigError:
    return ConfigError(
        "store.url is not a PostgreSQL URL",  # the value may hold a password: never shown
        fix="write it like postgresql://user@host/database, or leave it out for SQLite",
    )
