"""What this node knows of its own segments on Kaggle: one small file each, replaced whole, changed under a lock."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from elias.errors import StoreError
from elias.units import instant
from elias_trainer.contract import canonical_json, write_whole

SETTLED_NS = 1_000_000_000
"""A file that was changed less long ago is read again: a file system's clock may tick as seldom as that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """`segment.json`. What is about to be sent is written down before it is sent, its answer after."""

    key: str
    dataset: str
    kernel: str
    """A slug of its own for every try, so that finding it means that this very try was pushed."""
    seconds: int
    """Of the session, from its start to the trainer's last word."""
    gpus: int
    parcel: str
    """Digest of the parcel that belongs to this segment."""
    sealed: bool = False
    uploaded_at: str | None = None
    """When the parcel was sent as the dataset's newest version."""
    uploads: int = 0
    push_sent_at: str | None = None
    """A push is under way, or its answer was lost."""
    pushed_at: str | None = None
    """Kaggle has the kernel."""
    refusals: int = 0
    """Pushes that Kaggle answered with unknown sources."""
    stale_tries: int = 0
    """Sessions that found another parcel mounted than theirs."""
    not_before: str | None = None
    """The next push."""
    fetch_tries: int = 0
    """Downloads of the output in which a file was not whole."""
    key_dataset: str | None = None
    """Holds the segment's key; None once it is deleted, or where there is none."""
    key_sent_at: str | None = None
    accelerator: str | None = None
    """What the job found there."""
    mismatch: str | None = None
    """One line, where that is not what was planned with."""
    missing_since: str | None = None
    trouble_since: str | None = None
    unwanted: bool = False
    """Cancelled by the user: ends by its deadline, and counts as cancelled."""
    ended: dict[str, object] | None = None
    """The final status, once what came back was opened."""
    unneeded: bool = False
    """What is left of it on Kaggle may go."""
    forgotten: bool = False
    in_vain: tuple[str, ...] = ()
    """Kernels of tries that found the wrong parcel, until they are deleted."""

    @property
    def runs(self) -> bool:
        """Whether it takes one of the account's sessions, as far as this node knows."""
        return self.ended is None and (self.pushed_at is not None or self.push_sent_at is not None)


class Ledger:
    """Other processes of the node may write too: what is remembered here is compared with the file at each look."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._segments = home / "segments"
        self._known: dict[str, tuple[tuple[int, ...], Entry]] = {}
        """Of each key the file's identity when it was read, and what it said."""

    def folder(self, key: str) -> Path:
        return self._segments / key

    def get(self, key: str) -> Entry | None:
        if "/" in key or key.startswith("."):
            return None
        try:
            path = self._segments / key / "segment.json"
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        identity = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        known = self._known.get(key)
        if known is not None and known[0] == identity:
            return known[1]
        entry = _read(path)
        if time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) > SETTLED_NS:
            self._known[key] = (identity, entry)
        return entry

    def put(self, entry: Entry) -> Entry:
        write_whole(self.folder(entry.key) / "segment.json", canonical_json(dataclasses.asdict(entry)))
        return entry

    def change(self, key: str, **fields: object) -> Entry:
        """Only these fields: another process may be changing others. Raises StoreError when there is no such entry."""
        folder = self.folder(key)
        folder.mkdir(parents=True, exist_ok=True)
        with _held(folder / ".lock"):
            path = folder / "segment.json"
            if not path.exists():
                raise StoreError(f"{folder} is gone", fix="elias run resume, with the ELIAS_HOME it began in")
            entry = _read(path)  # never a remembered one: the next one is made from it
            changed = dataclasses.replace(entry, **fields)  # type: ignore[arg-type] # the fields' own types
            return entry if changed == entry else self.put(changed)

    def entries(self) -> Iterator[Entry]:
        try:
            keys = sorted(folder.name for folder in self._segments.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return
        for key in keys:
            if (entry := self.get(key)) is not None:
                yield entry

    def counting(self) -> AbstractContextManager[None]:
        """Held while sessions are counted and one more is written down: two segments never take the last one."""
        self._home.mkdir(parents=True, exist_ok=True)
        return _held(self._home / ".sessions.lock")


def when(text: str | None) -> datetime | None:
    return instant(text) if text else None


@contextmanager
def _held(path: Path) -> Iterator[None]:
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> Entry:
    try:
        raw = json.loads(path.read_bytes())
        return Entry(**{**raw, "in_vain": tuple(raw.get("in_vain", ()))})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{path} cannot be read: {error}", fix=f"put back your copy of {path}, or remove it"
        ) from error
