"""How a segment ended on the other machine: from what came home of it."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from elias.adapters.backends.last_words import last_words
from elias.adapters.backends.output import checkpoints, read_result
from elias.domain.run import SegmentFailure, SegmentState
from elias.ports.backend import Status
from elias.units import instant, rfc3339
from elias_trainer.contract import FailureKind, Outcome
from elias_trainer.parcel import NOTE_PREFIX

RESUME = "elias run resume goes on from the newest checkpoint"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    key: str
    out: Path
    log: Path
    code: int | None
    """None where nobody was left there to write it down."""
    is_unwanted: bool
    was_paused: bool
    problem: str | None = None
    """A file that did not come home whole."""


def status_of(ended: Ended) -> Status:
    """The final status; its times are left to the caller."""
    result = read_result(ended.out)
    if result is not None and result.segment != ended.key:
        result = None
    if ended.is_unwanted and not (result and result.outcome is Outcome.DONE):
        return Status(state=SegmentState.CANCELLED, accelerator=result.accelerator if result else None)
    if ended.problem is not None:
        return failed(FailureKind.INFRASTRUCTURE, f"{ended.problem}; {_kept(ended.out)}", RESUME)
    if result is None:
        return _without_result(ended)
    if result.failure is not None:
        return failed(result.failure.kind, result.failure.message, result.failure.fix)
    state = SegmentState.DONE if result.outcome is Outcome.DONE else SegmentState.PAUSED
    return Status(state=state, accelerator=result.accelerator)


def failed(kind: FailureKind, message: str, fix: str) -> Status:
    return Status(state=SegmentState.FAILED, failure=SegmentFailure(kind=kind, message=message, fix=fix))


def to_record(status: Status) -> dict[str, object]:
    failure = status.failure
    return {
        "state": str(status.state),
        "accelerator": status.accelerator,
        "started_at": rfc3339(status.started_at) if status.started_at else None,
        "ended_at": rfc3339(status.ended_at) if status.ended_at else None,
        "failure": [str(failure.kind), failure.message, failure.fix] if failure else None,
    }


def from_record(record: Mapping[str, Any]) -> Status:
    failure = record["failure"]
    return Status(
        state=SegmentState(record["state"]),
        accelerator=record["accelerator"],
        started_at=_instant(record["started_at"]),
        ended_at=_instant(record["ended_at"]),
        failure=SegmentFailure(kind=FailureKind(failure[0]), message=failure[1], fix=failure[2]) if failure else None,
    )


def _instant(text: str | None) -> datetime | None:
    return instant(text) if text else None


def _without_result(ended: Ended) -> Status:
    if ended.was_paused:  # before it had begun to train: there was no step to save
        return Status(state=SegmentState.CANCELLED)
    for kind, message in _notes(ended.log):
        if kind == "lacks":
            return failed(FailureKind.USER, message, "install it there for the interpreter of `python`; elias doctor")
        if kind == "stale":
            return failed(FailureKind.INFRASTRUCTURE, f"the files changed there: {message}", RESUME)
    last = last_words(ended.log)
    said = f"; its last words: {last}" if last else ""
    message = f"the trainer {_manner(ended.code)} without a result; {_kept(ended.out)}{said}"
    return failed(FailureKind.INFRASTRUCTURE, message, f"see {ended.log}; {RESUME}")


def _notes(log: Path) -> list[tuple[str, str]]:
    if not log.exists():
        return []
    found = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith(NOTE_PREFIX):
            try:
                note = json.loads(line.removeprefix(NOTE_PREFIX))
            except ValueError:
                continue  # torn by the end of the machine
            found.append((str(note.get("kind")), str(note.get("message", ""))))
    return found


def _manner(code: int | None) -> str:
    if code is None:
        return "vanished with its supervisor, as when the machine restarts,"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _kept(out: Path) -> str:
    kept = checkpoints(out)
    return f"{kept[0].name} came home" if kept else "no checkpoint came home"
