"""How a segment ended that another machine carried out (`elias_trainer.carry`): from what came home of it."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

from elias.adapters.backends.last_words import last_words
from elias.adapters.backends.outcome import RESUME, own_result, status_of_result, what_came_home
from elias.adapters.backends.printed import notes_in
from elias.domain.run import SegmentState
from elias.ports.backend import Status
from elias_trainer.contract import FailureKind, Outcome


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
    vanished: str = "vanished with its supervisor, as when the machine restarts,"
    """What became of a trainer without an exit code."""
    lacks_fix: str = "install it there for the interpreter of `python`; elias doctor"


def status_of(ended: Ended) -> Status:
    """The final status; its times are left to the caller."""
    result = own_result(ended.out, ended.key)
    if ended.is_unwanted and not (result and result.outcome is Outcome.DONE):
        return Status(state=SegmentState.CANCELLED, accelerator=result.accelerator if result else None)
    if ended.problem is not None:
        return Status.failed(FailureKind.INFRASTRUCTURE, f"{ended.problem}; {what_came_home(ended.out)}", RESUME)
    if result is None:
        return _without_result(ended)
    return status_of_result(result, result.accelerator)


def _without_result(ended: Ended) -> Status:
    if ended.was_paused:  # before it had begun to train: there was no step to save
        return Status(state=SegmentState.CANCELLED)
    for kind, message in _notes(ended.log):
        if kind == "lacks":
            return Status.failed(FailureKind.USER, message, ended.lacks_fix)
        if kind == "stale":
            return Status.failed(FailureKind.INFRASTRUCTURE, f"the files changed there: {message}", RESUME)
    last = last_words(ended.log)
    said = f"; its last words: {last}" if last else ""
    message = f"the trainer {_manner(ended)} without a result; {what_came_home(ended.out)}{said}"
    return Status.failed(FailureKind.INFRASTRUCTURE, message, f"see {ended.log}; {RESUME}")


def _notes(log: Path) -> list[tuple[str, str]]:
    if not log.exists():
        return []
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [(str(note.get("kind")), str(note.get("message", ""))) for note in notes_in(lines)]


def _manner(ended: Ended) -> str:
    code = ended.code
    if code is None:
        return ended.vanished
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
