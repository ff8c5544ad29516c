"""What the emulated Kaggle remembers, as files.

root/
  settings.json  clock.json  faults.json  requests.jsonl
  blobs/<token>.json  blobs/<token>.bin
  datasets/<owner>/<slug>/dataset.json, versions/<n>/version.json, versions/<n>/files/…
  deleted.jsonl: the sessions of kernels that are gone
  kernels/<owner>/<slug>/kernel.json, versions/<n>/{request,session}.json, log.jsonl, kaggle/{input,working}
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from elias.testing.emulated import EmulatedDisk, Json, read, write
from elias.testing.kaggle_emulator.faults import Fault, FaultKind

WEEK = timedelta(weeks=1)
SATURDAY = datetime(2024, 1, 6, tzinfo=UTC)
"""Quotas begin anew on Saturdays, 00:00 UTC."""


@dataclass(kw_only=True, slots=True)
class Settings:
    gpu_seconds_a_week: float = 30 * 3600.0
    gpu_sessions_at_once: int = 2
    processing_s: float = 0.05
    """From a dataset version's creation to READY."""
    queue_s: float = 0.05
    """A session is QUEUED for so long before it runs."""
    newer_mounts: bool = True
    """Inputs at /kaggle/input/datasets/<owner>/<slug>; else at /kaggle/input/<slug>."""
    page_size: int = 20
    accepts_keys: bool = True
    gpu_least_s: float = 0.0
    """GPU seconds that a session which has ended counts as at least, to live through weeks in minutes."""


class Disk(EmulatedDisk[Settings, Fault]):
    def __init__(self, root: Path) -> None:
        super().__init__(root, Settings, Fault, FaultKind)

    def now(self) -> datetime:
        """The machine's time, moved on by `advance`."""
        return datetime.fromtimestamp(time.time() + self._offset_s, tz=UTC)

    def advance(self, span: timedelta) -> None:
        write(self.root / "clock.json", {"offset_s": self._offset_s + span.total_seconds()})

    @property
    def _offset_s(self) -> float:
        return float((read(self.root / "clock.json") or {}).get("offset_s", 0.0))

    def set_secrets(self, secrets: dict[str, str]) -> None:
        """What the module `kaggle_secrets` tells every kernel that is pushed from now on, as the web page sets it."""
        write(self.root.with_name(f"{self.root.name}-secrets.json"), secrets)

    def secrets(self) -> dict[str, str]:
        return read(self.root.with_name(f"{self.root.name}-secrets.json")) or {}

    def dataset(self, owner: str, slug: str) -> Path:
        return self.root / "datasets" / owner / slug

    def kernel(self, owner: str, slug: str) -> Path:
        return self.root / "kernels" / owner / slug

    def sessions(self) -> Iterator[tuple[Path, Json]]:
        """Each session's folder and what is known of it."""
        for path in sorted(self.root.glob("kernels/*/*/versions/*/session.json")):
            if session := read(path):
                yield path.parent, session

    def delete_kernel(self, folder: Path) -> None:
        """Its hours stay used."""
        sessions = [read(path) for path in folder.glob("versions/*/session.json")]
        with self.lock:
            with (self.root / "deleted.jsonl").open("a", encoding="utf-8") as kept:
                kept.writelines(json.dumps(session) + "\n" for session in sessions)
            shutil.rmtree(folder)

    def week(self, moment: datetime) -> int:
        return (moment - SATURDAY) // WEEK

    def next_refresh(self) -> datetime:
        return SATURDAY + WEEK * (self.week(self.now()) + 1)

    def gpu_seconds_used(self) -> float:
        """In this week, by sessions that ended; a session counts in the week in which it began."""
        ended, least_s = [s for s in self._gpu_sessions_of_this_week() if s.get("ended_at")], self.settings.gpu_least_s
        return sum((max(float(s["ended_at"]) - float(s["started_at"]), least_s) for s in ended), 0.0)

    def gpu_seconds_reserved(self) -> float:
        """By sessions that run: what they have used so far."""
        running = [s for s in self._gpu_sessions_of_this_week() if not s.get("ended_at")]
        return sum((time.time() - float(s["started_at"]) for s in running), 0.0)

    def gpu_sessions_running(self) -> int:
        return sum(1 for _, s in self.sessions() if s["gpu"] and not s.get("ended_at"))

    def _gpu_sessions_of_this_week(self) -> Iterator[Json]:
        this_week, deleted = self.week(self.now()), self.root / "deleted.jsonl"
        gone = deleted.read_text(encoding="utf-8").splitlines() if deleted.exists() else []
        for session in [*map(json.loads, gone), *(session for _, session in self.sessions())]:
            began = datetime.fromtimestamp(session["started_at"] + session["offset_s"], tz=UTC)
            if session["gpu"] and self.week(began) == this_week:
                yield session


def latest_version(folder: Path) -> int:
    """The highest number below `versions/`, 0 where there is none."""
    return max((int(path.name) for path in folder.glob("versions/*")), default=0)
