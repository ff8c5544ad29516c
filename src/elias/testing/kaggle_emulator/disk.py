"""What the emulated Kaggle remembers, as files.

root/
  settings.json  clock.json  faults.json  requests.jsonl
  blobs/<token>.json  blobs/<token>.bin
  datasets/<owner>/<slug>/dataset.json, versions/<n>/version.json, versions/<n>/files/…
  kernels/<owner>/<slug>/kernel.json, versions/<n>/{request,session}.json, log.jsonl, kaggle/{input,working}
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from elias.testing.kaggle_emulator.faults import Faults
from elias_trainer.contract import write_whole

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


class Disk:
    """One per emulator; other processes may open the same root to look and to travel in time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.faults = Faults(root / "faults.json")
        self.lock = threading.RLock()

    @property
    def settings(self) -> Settings:
        return Settings(**(read(self.root / "settings.json") or {}))

    def configure(self, **changes: Any) -> None:
        write(self.root / "settings.json", asdict(self.settings) | changes)

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

    def record(self, call: str, body: Any) -> None:
        """Each request as the client sent it, for whoever compares."""
        with self.lock, (self.root / "requests.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"call": call, "body": body}) + "\n")

    def requests(self, call: str | None = None) -> list[dict[str, Any]]:
        path = self.root / "requests.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [entry for line in lines if (entry := json.loads(line)) and call in (None, entry["call"])]

    def dataset(self, owner: str, slug: str) -> Path:
        return self.root / "datasets" / owner / slug

    def kernel(self, owner: str, slug: str) -> Path:
        return self.root / "kernels" / owner / slug

    def sessions(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Each session's folder and what is known of it."""
        for path in sorted(self.root.glob("kernels/*/*/versions/*/session.json")):
            if session := read(path):
                yield path.parent, session

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

    def _gpu_sessions_of_this_week(self) -> Iterator[dict[str, Any]]:
        this_week = self.week(self.now())
        for _, session in self.sessions():
            began = datetime.fromtimestamp(session["started_at"] + session["offset_s"], tz=UTC)
            if session["gpu"] and self.week(began) == this_week:
                yield session


def read(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None where there is no file."""
    try:
        value: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return value


def write(path: Path, value: object) -> None:
    write_whole(path, json.dumps(value, indent=1).encode())


def latest_version(folder: Path) -> int:
    """The highest number below `versions/`, 0 where there is none."""
    return max((int(path.name) for path in folder.glob("versions/*")), default=0)
