"""Files in a database that several nodes share: digest-addressed chunks, and rows that name what is whole.

A folder's rows are written together once every chunk is there, so that another node finds all of it or none.
Chunks of the same bytes are kept once: a checkpoint that a segment left and the next one starts from is one.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

import sqlalchemy as sa

from elias.adapters.stores.database import Database
from elias.adapters.stores.schema import chunks, files, version_row
from elias.adapters.stores.upsert import insert_missing
from elias.errors import DiskFull, StoreError
from elias_trainer.contract import Digest, digest_file, sync_folder

CHUNK_BYTES = 1 << 20


class SqlFiles:
    """The port's `FolderStore`, for nodes of one PostgreSQL; written for both databases, so that both test it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen: set[tuple[Path, Digest, int, int]] = set()
        """Local files that this process has compared with the store already, with their size and time."""

    def keep(self, place: str, folder: Path, choose: Callable[[str], bool] = bool) -> None:
        found = {path: folder / path for path in _paths(folder) if choose(path)}
        rows = []
        with _disk_errors(folder):
            for path, source in found.items():
                digest = digest_file(source)
                self._send(digest, source)
                rows.append({"place": place, "path": path, "digest": digest, "bytes": source.stat().st_size})
        with self._database.write() as connection:
            _one_at_a_time(connection)
            for row in rows:
                self._require_whole(connection, Digest(str(row["digest"])), int(str(row["bytes"])))
            connection.execute(files.delete().where(files.c.place == place, files.c.path.in_(list(found))))
            insert_missing(connection, files, rows)

    def bring(self, place: str, folder: Path, choose: Callable[[str], bool] = bool) -> bool:
        wanted = {path: digest for path, digest in self._listed(place).items() if choose(path)}
        with _disk_errors(folder):
            for path, digest in wanted.items():
                if not self._is_here(folder / path, digest):
                    self._write(digest, folder / path)
        return bool(wanted)

    def forget(self, place: str, under: str = "") -> None:
        mine = (files.c.place == place) & files.c.path.startswith(under, autoescape=True)
        with self._database.write() as connection:
            _one_at_a_time(connection)
            gone = connection.execute(sa.select(files.c.digest).where(mine).distinct()).scalars().all()
            connection.execute(files.delete().where(mine))
            for digest in gone:
                is_named = sa.exists().where(files.c.digest == digest)
                connection.execute(chunks.delete().where(chunks.c.digest == digest, ~is_named))

    def _listed(self, place: str) -> Mapping[str, Digest]:
        query = sa.select(files.c.path, files.c.digest).where(files.c.place == place).order_by(files.c.path)
        with self._database.read() as connection:
            rows = [(str(path), Digest(digest)) for path, digest in connection.execute(query)]
        for path, _ in rows:
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
                raise self._database.damaged(f"a file of {place}", ValueError(f"{path!r} leads out of its folder"))
        return dict(rows)

    def _is_here(self, path: Path, digest: Digest) -> bool:
        if not path.is_file():
            return False
        known = _state(path, digest)
        if known not in self._seen and digest_file(path) != digest:
            return False
        self._seen.add(known)
        return True

    def _send(self, digest: Digest, source: Path) -> None:
        """Chunk by chunk, each in a transaction of its own: what a crash cut off goes on where it was."""
        there = set(self._numbers(digest))
        with source.open("rb") as stream:
            for number, chunk in enumerate(_chunks_of(stream.read)):
                if number not in there:
                    with self._database.write() as connection:
                        insert_missing(connection, chunks, [{"digest": digest, "number": number, "data": chunk}])

    def _numbers(self, digest: Digest) -> list[int]:
        with self._database.read() as connection:
            return list(connection.execute(sa.select(chunks.c.number).where(chunks.c.digest == digest)).scalars())

    def _require_whole(self, connection: sa.Connection, digest: Digest, size: int) -> None:
        query = sa.select(sa.func.count()).where(chunks.c.digest == digest)
        if connection.execute(query).scalar_one() != -(-size // CHUNK_BYTES):
            raise StoreError(
                f"{self._database.place} lost a part of {digest.short} while it was written",
                kept="the file in this node's home",
                fix="try again: another node removed the same bytes at this very moment",
            )

    def _write(self, digest: Digest, target: Path) -> None:
        """Whole or not at all, and only what the digest says. Raises StoreError."""
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        scratch = target.with_name(f".{target.name}.{os.getpid()}.part")
        hasher = hashlib.sha256()
        try:
            with scratch.open("wb") as stream:
                scratch.chmod(0o600)
                for chunk in self._chunks(digest):
                    hasher.update(chunk)
                    stream.write(chunk)
                stream.flush()
                os.fsync(stream.fileno())
            if hasher.hexdigest() != digest.hex:
                raise self._database.damaged(f"the chunks of {digest}", ValueError("their bytes have changed"))
            scratch.replace(target)
        finally:
            with suppress(FileNotFoundError):
                scratch.unlink()
        sync_folder(target.parent)
        self._seen.add(_state(target, digest))

    def _chunks(self, digest: Digest) -> Iterator[bytes]:
        for number in sorted(self._numbers(digest)):
            query = sa.select(chunks.c.data).where(chunks.c.digest == digest, chunks.c.number == number)
            with self._database.read() as connection:
                data = connection.execute(query).scalar_one_or_none()
            if data is not None:
                yield bytes(data)


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kept, why = "what the shared store holds", error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"no room left in {folder}", fix="free some space, then the same again", kept=kept
            ) from error
        raise StoreError(f"{folder}: {why}", fix="elias doctor", kept=kept) from error


def _state(path: Path, digest: Digest) -> tuple[Path, Digest, int, int]:
    found = path.stat()
    return path, digest, found.st_size, found.st_mtime_ns


def _paths(folder: Path) -> list[str]:
    """Of whole files: a name that begins with a dot is still being written."""
    found = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    return sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))


def _chunks_of(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while chunk := read(CHUNK_BYTES):
        yield chunk


def _one_at_a_time(connection: sa.Connection) -> None:
    """Whoever names chunks and whoever removes those that nobody names take turns; on SQLite they do anyway."""
    connection.execute(sa.select(version_row.c.version).with_for_update())
