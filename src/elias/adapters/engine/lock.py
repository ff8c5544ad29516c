"""One engine process to a home, and on PostgreSQL one to a node's name. A lock ends with its process, in any way."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

import sqlalchemy as sa

from elias.errors import Refused, StoreError

_CLASS = 0x656C6961
"""The first of PostgreSQL's two lock numbers: `elia` in ASCII; the second is the node name's hash."""


class FileLock:
    """An flock on a file that holds the owner's process id. The file stays; the lock is what counts."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stream: IO[str] | None = None

    def take(self) -> None:
        """Raises Refused, naming the process that has it, or StoreError when there is nowhere to write."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            stream = self._file.open("a+", encoding="utf-8")
        except OSError as error:
            raise StoreError(
                f"cannot write {self._file}: {error.strerror}", fix="set ELIAS_HOME to a folder of yours"
            ) from (error)
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            stream.seek(0)
            owner = stream.read().strip() or "unknown"
            stream.close()
            raise engine_is_taken(f"process {owner} on this machine") from error
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        self._stream = stream

    def release(self) -> None:
        """Of no effect when it is not held."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


class NodeNameLock:
    """A PostgreSQL advisory lock on a node's name, for as long as its connection is open."""

    def __init__(self, engine: sa.Engine, node: str) -> None:
        self._engine = engine
        self.node = node
        self._connection: sa.Connection | None = None

    def take(self) -> bool:
        """Whether nobody had it. A server that goes away takes the lock along: the file lock is the first defence."""
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        query = sa.text("SELECT pg_try_advisory_lock(:class, hashtext(:node))")
        if connection.execute(query, {"class": _CLASS, "node": self.node}).scalar_one():
            self._connection = connection
            return True
        connection.close()
        return False

    def release(self) -> None:
        """Of no effect when it is not held."""
        if self._connection is not None:
            self._connection.invalidate()  # closes it for real; back in the pool it would keep the lock
            self._connection.close()
            self._connection = None


def engine_is_taken(by: str) -> Refused:
    return Refused(
        f"this node's engine already runs: {by}",
        kept="what is queued is carried out there",
        fix="see `elias status`; stop it with `elias down` to run the engine here",
    )
