"""Faults: what goes wrong, in which call, how often. Kept in a file, so that any process can inject one."""

from __future__ import annotations

import dataclasses
import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from elias_trainer.contract import write_whole


class FaultKind(StrEnum):
    THROTTLED = "throttled"
    """ThrottlingException, for S3 SlowDown."""
    SERVER_ERROR = "server_error"
    EXPIRED_CREDENTIALS = "expired_credentials"
    """ExpiredTokenException, for S3 and query calls ExpiredToken. See also `Settings.expired_keys`."""
    LOST_ANSWER = "lost_answer"
    """The call is carried out, then the connection is closed without an answer."""
    RESOURCE_LIMIT = "resource_limit"
    """CreateTrainingJob is refused with ResourceLimitExceeded, whatever the quotas say."""
    INSUFFICIENT_CAPACITY = "insufficient_capacity"
    """CreateTrainingJob is accepted; after `seconds` in Starting the job is Failed with a CapacityError."""
    NEVER_STARTS = "never_starts"
    """CreateTrainingJob is accepted; the job stays in Starting until it is stopped or its MaxWait is over."""
    SPOT_INTERRUPTION = "spot_interruption"
    """CreateTrainingJob with spot: the instance is taken away `seconds` after training began."""
    STOPPED_FROM_CONSOLE = "stopped_from_console"
    """CreateTrainingJob: as if somebody pressed Stop `seconds` after training began."""
    CORRUPTED_MODEL = "corrupted_model"
    """CreateTrainingJob: the model.tar.gz that is uploaded has lost its second half."""
    DROPPED_SPOT = "dropped_spot"
    """CreateTrainingJob with spot: accepted, but the job that is made runs on demand."""


JOB_FAULTS = frozenset(
    {
        FaultKind.INSUFFICIENT_CAPACITY,
        FaultKind.NEVER_STARTS,
        FaultKind.SPOT_INTERRUPTION,
        FaultKind.STOPPED_FROM_CONSOLE,
        FaultKind.CORRUPTED_MODEL,
        FaultKind.DROPPED_SPOT,
    }
)
"""Those that a job carries with it once it was created."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    kind: FaultKind
    call: str = "CreateTrainingJob"
    """The operation's name, such as `DescribeTrainingJob`; for S3 the method: `s3.GET`, `s3.PUT`."""
    times: int = 1
    after: int = 0
    """How many calls go well before it begins."""
    seconds: float = 0.0
    """In the emulator's time, see `Disk.set_pace`."""


class Faults:
    """Those that are still to come, in `faults.json`; a lock file lets processes add while the emulator takes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, fault: Fault) -> None:
        with self._held():
            self._write([*self.pending(), fault])

    def clear(self) -> None:
        with self._held():
            self._write([])

    def pending(self) -> list[Fault]:
        if not self._path.exists():
            return []
        return [Fault(**{**raw, "kind": FaultKind(raw["kind"])}) for raw in json.loads(self._path.read_bytes())]

    def take(self, call: str, wanted: Callable[[Fault], bool] = lambda fault: True) -> Fault | None:
        """The first fault for this call that is wanted, used up by one."""
        with self._held():
            pending = self.pending()
            for index, fault in enumerate(pending):
                if fault.call != call or not wanted(fault):
                    continue
                if fault.after:
                    pending[index] = dataclasses.replace(fault, after=fault.after - 1)
                    self._write(pending)
                    return None
                pending[index] = dataclasses.replace(fault, times=fault.times - 1)
                self._write([left for left in pending if left.times])
                return fault
        return None

    @contextmanager
    def _held(self) -> Iterator[None]:
        with self._path.with_suffix(".lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, faults: list[Fault]) -> None:
        write_whole(self._path, json.dumps([dataclasses.asdict(fault) for fault in faults]).encode())
