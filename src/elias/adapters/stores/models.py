"""Artifacts, verdicts and deployments in a database."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from elias.adapters.stores.database import Database
from elias.adapters.stores.documents import Noun, from_document, to_document
from elias.adapters.stores.lookup import digest_prefix, find_body
from elias.adapters.stores.schema import artifacts, deployments, verdicts, version_row
from elias.adapters.stores.upsert import insert_missing, microseconds
from elias.domain.artifact import Artifact
from elias.domain.deployment import Deployment
from elias.domain.verdict import Verdict
from elias.errors import NotFound
from elias.units import Clock
from elias_trainer.contract import Digest

_NEWEST_FIRST = (artifacts.c.made_at.desc(), artifacts.c.digest)


class SqlModelStore:
    """`clock` dates deployments; everything else brings its own time."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def add_artifact(self, artifact: Artifact) -> None:
        """Of no effect when these bytes are here: the first run's artifact stays, a later one adds but a receipt."""
        row = {"digest": artifact.digest, "made_at": microseconds(artifact.created_at), "body": to_document(artifact)}
        with self._database.write() as connection:
            insert_missing(connection, artifacts, [row])

    def artifact(self, digest: str) -> Artifact:
        with self._database.read() as connection:
            if digest == "latest":
                newest = sa.select(artifacts.c.body).order_by(*_NEWEST_FIRST).limit(1)
                body = connection.execute(newest).scalar_one_or_none()
                if body is None:
                    raise NotFound("there is no model yet", fix="train one: elias train --strategy local")
            else:
                body = find_body(connection, artifacts.c.digest, digest_prefix(digest), _missing(digest))
        return self._read(Artifact, body)

    def artifacts(self) -> Sequence[Artifact]:
        return self._read_all(Artifact, sa.select(artifacts.c.body).order_by(*_NEWEST_FIRST))

    def add_verdict(self, verdict: Verdict) -> None:
        """Of no effect when one with this id is there: what was judged stays judged."""
        row = {
            "id": verdict.id,
            "candidate": verdict.candidate,
            "made_at": microseconds(verdict.judged_at),
            "body": to_document(verdict),
        }
        with self._database.write() as connection:
            insert_missing(connection, verdicts, [row])

    def verdicts(self, candidate: Digest | None = None) -> Sequence[Verdict]:
        query = sa.select(verdicts.c.body).order_by(verdicts.c.made_at.desc(), verdicts.c.number.desc())
        if candidate is not None:
            query = query.where(verdicts.c.candidate == candidate)
        return self._read_all(Verdict, query)

    def add_deployment(self, base: str, artifact: Digest | None, engine: str, why: str) -> Deployment:
        """The newest one itself when it already says this base, artifact and engine: so it is safe to repeat."""
        with self._database.write() as connection:
            # One writer at a time, so that numbers have no gap; SQLite's transaction is that already.
            connection.execute(sa.select(version_row).with_for_update())
            newest = sa.select(deployments.c.body).order_by(deployments.c.id.desc()).limit(1)
            body = connection.execute(newest).scalar_one_or_none()
            last = None if body is None else self._read(Deployment, body)
            if last and (last.base, last.artifact, last.engine) == (base, artifact, engine):
                return last
            made = Deployment(
                id=last.id + 1 if last else 1,
                base=base,
                artifact=artifact,
                engine=engine,
                deployed_at=self._clock.now(),
                why=why,
            )
            connection.execute(deployments.insert().values(id=made.id, body=to_document(made)))
        return made

    def deployments(self) -> Sequence[Deployment]:
        return self._read_all(Deployment, sa.select(deployments.c.body).order_by(deployments.c.id.desc()))

    def _read_all(self, kind: type[Noun], query: sa.Select[str]) -> Sequence[Noun]:
        with self._database.read() as connection:
            bodies = connection.execute(query).scalars().all()
        return [self._read(kind, body) for body in bodies]

    def _read(self, kind: type[Noun], body: str) -> Noun:
        try:
            return from_document(kind, body)
        except ValueError as error:
            raise self._database.damaged(f"a {kind.__name__.lower()}", error) from error


def _missing(digest: str) -> NotFound:
    return NotFound(f"no model begins with {digest!r}", fix="see them all: elias model list")
