"""Files under their own digest, below `blobs/sha256/`: written whole, compared with their digest on every read.

Where several nodes share a store, a blob is kept there too, and the folder is what this node has of it at hand.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from elias.errors import DigestMismatch, DiskFull, NotFound, StoreError
from elias.ports.stores import FolderStore
from elias_trainer.contract import Digest, sync_folder

CHUNK_BYTES = 1 << 20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FileBlobs:
    """`folder` is the node's `blobs/`; a file is readable by its owner alone, since a corpus may be private."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, data: BinaryIO) -> Digest:
        with _translated(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=self._folder)
            scratch = Path(name)
            try:
                with os.fdopen(handle, "wb") as stream:
                    digest = _copied(data, stream)
                self._keep(scratch, digest)
            finally:
                with suppress(FileNotFoundError):
                    scratch.unlink()
        return digest

    def open(self, digest: Digest) -> BinaryIO:
        """What was verified is what is read: the same open file, from its start."""
        path = self.place(digest)
        with _translated(path):
            try:
                stream = path.open("rb")
            except FileNotFoundError as error:
                raise NotFound(
                    f"no blob {digest}: {path} is not there",
                    fix="build the corpus again (elias corpus build), or put the file back from a backup",
                ) from error
            try:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
                stream.seek(0)
            except BaseException:
                stream.close()
                raise
        if found != digest.hex:
            stream.close()
            raise DigestMismatch(
                f"{path} has changed: its bytes are sha256:{found}, its name says {digest}",
                kept="it was not used, and is left as it is",
                fix=f"rm -f {shlex.quote(str(path))}, then elias corpus build, or put back a backup",
            )
        return stream

    def path(self, digest: Digest) -> Path:
        self.open(digest).close()
        return self.place(digest)

    def place(self, digest: Digest) -> Path:
        """Where it lies, or would lie."""
        return self._folder / "sha256" / digest.hex[:2] / digest.hex

    def _keep(self, scratch: Path, digest: Digest) -> None:
        place = self.place(digest)
        with suppress(NotFound, DigestMismatch):  # a damaged one is replaced by the good bytes at hand
            self.open(digest).close()
            return
        for folder in (place.parent.parent, place.parent):
            folder.mkdir(exist_ok=True, mode=0o700)
            sync_folder(folder.parent)
        scratch.chmod(0o400)
        scratch.replace(place)
        sync_folder(place.parent)


class SharedBlobs:
    """Those of every node of a store: `own` first, and what it lacks or has damaged out of `folders`."""

    def __init__(self, own: FileBlobs, folders: FolderStore) -> None:
        self._own = own
        self._folders = folders

    def put(self, data: BinaryIO) -> Digest:
        digest = self._own.put(data)
        self._folders.keep(_shared_place(digest), self._own.place(digest).parent, lambda name: name == digest.hex)
        return digest

    def open(self, digest: Digest) -> BinaryIO:
        with suppress(NotFound, DigestMismatch):
            return self._own.open(digest)
        place = self._own.place(digest)
        is_kept = self._folders.bring(_shared_place(digest), place.parent)
        try:
            return self._own.open(digest)
        except NotFound as error:
            if is_kept:
                raise
            raise NotFound(
                f"no blob {digest}: neither in {place} nor in the store that this node shares",
                fix="build the corpus again (elias corpus build); one of secret sessions lies on the node that built "
                "it, and is trained and judged there",
            ) from error

    def path(self, digest: Digest) -> Path:
        self.open(digest).close()
        return self._own.place(digest)


def _shared_place(digest: Digest) -> str:
    return f"blobs/sha256/{digest.hex}"


def _copied(data: BinaryIO, stream: BinaryIO) -> Digest:
    """Down to the disk, hashed on the way."""
    hasher = hashlib.sha256()
    while chunk := data.read(CHUNK_BYTES):
        hasher.update(chunk)
        stream.write(chunk)
    stream.flush()
    os.fsync(stream.fileno())
    return Digest("sha256:" + hasher.hexdigest())


@contextmanager
def _translated(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        quoted = shlex.quote(str(place))
        why = error.strerror or str(error)
        fix = f"look at `ls -ld {quoted}`, and make it yours with chown or chmod"
        if error.errno in _NO_ROOM:
            fix = f"make room (`df -h {quoted}`), then do the same again"
            raise DiskFull(f"{place}: {why}", kept="nothing is half-written", fix=fix) from error
        raise StoreError(f"{place}: {why}", kept="nothing is half-written", fix=fix) from error
