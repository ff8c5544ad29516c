"""What this node knows of its own segments on Kaggle: one small file each, replaced whole."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from elias_trainer.contract import canonical_json, write_whole


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """`segment.json`. Each field is set before the call that it is about can be repeated."""

    key: str
    dataset: str
    kernel: str
    seconds: int
    """Of the session, from its start to the trainer's last word."""
    gpus: int
    parcel: str
    """Digest of the parcel that belongs to this segment."""
    sealed: bool = False
    uploaded_at: str | None = None
    """When the parcel was sent as the dataset's newest version."""
    has_run: bool = False
    """Whether a push was sent; its answer may have been lost."""
    stale_tries: int = 0
    key_read: bool = False
    """Whether the dataset with the segment's key was deleted."""
    unwanted: bool = False
    """Cancelled by the user: ends by its deadline, and counts as cancelled."""
    ended: dict[str, object] | None = None
    """The final status, once what came back was opened."""


class Ledger:
    def __init__(self, home: Path) -> None:
        self._home = home

    def folder(self, key: str) -> Path:
        return self._home / "segments" / key

    def get(self, key: str) -> Entry | None:
        path = self.folder(key) / "segment.json"
        return Entry(**json.loads(path.read_bytes())) if path.exists() else None

    def put(self, entry: Entry) -> Entry:
        write_whole(self.folder(entry.key) / "segment.json", canonical_json(dataclasses.asdict(entry)))
        return entry

    def change(self, key: str, **fields: object) -> Entry:
        entry = self.get(key)
        if entry is None:
            raise KeyError(key)
        return self.put(dataclasses.replace(entry, **fields))  # type: ignore[arg-type] # the fields' own types

    def entries(self) -> Iterator[Entry]:
        for path in sorted(self._home.glob("segments/*/segment.json")):
            yield Entry(**json.loads(path.read_bytes()))
