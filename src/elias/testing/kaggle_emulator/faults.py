"""Faults of the emulated Kaggle: what can go wrong, and in which call."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from elias.testing.emulated import AnyFault


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
    """CreateDataset and CreateDatasetVersion: READY only after `seconds`, in the emulator's time (`Disk.advance`)."""
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
class Fault(AnyFault):
    kind: FaultKind
    call: str
    """The method's name, such as `SaveKernel`; `download`, `upload` or `logs` for the plain URLs."""
    seconds: float = 5.0
    once: str = ""
    """A session's fault: its `seconds` begin when something in /kaggle/working matches this pattern."""
    message: str = "emulated refusal"
