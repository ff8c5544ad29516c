"""How a session ended: from Kaggle's word for it, the job's own notes and what lay in its output."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from elias.adapters.backends.kaggle.client import Session
from elias.adapters.backends.kaggle.ledger import Entry
from elias.adapters.backends.kaggle.live import notes_in
from elias.adapters.backends.output import checkpoints, read_result
from elias.domain.run import SegmentFailure, SegmentState
from elias.errors import (
    BackendError,
    EliasError,
    NotFound,
    QuotaExhausted,
    StoreError,
    VerificationError,
)
from elias.ports.backend import Status
from elias.units import instant, rfc3339
from elias_trainer.contract import FailureKind, Outcome, Result

RESUME = "elias run resume goes on from the newest checkpoint"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """What a session left behind."""

    entry: Entry
    session: Session
    out: Path
    lines: Sequence[str]
    """Of its log."""
    problem: str | None = None
    """A file that did not come back whole, however often it was fetched."""


def status_of(ended: Ended) -> Status:
    """The segment's final status; `ended_at` is left to the caller."""
    result = read_result(ended.out)
    if result is not None and result.segment != ended.entry.key:
        result = None
    if ended.entry.unwanted and not (result and result.outcome is Outcome.DONE):
        return Status(state=SegmentState.CANCELLED, accelerator=ended.entry.accelerator)
    if ended.problem is not None:
        return failed(FailureKind.INFRASTRUCTURE, f"{ended.problem}; {_kept(ended.out)}", RESUME)
    if result is None:
        return _without_result(ended)
    if result.failure is not None:
        return failed(result.failure.kind, result.failure.message, result.failure.fix)
    state = SegmentState.DONE if result.outcome is Outcome.DONE else SegmentState.PAUSED
    return Status(state=state, accelerator=_accelerator(result, ended.entry), note=ended.entry.mismatch)


def status_by_hand(out: Path) -> Status:
    """Of a session that somebody else began, and of whose job only its result knows."""
    result = read_result(out)
    if result is None:
        return failed(FailureKind.INFRASTRUCTURE, f"the session left no result; {_kept(out)}", RESUME)
    if result.failure is not None:
        return failed(result.failure.kind, result.failure.message, result.failure.fix)
    state = SegmentState.DONE if result.outcome is Outcome.DONE else SegmentState.PAUSED
    return Status(state=state, accelerator=result.accelerator)


def failed(kind: FailureKind, message: str, fix: str) -> Status:
    return Status(state=SegmentState.FAILED, failure=SegmentFailure(kind=kind, message=message, fix=fix))


def failed_by(error: EliasError) -> Status:
    kinds: tuple[tuple[type[EliasError] | tuple[type[EliasError], ...], FailureKind], ...] = (
        (QuotaExhausted, FailureKind.QUOTA),
        (VerificationError, FailureKind.VERIFICATION),
        ((BackendError, NotFound, StoreError), FailureKind.INFRASTRUCTURE),
    )
    kind = next((kind for types, kind in kinds if isinstance(error, types)), FailureKind.USER)
    return failed(kind, error.what, error.fix)


def mounted_another(lines: Sequence[str]) -> str | None:
    """Why the job refused to train on what was mounted; None where it did not."""
    return next((str(note.get("message", "")) for note in notes_in(lines) if note.get("kind") == "stale"), None)


def log_lines(log: Path) -> list[str]:
    """Of a log as it comes with the output: a JSON array, or now and then plain text."""
    if not log.exists():
        return []
    text = log.read_text(encoding="utf-8", errors="replace")
    try:
        return "".join(str(entry.get("data", "")) for entry in json.loads(text)).splitlines()
    except (ValueError, AttributeError, TypeError):
        return text.splitlines()


def to_record(status: Status, ended_at: datetime) -> dict[str, object]:
    failure = status.failure
    return {
        "state": str(status.state),
        "accelerator": status.accelerator,
        "started_at": rfc3339(status.started_at) if status.started_at else None,
        "ended_at": rfc3339(status.ended_at or ended_at),
        "failure": [str(failure.kind), failure.message, failure.fix] if failure else None,
        "note": status.note,
    }


def from_record(record: Mapping[str, Any]) -> Status:
    failure, started = record["failure"], record["started_at"]
    return Status(
        state=SegmentState(record["state"]),
        accelerator=record["accelerator"],
        started_at=instant(started) if started else None,
        ended_at=instant(record["ended_at"]),
        failure=SegmentFailure(kind=FailureKind(failure[0]), message=failure[1], fix=failure[2]) if failure else None,
        note=record["note"],
    )


def _without_result(ended: Ended) -> Status:
    for note in notes_in(ended.lines):
        if note.get("kind") == "lacks":
            package = note.get("package")
            fix = (
                f"pip download --no-deps {package}, into the folder of [backends.kaggle] wheels; then: elias run resume"
            )
            return failed(FailureKind.USER, f"the notebook's image has no {package}", fix)
        if note.get("kind") == "wheels":
            fix = f"pip download --no-deps --only-binary=:all: --python-version {note.get('python')} … into that folder"
            message = f"a wheel of [backends.kaggle] wheels does not install there: {note.get('message')}"
            return failed(FailureKind.USER, message, f"{fix}; then: elias run resume")
    session = ended.session
    kind = FailureKind.PREEMPTED if session.status == "CANCEL_ACKNOWLEDGED" else FailureKind.INFRASTRUCTURE
    message = f"the session ended {session.status} ({session.failure or 'no reason given'}); {_kept(ended.out)}"
    return failed(kind, message, RESUME)


def _kept(out: Path) -> str:
    kept = checkpoints(out)
    return f"{kept[0].name} came home" if kept else "no checkpoint came home"


def _accelerator(result: Result, entry: Entry) -> str:
    """What the trainer computed on; where that was the CPU, what the machine had all the same."""
    return result.accelerator if result.accelerator != "cpu" else entry.accelerator or "cpu"
