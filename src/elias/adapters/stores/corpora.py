"""Corpora in a database."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from elias.adapters.stores.database import Database
from elias.adapters.stores.documents import from_document, to_document
from elias.adapters.stores.lookup import digest_prefix, find_body
from elias.adapters.stores.schema import corpora
from elias.adapters.stores.upsert import insert_or_renew, microseconds
from elias.domain.corpus import Corpus
from elias.errors import NotFound

_NEWEST_FIRST = (corpora.c.made_at.desc(), corpora.c.digest)


class SqlCorpusStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, corpus: Corpus) -> None:
        """One that was built again takes the later time, so that `latest` is what was built last."""
        row = {"digest": corpus.digest, "made_at": microseconds(corpus.built_at), "body": to_document(corpus)}
        with self._database.write() as connection:
            insert_or_renew(connection, corpora, row)

    def get(self, corpus: str) -> Corpus:
        with self._database.read() as connection:
            if corpus == "latest":
                newest = sa.select(corpora.c.body).order_by(*_NEWEST_FIRST).limit(1)
                body = connection.execute(newest).scalar_one_or_none()
                if body is None:
                    raise NotFound("there is no corpus yet", fix="build one: elias corpus build")
            else:
                body = find_body(connection, corpora.c.digest, digest_prefix(corpus), _missing(corpus))
        return self._read(body)

    def list(self) -> Sequence[Corpus]:
        with self._database.read() as connection:
            bodies = connection.execute(sa.select(corpora.c.body).order_by(*_NEWEST_FIRST)).scalars().all()
        return [self._read(body) for body in bodies]

    def _read(self, body: str) -> Corpus:
        try:
            return from_document(Corpus, body)
        except ValueError as error:
            raise self._database.damaged("a corpus", error) from error


def _missing(corpus: str) -> NotFound:
    return NotFound(f"no corpus begins with {corpus!r}", fix="see them all: elias corpus list")
