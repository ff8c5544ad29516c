"""What this node knows of its own segments on Kaggle: one small file each, replaced whole, changed under a lock."""

from __future__ import annotations

import dataclasses
import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from elias.errors import StoreError
from elias.units import instant
from elias_trainer.contract import canonical_json, write_whole


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

    @property
    def runs(self) -> bool:
        """Whether it takes one of the account's sessions, as far as this node knows."""
        return self.ended is None and (self.pushed_at is not None or self.push_sent_at is not None)


class Ledger:
    def __init__(self, home: Path) -> None:
        self._home = home

    def folder(self, key: str) -> Path:
        return self._home / "segments" / key

    def get(self, key: str) -> Entry | None:
        path = self.folder(key) / "segment.json"
        if "/" in key or key.startswith(".") or not path.exists():
            return None
        return _read(path)

    def put(self, entry: Entry) -> Entry:
        write_whole(self.folder(entry.key) / "segment.json", canonical_json(dataclasses.asdict(entry)))
        return entry

    def change(self, key: str, **fields: object) -> Entry:
        """Only these fields: another process may be changing others. Raises StoreError when there is no such entry."""
        with self._lock(key):
            entry = self.get(key)
            if entry is None:
                raise StoreError(f"{self.folder(key)} is gone", fix="elias run resume, with the ELIAS_HOME it began in")
            changed = dataclasses.replace(entry, **fields)  # type: ignore[arg-type] # the fields' own types
            return entry if changed == entry else self.put(changed)

    def entries(self) -> Iterator[Entry]:
        for path in sorted(self._home.glob("segments/*/segment.json")):
            yield _read(path)

    @contextmanager
    def _lock(self, key: str) -> Iterator[None]:
        folder = self.folder(key)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def when(text: str | None) -> datetime | None:
    return instant(text) if text else None


def _read(path: Path) -> Entry:
    try:
        return Entry(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(
            f"{path} cannot be read: {error}", fix=f"put back your copy of {path}, or remove it"
        ) from error
