"""What this node knows of its own segments on SageMaker: one small file each, replaced whole, changed under a lock."""

from __future__ import annotations

import dataclasses
import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from elias.errors import StoreError
from elias.units import instant
from elias_trainer.contract import canonical_json, write_whole


class StopFor(StrEnum):
    """Why this node had a job stopped; decides what its end counts as."""

    CANCEL = "cancel"
    PAUSE = "pause"
    MISMATCH = "mismatch"
    """SageMaker made another job than was ordered."""
    NEVER_STARTED = "never_started"
    IN_VAIN = "in_vain"
    """Interrupted again and again, and nothing gained."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """`segment.json`. What is about to be sent is written down before it is sent, its answer after."""

    key: str
    run: str
    need: str
    """What the segment trains, as `need_id` writes it: the same for all segments of a run."""
    job: str
    """The training job's name."""
    instance: str
    is_spot: bool
    gpus: int
    hourly: int
    """Micro-dollars, on demand."""
    seconds: int
    """MaxRuntimeInSeconds."""
    start_step: int
    """The step of the checkpoint that it took along; 0 for none."""
    parcel: str
    """Digest of the parcel that belongs to this segment."""
    sealed: bool = False
    bucket: str | None = None
    """Where its files went, once the first one was sent: settings may change under way."""
    has_key: bool = False
    """Whether the segment's key lies in S3, or may."""
    uploaded_at: str | None = None
    fingerprint: str | None = None
    """Of the order, as it stands in the job's tag."""
    sent_at: str | None = None
    """The order is on its way, or its answer was lost."""
    created_at: str | None = None
    """SageMaker has the job, and it is ours."""
    is_checked: bool = False
    """Whether the job was compared with the order."""
    mismatch: str | None = None
    """The field in which the two differ, and how."""
    stop_for: str | None = None
    """A StopFor."""
    stop_sent: bool = False
    started_at: str | None = None
    """The instance's first second that is billed."""
    interruptions: int = 0
    vain: int = 0
    """Interruptions in a row between which no checkpoint was gained."""
    last_step: int = 0
    """Of the newest checkpoint at the last interruption."""
    fetch_tries: int = 0
    missing_since: str | None = None
    trouble_since: str | None = None
    ended: dict[str, object] | None = None
    """The final status, once what came back was opened."""
    gained: bool = False
    """Whether it ended further than it started."""
    artifact: str | None = None
    """Where its finished adapter stays in S3, under its digest."""
    unneeded: bool = False
    """What is left of it in S3 may go."""
    forgotten: bool = False

    @property
    def was_sent(self) -> bool:
        return self.sent_at is not None or self.created_at is not None

    @property
    def runs(self) -> bool:
        """Whether there is a job that has not ended, as far as this node knows."""
        return self.ended is None and self.was_sent


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


def adopted(key: str, address: str, ended: dict[str, object]) -> Entry:
    """Of what was fetched by its address: no segment that this node sent, and nothing of it is left to clean up."""
    return Entry(
        key=key,
        run="",
        need="",
        job="",
        instance="",
        is_spot=False,
        gpus=0,
        hourly=0,
        seconds=0,
        start_step=0,
        parcel="",
        ended=ended,
        artifact=address,
        unneeded=True,
        forgotten=True,
    )


def when(text: str | None) -> datetime | None:
    return instant(text) if text else None


def _read(path: Path) -> Entry:
    try:
        return Entry(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(
            f"{path} cannot be read: {error}", fix=f"put back your copy of {path}, or remove it"
        ) from error
