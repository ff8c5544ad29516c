"""Sessions in a database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import sqlalchemy as sa

from elias.adapters.stores.database import Database
from elias.adapters.stores.documents import from_document, to_document
from elias.adapters.stores.lookup import find_body
from elias.adapters.stores.schema import sessions
from elias.adapters.stores.upsert import insert_new
from elias.domain.label import Label
from elias.domain.session import Evidence, Session
from elias.errors import NotFound

BATCH = 500


class SqlSessionStore:
    """Reads and writes in batches: whoever captures is slow, and nobody else should wait for them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, new: Iterable[Session]) -> int:
        """One transaction a batch of 500: when `new` raises half-way, the batches before it are kept."""
        rest = iter(new)
        added = 0
        while batch := list(islice(rest, BATCH)):
            added += self._add_batch(batch)
        return added

    def get(self, session: str) -> Session:
        with self._database.read() as connection:
            return self._read(find_body(connection, sessions.c.id, session, _missing(session)))

    def select(self, *, source: str | None = None, label: Label | None = None) -> Iterator[Session]:
        """A batch is read at a time, with no transaction held open in between."""
        query = sa.select(sessions.c.id, sessions.c.body).order_by(sessions.c.id).limit(BATCH)
        if source is not None:
            query = query.where(sessions.c.source == source)
        if label is not None:
            query = query.where(sessions.c.label == label.value)
        after = ""
        while True:
            with self._database.read() as connection:
                rows = connection.execute(query.where(sessions.c.id > after)).all()
            for _, body in rows:
                yield self._read(body)
            if len(rows) < BATCH:
                return
            after = rows[-1][0]

    def set_label(self, session: str, label: Label) -> None:
        with self._database.write() as connection:
            found = self._read(find_body(connection, sessions.c.id, session, _missing(session)))
            # Read again under the row's lock: what was found may have changed since.
            locked = self._locked(connection, [found.id])
            self._write(connection, [replace(s, label=label) for s in locked])

    def _add_batch(self, batch: Sequence[Session]) -> int:
        # By id, so that two writers of the same sessions wait for each other and never in a ring.
        unique = {session.id: session for session in batch}
        ordered = [unique[key] for key in sorted(unique)]
        with self._database.write() as connection:
            known = set(connection.execute(sa.select(sessions.c.id).where(sessions.c.id.in_(unique))).scalars())
            rows = [_row(session) for session in ordered if session.id not in known]
            added = insert_new(connection, sessions, rows)
            there = [session.id for session in ordered if session.id in known or session.id not in added]
            renewed = [
                replace(old, evidence=_renewed(old.evidence, unique[old.id].evidence))
                for old in self._locked(connection, there)
            ]
            self._write(connection, renewed)
        return len(added)

    def _locked(self, connection: sa.Connection, ids: Sequence[str]) -> Sequence[Session]:
        query = sa.select(sessions.c.body).where(sessions.c.id.in_(ids)).order_by(sessions.c.id).with_for_update()
        return [self._read(body) for body in connection.execute(query).scalars()]

    def _write(self, connection: sa.Connection, changed: Sequence[Session]) -> None:
        if not changed:
            return
        statement = (
            sessions.update()
            .where(sessions.c.id == sa.bindparam("key"))
            .values(label=sa.bindparam("label"), body=sa.bindparam("body"))
        )
        connection.execute(statement, [{"key": s.id, "label": s.label, "body": to_document(s)} for s in changed])

    def _read(self, body: str) -> Session:
        try:
            return from_document(Session, body)
        except ValueError as error:
            raise self._database.damaged("a session", error) from error


def _row(session: Session) -> dict[str, object]:
    return {"id": session.id, "source": session.source, "label": session.label.value, "body": to_document(session)}


def _renewed(old: tuple[Evidence, ...], new: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
    """What was observed now, and of what was not looked at this time (a person's mark, say) what was known."""
    observed = {evidence.kind for evidence in new}
    return new + tuple(evidence for evidence in old if evidence.kind not in observed)


def _missing(session: str) -> NotFound:
    return NotFound(f"no session begins with {session!r}", fix="see them all: elias session list")
