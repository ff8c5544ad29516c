"""Runs, their segments and the segments' events in a database."""

from __future__ import annotations

import builtins
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import lru_cache
from typing import Any, cast

import sqlalchemy as sa

from elias.adapters.stores.database import Database
from elias.adapters.stores.documents import Noun, from_document, to_document
from elias.adapters.stores.lookup import find_body
from elias.adapters.stores.schema import events, runs, segments
from elias.adapters.stores.upsert import insert_missing, microseconds
from elias.domain.run import Run, Segment
from elias.errors import NotFound

_CHANGEABLE = {field.name for field in fields(Run)} - {"id", "created_at"}


class SqlRunStore:
    """Two processes write here at once, the node and the command line: each change is made under the row's lock."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, run: Run) -> None:
        row = {"id": run.id, "made_at": microseconds(run.created_at), "body": to_document(run)}
        with self._database.write() as connection:
            insert_missing(connection, runs, [row])

    def get(self, run: str) -> Run:
        with self._database.read() as connection:
            return self._read(Run, find_body(connection, runs.c.id, run, _missing(run)))

    def list(self) -> Sequence[Run]:
        query = sa.select(runs.c.body).order_by(runs.c.made_at.desc(), runs.c.number.desc())
        with self._database.read() as connection:
            return [self._read(Run, body) for body in connection.execute(query).scalars()]

    def update(self, run: str, **changes: Any) -> Run:
        """By the whole id. Changes that would leave a final state are of no effect, all of them together."""
        if unknown := sorted(changes.keys() - _CHANGEABLE):
            raise ValueError(f"a run has no field {unknown[0]!r} that can be set")
        with self._database.write() as connection:
            query = sa.select(runs.c.body).where(runs.c.id == run).with_for_update()
            body = connection.execute(query).scalar_one_or_none()
            if body is None:
                raise _missing(run)
            old = self._read(Run, body)
            if old.state.is_final and changes.get("state", old.state) != old.state:
                return old
            document = to_document(replace(old, **changes))
            changed = from_document(Run, document)  # a value of another type raises here, before it is kept
            connection.execute(runs.update().where(runs.c.id == run).values(body=document))
        return changed

    def put_segment(self, segment: Segment) -> None:
        """One that has ended takes more about its end (cost, checkpoint), never another state."""
        where = (segments.c.run == segment.run) & (segments.c.number == segment.number)
        document = to_document(segment)
        with self._database.write() as connection:
            row = {"run": segment.run, "number": segment.number, "body": document}
            insert_missing(connection, segments, [row])
            locked = sa.select(segments.c.body).where(where).with_for_update()
            old = self._read(Segment, connection.execute(locked).scalar_one())
            if not old.state.is_final or segment.state == old.state:
                connection.execute(segments.update().where(where).values(body=document))

    def segments(self, run: str) -> Sequence[Segment]:
        query = sa.select(segments.c.body).where(segments.c.run == run).order_by(segments.c.number)
        with self._database.read() as connection:
            return [self._read(Segment, body) for body in connection.execute(query).scalars()]

    def append_events(self, segment: str, new: Iterable[Mapping[str, Any]]) -> None:
        """Raises ValueError, keeping none of them, for one without a whole number `seq` or that JSON cannot hold."""
        rows: builtins.list[dict[str, Any]] = [
            {"segment": segment, "seq": _seq(event), "body": to_document(event)} for event in new
        ]
        rows.sort(key=lambda row: row["seq"])  # two writers of the same events wait for each other, never in a ring
        with self._database.write() as connection:
            insert_missing(connection, events, rows)

    def events(self, segment: str, after: int = -1) -> Sequence[Mapping[str, Any]]:
        query = sa.select(events.c.body).where(events.c.segment == segment, events.c.seq > after)
        with self._database.read() as connection:
            bodies: builtins.list[str] = [*connection.execute(query.order_by(events.c.seq)).scalars()]
        return [json.loads(body) for body in bodies]

    def _read(self, kind: type[Noun], body: str) -> Noun:
        try:
            return cast(Noun, _parsed(cast(Any, kind), body))
        except ValueError as error:
            raise self._database.damaged(f"a {kind.__name__.lower()}", error) from error


@lru_cache(maxsize=2048)
def _parsed(kind: type[Any], body: str) -> Any:
    """Runs and segments are frozen, and read far more often than they change."""
    return from_document(kind, body)


def _seq(event: Mapping[str, Any]) -> int:
    seq = event.get("seq")
    if not isinstance(seq, int) or isinstance(seq, bool):
        raise ValueError(f"an event's seq is a whole number, not {seq!r}")
    return seq


def _missing(run: str) -> NotFound:
    return NotFound(f"no run begins with {run!r}", fix="see them all: elias run list")
