"""Faults: what goes wrong, in which call, how often. Kept in a file, so that any process can inject one."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from elias_trainer.contract import write_whole


class FaultKind(StrEnum):
    HTTP_429 = "http_429"
    HTTP_500 = "http_500"
    HTML = "html"
    """Status 200 with a web page where JSON belongs."""
    NOT_FOUND = "not_found"
    HANG = "hang"
    """No answer for `seconds`."""
    LOST_ANSWER = "lost_answer"
    """The call is carried out, then the connection is closed without an answer."""
    REFUSED = "refused"
    """SaveKernel: status 200 with `.error` set to `message`."""
    INVALID_SOURCES = "invalid_sources"
    """SaveKernel: status 200 with every data source in `.invalidDatasetSources`."""
    TRUNCATED = "truncated"
    """Download: half of the bytes, then the connection is closed."""
    SLOW_PROCESSING = "slow_processing"
    """CreateDataset and CreateDatasetVersion: READY only after `seconds`."""
    STALE_DATASET = "stale_dataset"
    """SaveKernel: the session mounts the version before the newest one."""
    WRONG_ACCELERATOR = "wrong_accelerator"
    """SaveKernel: the session finds a single P100, whatever was asked for."""
    SESSION_TIMEOUT = "session_timeout"
    """SaveKernel: the session is ended after `seconds`, CANCEL_ACKNOWLEDGED."""
    VANISHED = "vanished"
    """SaveKernel: the session's process dies after `seconds`, and the kernel is gone (404)."""
    CANCELLED_FROM_WEB = "cancelled_from_web"
    """SaveKernel: as if somebody pressed the button after `seconds`."""
    SESSION_ERROR = "session_error"
    """SaveKernel: the session ends in ERROR after `seconds`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    kind: FaultKind
    call: str
    """The method's name, such as `SaveKernel`; `download`, `upload` or `logs` for the plain URLs."""
    times: int = 1
    after: int = 0
    """How many calls go well before it begins."""
    seconds: float = 5.0
    message: str = "emulated refusal"


class Faults:
    """Those that are still to come, in `faults.json`. One emulator process consumes them; any may add."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, fault: Fault) -> None:
        self._write([*self.pending(), fault])

    def clear(self) -> None:
        self._write([])

    def pending(self) -> list[Fault]:
        if not self._path.exists():
            return []
        return [Fault(**{**raw, "kind": FaultKind(raw["kind"])}) for raw in json.loads(self._path.read_bytes())]

    def take(self, call: str) -> Fault | None:
        """The fault that this call meets, used up by one."""
        pending = self.pending()
        for index, fault in enumerate(pending):
            if fault.call != call:
                continue
            if fault.after:
                pending[index] = dataclasses.replace(fault, after=fault.after - 1)
                self._write(pending)
                return None
            pending[index] = dataclasses.replace(fault, times=fault.times - 1)
            self._write([left for left in pending if left.times])
            return fault
        return None

    def _write(self, faults: list[Fault]) -> None:
        write_whole(self._path, json.dumps([dataclasses.asdict(fault) for fault in faults]).encode())
