"""What a database says when it fails, as a StoreError that says what is safe and what to type."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from elias.errors import StoreError

FILES_ARE_SAFE = "blobs/, runs/ and identity/ are files of their own and were not touched"
NOTHING_HALF_WRITTEN = "the change was taken back whole; nothing is half-written"


class StoreBroken(StoreError):
    """The file or the server has to be mended first; trying again changes nothing."""

    is_worth_retry = False

    @property
    def code(self) -> str:
        return StoreError.__name__


@contextmanager
def translated(place: str, file: Path | None) -> Iterator[None]:
    """Vendor errors inside become StoreErrors about `place`; `file` is the SQLite file, if it is one."""
    try:
        yield
    except DBAPIError as error:
        if file is not None:
            raise _sqlite_failure(file, error) from error
        raise _postgres_failure(place, error) from error
    except SQLAlchemyError as error:
        raise StoreError(f"{place}: {error}", kept=NOTHING_HALF_WRITTEN, fix="try again") from error


def is_busy(error: DBAPIError) -> bool:
    """Whether another connection was in the way, so that the same again may succeed."""
    if error.orig is None:
        return False
    if _sqlite_name(error).startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return True
    return getattr(error.orig, "sqlstate", None) in ("40001", "40P01", "55P03")


def corrupted(file: Path, why: str) -> StoreError:
    kept_files = " ".join(shlex.quote(f"{file}{suffix}") for suffix in ("", "-wal", "-shm"))
    aside = shlex.quote(str(file.parent / "broken"))
    return StoreBroken(
        f"the database {file} is damaged: {why}",
        kept=FILES_ARE_SAFE,
        fix=f"move it aside with `mkdir -p {aside}; mv {kept_files} {aside}`, then put your backup of {file.name} "
        "back, or go on with an empty one",
    )


def _sqlite_failure(file: Path, error: DBAPIError) -> StoreError:
    name, said = _sqlite_name(error), str(error.orig)
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return corrupted(file, said)
    if name == "SQLITE_FULL" or name.startswith("SQLITE_IOERR"):
        return StoreError(
            f"the disk under {file} is full or failing: {said}",
            kept=NOTHING_HALF_WRITTEN,
            fix=f"make room (`df -h {shlex.quote(str(file.parent))}`), then try again",
        )
    if is_busy(error):
        return StoreError(
            f"another program has held {file} locked for too long",
            kept=NOTHING_HALF_WRITTEN,
            fix=f"try again; `fuser {shlex.quote(str(file))}` names the program",
        )
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
        return StoreBroken(
            f"the database {file} cannot be written: {said}",
            kept=FILES_ARE_SAFE,
            fix=f"look at `ls -ld {shlex.quote(str(file.parent))} {shlex.quote(str(file))}`, then chown or chmod it",
        )
    return StoreError(f"the database {file} failed: {said}", kept=NOTHING_HALF_WRITTEN, fix="try again")


def _sqlite_name(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlite_errorname", None) or ""


_POSTGRES_FIXES = {
    "42": "let this user create a schema in that database: `GRANT CREATE ON DATABASE … TO …`",
    "53": "make room on the database server, then try again",
}


def _postgres_failure(place: str, error: DBAPIError) -> StoreError:
    said = " ".join(str(error.orig).split())
    state = getattr(error.orig, "sqlstate", None) or ""
    if not state or state.startswith(("08", "57")) or error.connection_invalidated:
        return StoreError(
            f"the database {place} cannot be reached: {said}",
            kept=NOTHING_HALF_WRITTEN,
            fix="see that PostgreSQL runs, has that database and lets this user in: see `store.url`",
        )
    fix = _POSTGRES_FIXES.get(state[:2])
    kind = StoreBroken if fix and not state.startswith("53") else StoreError
    return kind(f"the database {place} failed: {said}", kept=NOTHING_HALF_WRITTEN, fix=fix or "try again")
