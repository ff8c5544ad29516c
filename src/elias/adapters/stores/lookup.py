"""Finding one row by its name or by the beginning of it."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from elias.errors import NotFound

SHOWN = 5


def find_body(connection: sa.Connection, column: sa.Column[str], name: str, missing: NotFound) -> str:
    """The document of the row whose `column` is `name`, or else the only one that begins with it.

    Raises `missing` when there is none, NotFound naming the candidates when there are several.
    """
    body = column.table.c.body
    exact = connection.execute(sa.select(body).where(column == name)).scalar_one_or_none()
    if exact is not None:
        return str(exact)
    begins = sa.select(column, body).where(column.startswith(name, autoescape=True)).order_by(column)
    # SQLite's LIKE takes upper for lower case.
    rows = [row for row in connection.execute(begins.limit(100)) if name and row[0].startswith(name)]
    if len(rows) == 1:
        return str(rows[0][1])
    if not rows:
        raise missing
    raise _ambiguous(name, [row[0] for row in rows])


def digest_prefix(text: str) -> str:
    """`sha256:<hex>`, or any beginning of the hex alone, as the beginning of a stored digest."""
    lowered = text.strip().lower()
    hex_part = lowered.removeprefix("sha256:")
    return f"sha256:{hex_part}" if hex_part else ""


def _ambiguous(name: str, found: Sequence[str]) -> NotFound:
    shown = ", ".join(found[:SHOWN]) + (", …" if len(found) > SHOWN else "")
    return NotFound(f"{name!r} is the beginning of more than one: {shown}", fix="give more of it")
