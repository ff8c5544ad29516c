"""Inserts that meet a row that is there already; the same words in both databases' dialects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def insert_new(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> set[Any]:
    """Insert those rows whose key is not there; the keys of those that were not, where the key is one column."""
    if not rows:
        return set()
    key = next(iter(table.primary_key.columns))
    statement = _insert(connection, table).on_conflict_do_nothing().returning(key)
    return set(connection.execute(statement, list(rows)).scalars())


def insert_missing(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """As `insert_new` where nobody asks which were new: one round for thousands of rows."""
    if rows:
        connection.execute(_insert(connection, table).on_conflict_do_nothing(), list(rows))


def insert_or_renew(connection: sa.Connection, table: sa.Table, row: Mapping[str, Any]) -> None:
    """Insert, or replace the row with the same key when that one was not made later."""
    statement = _insert(connection, table).values(**row)
    keys = [column.name for column in table.primary_key.columns]
    renewed = {name: statement.excluded[name] for name in row if name not in keys}
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=keys, set_=renewed, where=table.c.made_at <= statement.excluded.made_at
        )
    )


def microseconds(moment: datetime) -> int:
    """Since 1970: an instant to sort by."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _insert(connection: sa.Connection, table: sa.Table) -> Any:
    """Typed loosely: the two dialects' inserts share these methods, not a class."""
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)
