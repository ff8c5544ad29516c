"""What goes wrong with a database, and what a person is told."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa

from elias.adapters.stores import database as database_module
from elias.adapters.stores import schema
from elias.adapters.stores.database import open_database
from elias.adapters.stores.files import SqlFiles
from elias.adapters.stores.runs import SqlRunStore
from elias.adapters.stores.schema import prepare, version_row
from elias.config.schema import Config, Store
from elias.errors import ConfigError, StoreError
from elias.testing.nouns import a_run, a_session
from elias.testing.postgres import emptied
from elias.wiring.stores import open_stores


def test_sqlite_is_in_wal_mode_and_can_be_opened_again(tmp_path: Path) -> None:
    for _ in range(2):
        with open_stores(Config(home=tmp_path / "new" / "home")) as stores:
            stores.runs.add(a_run())
            assert stores.runs.list() == [a_run()]
    with sqlite3.connect(tmp_path / "new" / "home" / "elias.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


@pytest.mark.parametrize("bytes_in_it", [b"this was never a database, not in the least. " * 100, b"\x00" * 8192])
def test_a_file_that_is_no_database_is_named_with_what_is_safe_and_a_fix(tmp_path: Path, bytes_in_it: bytes) -> None:
    file = tmp_path / "elias.db"
    file.write_bytes(bytes_in_it)
    with pytest.raises(StoreError, match=str(file)) as raised:
        open_stores(Config(home=tmp_path))
    assert "blobs/" in (raised.value.kept or "")
    assert f"mv {file}" in raised.value.fix
    assert not raised.value.is_worth_retry
    assert file.read_bytes() == bytes_in_it


def test_a_damaged_page_is_a_store_error(tmp_path: Path) -> None:
    with open_stores(Config(home=tmp_path)) as stores:
        stores.sessions.add(a_session(f"text {n}" * 50) for n in range(200))
    file = tmp_path / "elias.db"
    raw = bytearray(file.read_bytes())
    raw[16384:] = b"\xa5" * (len(raw) - 16384)
    file.write_bytes(raw)
    with pytest.raises(StoreError, match="damaged"), open_stores(Config(home=tmp_path)) as stores:
        list(stores.sessions.select())
        stores.sessions.add([a_session("another")])


def test_a_document_that_is_not_the_nouns_is_a_store_error(tmp_path: Path) -> None:
    with open_stores(Config(home=tmp_path)) as stores:
        stores.runs.add(a_run())
        with sqlite3.connect(tmp_path / "elias.db") as connection:
            connection.execute("UPDATE runs SET body = '{}'")
        connection.close()
        with pytest.raises(StoreError, match="a run"):
            stores.runs.list()


def test_a_schema_from_the_future_is_refused_and_left_alone(tmp_path: Path) -> None:
    open_stores(Config(home=tmp_path)).close()
    with sqlite3.connect(tmp_path / "elias.db") as connection:
        connection.execute("UPDATE schema_version SET version = 99")
    connection.close()
    with pytest.raises(StoreError, match="schema 99") as raised:
        open_stores(Config(home=tmp_path))
    assert "upgrade" in raised.value.fix


MIGRATIONS: Sequence[Sequence[str]] = (
    *schema.MIGRATIONS,
    ["ALTER TABLE runs ADD COLUMN colour TEXT", "UPDATE runs SET colour = 'red'"],
    ["ALTER TABLE runs ADD COLUMN shape TEXT"],
)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_an_older_database_is_brought_up_to_date_once(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    url = None if kind == "sqlite" else emptied(request.getfixturevalue("postgres"))
    database = open_database(url, tmp_path / "elias.db")
    SqlRunStore(database).add(a_run())
    for migrations in (MIGRATIONS[:-1], MIGRATIONS, MIGRATIONS):
        with database.write() as connection:
            prepare(connection, "here", migrations)
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT colour, shape FROM runs").all() == [("red", None)]
        assert connection.execute(sa.select(version_row)).all() == [(1 + len(MIGRATIONS),)]
    assert SqlRunStore(database).list() == [a_run()]
    database.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_database_of_the_first_version_takes_every_migration_and_then_holds_files(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    url = None if kind == "sqlite" else emptied(request.getfixturevalue("postgres"))
    database = open_database(url, tmp_path / "elias.db")
    added = [table.name for table in (schema.files, schema.chunks)]
    with database.write() as connection:
        for table in added:
            connection.exec_driver_sql(f"DROP TABLE {table}")
        connection.execute(version_row.update().values(version=1))
    database.close()
    database = open_database(url, tmp_path / "elias.db")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"bytes")
    SqlFiles(database).keep("place", tmp_path / "folder")
    assert SqlFiles(database).bring("place", tmp_path / "other")
    assert (tmp_path / "other" / "file").read_bytes() == b"bytes"
    database.close()


def test_a_migration_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    database = open_database(None, tmp_path / "elias.db")
    with pytest.raises(StoreError), database.write() as connection:
        prepare(connection, "here", (*MIGRATIONS, ["NOT SQL"]))
    with database.read() as connection:
        assert connection.execute(sa.select(version_row)).all() == [(1 + len(schema.MIGRATIONS),)]
        assert "colour" not in {column["name"] for column in sa.inspect(connection).get_columns("runs")}
    database.close()


def test_a_full_disk_is_a_store_error_and_nothing_is_half_written(tmp_path: Path) -> None:
    database = open_database(None, tmp_path / "elias.db")
    store = SqlRunStore(database)
    store.append_events("run-1-0001", [{"seq": 0}])
    with database.read() as connection:  # the pool's only connection: the limit is on it from here on
        connection.exec_driver_sql("PRAGMA max_page_count = 30")
    with pytest.raises(StoreError, match="full") as raised:
        store.append_events("run-1-0001", ({"seq": n, "text": "x" * 1000} for n in range(1, 500)))
    assert "df -h" in raised.value.fix
    assert raised.value.is_worth_retry
    assert store.events("run-1-0001") == [{"seq": 0}]
    database.close()


def test_a_database_locked_for_too_long_is_worth_a_retry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "BUSY_S", 0.05)
    with open_stores(Config(home=tmp_path)) as stores:
        other = sqlite3.connect(tmp_path / "elias.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked") as raised:
            stores.runs.add(a_run())
        assert raised.value.is_worth_retry
        assert stores.runs.list() == [], "readers go on"
        other.execute("ROLLBACK")
        other.close()
        stores.runs.add(a_run())
        assert stores.runs.list() == [a_run()]


def test_a_home_that_is_a_file_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("not a folder")
    with pytest.raises(StoreError, match="home"):
        open_stores(Config(home=tmp_path / "home"))


def test_a_database_that_is_a_folder_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "elias.db").mkdir()
    with pytest.raises(StoreError, match="cannot be"):
        open_stores(Config(home=tmp_path))


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "not a url: secret", "sqlite:///secret"])
def test_a_url_that_is_not_postgresqls_is_a_config_error_that_shows_no_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError) as raised:
        open_stores(Config(home=tmp_path, store=Store(url=url)))
    assert "secret" not in str(raised.value) + raised.value.fix


def test_a_postgresql_that_does_not_answer_is_worth_a_retry_and_shows_no_password(tmp_path: Path) -> None:
    url = f"postgresql://user:hush@/db?host={tmp_path}"
    with pytest.raises(StoreError, match="cannot be reached") as raised:
        open_stores(Config(home=tmp_path, store=Store(url=url)))
    assert raised.value.is_worth_retry
    assert "hush" not in str(raised.value)


def test_a_postgresql_database_that_is_not_there_is_named(tmp_path: Path, postgres: str) -> None:
    url = postgres.replace("/postgres?", "/nowhere?")
    with pytest.raises(StoreError, match="nowhere") as raised:
        open_stores(Config(home=tmp_path, store=Store(url=url)))
    assert "has that database" in raised.value.fix
