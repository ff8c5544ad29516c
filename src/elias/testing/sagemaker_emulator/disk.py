"""What the emulated SageMaker remembers, as files.

root/
  settings.json  clock.json  faults.json  requests.jsonl
  jobs/<region>/<name>/request.json  job.json  orders/{stop,interrupt}  opt-ml/…
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from elias.testing.emulated import EmulatedDisk, Json, read, write
from elias.testing.sagemaker_emulator.faults import Fault, FaultKind

FINAL = ("Completed", "Failed", "Stopped")


@dataclass(kw_only=True, slots=True)
class Settings:
    """Spans are seconds of the emulator's time."""

    starting_s: float = 0.05
    """From creation, or from an interruption, to the download of the inputs."""
    respawn_s: float = 0.1
    """How long an interrupted job waits for another spot instance."""
    grace_s: float = 120.0
    """From SIGTERM to SIGKILL."""
    sync_s: float = 0.1
    """Checkpoints are copied to S3 so often."""
    spot_discount: float = 0.65
    """Part of the training seconds of a spot job that is not billed."""
    default_quota: int = 8
    quotas: dict[str, int] = field(default_factory=dict)
    """Instances at once, by `ml.g5.xlarge` or `ml.g5.xlarge:spot`; `default_quota` for all others."""
    prices: dict[str, str] = field(default_factory=dict)
    """USD an hour in us-east-1 by instance type, over the built-in table."""
    expired_keys: list[str] = field(default_factory=list)
    """Access key ids whose every call is answered with an expired token."""
    isolation: str = "auto"
    """`namespace` (a private /opt/ml), `base_dir` (SAGEMAKER_BASE_DIR), or whichever works here."""


class Disk(EmulatedDisk[Settings, Fault]):
    def __init__(self, root: Path) -> None:
        super().__init__(root, Settings, Fault, FaultKind)

    def time(self) -> float:
        """The emulator's time as seconds since 1970."""
        clock = self._clock()
        return float(clock["emulated_s"] + (time.time() - clock["real_s"]) * clock["pace"])

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time(), tz=UTC)

    def advance(self, span: timedelta) -> None:
        """Running jobs age by as much: they run into their limits, and are billed."""
        self._set_clock(self.time() + span.total_seconds(), self._clock()["pace"])

    def set_pace(self, pace: float) -> None:
        """Emulated seconds that a real second counts as, from now on."""
        self._set_clock(self.time(), pace)

    def stop(self, name: str, region: str = "us-east-1") -> None:
        """As the console's button does."""
        self.order(self.job(region, name), "stop")

    def interrupt(self, name: str, region: str = "us-east-1") -> None:
        """Take the spot instance away from a job that runs now."""
        self.order(self.job(region, name), "interrupt")

    def order(self, job: Path, what: str) -> None:
        (job / "orders").mkdir(parents=True, exist_ok=True)
        (job / "orders" / what).touch()

    def take_order(self, job: Path, what: str) -> bool:
        """Whether it was given; it is used up by this, and one that is given meanwhile is there for the next call."""
        try:
            (job / "orders" / what).unlink()
        except FileNotFoundError:
            return False
        return True

    def job(self, region: str, name: str) -> Path:
        return self.root / "jobs" / region / name

    def jobs(self, region: str = "*") -> Iterator[tuple[Path, Json]]:
        """Each job's folder and record, by name."""
        for path in sorted(self.root.glob(f"jobs/{region}/*/job.json")):
            yield path.parent, read(path) or {}

    def update(self, job: Path, change: Callable[[Json], None]) -> Json:
        """The record after `change`, which is made under the lock."""
        with self.lock:
            record = read(job / "job.json") or {}
            change(record)
            record["LastModifiedTime"] = self.time()
            write(job / "job.json", record)
            return record

    def _clock(self) -> Json:
        return read(self.root / "clock.json") or {"emulated_s": 0.0, "real_s": 0.0, "pace": 1.0}

    def _set_clock(self, emulated_s: float, pace: float) -> None:
        write(self.root / "clock.json", {"emulated_s": emulated_s, "real_s": time.time(), "pace": pace})
