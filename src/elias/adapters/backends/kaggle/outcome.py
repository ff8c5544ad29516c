"""How a session ended: from Kaggle's word for it, the job's own notes and what lay in its output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from elias.adapters.backends.kaggle.client import Session
from elias.adapters.backends.kaggle.ledger import Entry
from elias.adapters.backends.outcome import RESUME, own_result, status_of_result, what_came_home
from elias.adapters.backends.output import read_result
from elias.adapters.backends.printed import notes_in
from elias.domain.run import SegmentState
from elias.ports.backend import Status
from elias_trainer.contract import FailureKind, Outcome, Result


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
    result = own_result(ended.out, ended.entry.key)
    if ended.entry.unwanted and not (result and result.outcome is Outcome.DONE):
        return Status(state=SegmentState.CANCELLED, accelerator=ended.entry.accelerator)
    if ended.problem is not None:
        return Status.failed(FailureKind.INFRASTRUCTURE, f"{ended.problem}; {what_came_home(ended.out)}", RESUME)
    if result is None:
        return _without_result(ended)
    return status_of_result(result, _accelerator(result, ended.entry), ended.entry.mismatch)


def status_by_hand(out: Path) -> Status:
    """Of a session that somebody else began, and of whose job only its result knows."""
    result = read_result(out)
    if result is None:
        return Status.failed(FailureKind.INFRASTRUCTURE, f"the session left no result; {what_came_home(out)}", RESUME)
    return status_of_result(result, result.accelerator)


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


def _without_result(ended: Ended) -> Status:
    for note in notes_in(ended.lines):
        if note.get("kind") == "lacks":
            package = note.get("package")
            fix = (
                f"pip download --no-deps {package}, into the folder of [backends.kaggle] wheels; then: elias run resume"
            )
            return Status.failed(FailureKind.USER, f"the notebook's image has no {package}", fix)
        if note.get("kind") == "wheels":
            fix = f"pip download --no-deps --only-binary=:all: --python-version {note.get('python')} … into that folder"
            message = f"a wheel of [backends.kaggle] wheels does not install there: {note.get('message')}"
            return Status.failed(FailureKind.USER, message, f"{fix}; then: elias run resume")
    session = ended.session
    kind = FailureKind.PREEMPTED if session.status == "CANCEL_ACKNOWLEDGED" else FailureKind.INFRASTRUCTURE
    how = f"the session ended {session.status} ({session.failure or 'no reason given'})"
    return Status.failed(kind, f"{how}; {what_came_home(ended.out)}", RESUME)


def _accelerator(result: Result, entry: Entry) -> str:
    """What the trainer computed on; where that was the CPU, what the machine had all the same."""
    return result.accelerator if result.accelerator != "cpu" else entry.accelerator or "cpu"
