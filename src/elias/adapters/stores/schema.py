"""The tables, and how an older database becomes a newer one.

A noun is one row: its document in `body`, and beside it the columns that are searched or sorted by.
Instants to sort by are microseconds since 1970, since RFC 3339 text with and without fractions does not sort.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from elias.errors import StoreError

_metadata = sa.MetaData()
_Name = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
"""Sorted by bytes everywhere, so that everyone reads in the same order."""
_Order = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

version_row = sa.Table("schema_version", _metadata, sa.Column("version", sa.Integer, nullable=False))

sessions = sa.Table(
    "sessions",
    _metadata,
    sa.Column("id", _Name, primary_key=True),
    sa.Column("source", sa.Text, nullable=False, index=True),
    sa.Column("label", sa.Text, nullable=False, index=True),
    sa.Column("body", sa.Text, nullable=False),
)
corpora = sa.Table(
    "corpora",
    _metadata,
    sa.Column("digest", _Name, primary_key=True),
    sa.Column("made_at", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
runs = sa.Table(
    "runs",
    _metadata,
    sa.Column("number", _Order, sa.Identity(), primary_key=True, autoincrement=True),
    sa.Column("id", _Name, nullable=False, unique=True),
    sa.Column("made_at", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
segments = sa.Table(
    "segments",
    _metadata,
    sa.Column("run", _Name, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("body", sa.Text, nullable=False),
)
events = sa.Table(
    "events",
    _metadata,
    sa.Column("segment", _Name, primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("body", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)
artifacts = sa.Table(
    "artifacts",
    _metadata,
    sa.Column("digest", _Name, primary_key=True),
    sa.Column("made_at", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
verdicts = sa.Table(
    "verdicts",
    _metadata,
    sa.Column("number", _Order, sa.Identity(), primary_key=True, autoincrement=True),
    sa.Column("id", _Name, nullable=False, unique=True),
    sa.Column("candidate", sa.Text, nullable=False, index=True),
    sa.Column("made_at", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
deployments = sa.Table(
    "deployments",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("body", sa.Text, nullable=False),
)

files = sa.Table(
    "files",
    _metadata,
    sa.Column("place", _Name, primary_key=True),
    sa.Column("path", _Name, primary_key=True),
    sa.Column("digest", _Name, nullable=False, index=True),
    sa.Column("bytes", sa.BigInteger, nullable=False),
)
"""Files that every node of a shared store may need. A row is there only when all chunks of its digest are."""
chunks = sa.Table(
    "chunks",
    _metadata,
    sa.Column("digest", _Name, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)

spend = sa.Table(
    "spend",
    _metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False, index=True),
    sa.Column("part", sa.Text, nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False, index=True),
    sa.Column("run", sa.Text, nullable=False, index=True),
    sa.Column("backend", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
)
"""The journal of money, in whole micro-dollars. Rows are only ever added."""

Migration = Sequence[str]
"""The statements, in SQL that both databases read, that bring one version to the next."""

_FILES: Migration = (
    "CREATE TABLE files (place TEXT NOT NULL, path TEXT NOT NULL, digest TEXT NOT NULL, bytes BIGINT NOT NULL, "
    "PRIMARY KEY (place, path))",
    "CREATE INDEX ix_files_digest ON files (digest)",
    "CREATE TABLE chunks (digest TEXT NOT NULL, number INTEGER NOT NULL, data BYTEA NOT NULL, "
    "PRIMARY KEY (digest, number))",
)

_SPEND: Migration = (
    "CREATE TABLE IF NOT EXISTS spend (number BIGINT NOT NULL PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, "
    "part TEXT NOT NULL, amount BIGINT NOT NULL, at BIGINT NOT NULL, run TEXT NOT NULL, backend TEXT NOT NULL, "
    "note TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS ix_spend_key ON spend (key)",
    "CREATE INDEX IF NOT EXISTS ix_spend_at ON spend (at)",
    "CREATE INDEX IF NOT EXISTS ix_spend_run ON spend (run)",
)

MIGRATIONS: tuple[Migration, ...] = (_SPEND, _FILES)
"""The first brings version 1 to 2, and so on. Never edited once released; a change to a table above adds one here."""


def prepare(connection: sa.Connection, place: str, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Make the tables in an empty database, bring older ones up to date. Inside one transaction.

    Raises StoreError when a newer program wrote this database.
    """
    newest = 1 + len(migrations)
    if not sa.inspect(connection).has_table(version_row.name):
        _metadata.create_all(connection)
        connection.execute(version_row.insert().values(version=newest))
        return
    found = connection.execute(sa.select(version_row.c.version)).scalar_one()
    refuse_newer(found, place, newest)
    for migration in migrations[found - 1 :]:
        for statement in migration:
            connection.exec_driver_sql(statement)
    connection.execute(version_row.update().values(version=newest))


def refuse_newer(found: int, place: str, newest: int = 1 + len(MIGRATIONS)) -> None:
    if found > newest:
        raise StoreError(
            f"{place} has schema {found}; this program knows up to {newest}",
            kept="nothing was changed",
            fix="upgrade this program: pip install --upgrade 'elias-node[node]'",
        )
