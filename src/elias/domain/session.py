"""Room 1. A session: one piece of work as it happened, what it is worth, and who may see it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from elias.domain.label import Label
from elias_trainer.contract import canonical_json, digest_bytes

REWARD_ONE_PPM = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One thing said or done in a session."""

    kind: str
    """`message`, `task` (what was asked for), `solution` (what answered it), `test` (what can check it), `context`."""
    text: str
    role: str | None = None
    """`system`, `user`, `assistant` or `tool`, for a message."""
    name: str | None = None
    """What `text` belongs to: a file, a function, a commit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """Something observed about a session's outcome that anyone could observe again."""

    kind: str
    """`lines_survived`, `doctests`, `marked`, …"""
    passed: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.passed <= self.total or self.total == 0:
            raise ValueError(f"evidence {self.kind}: {self.passed} of {self.total}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    id: str
    """From `session_id`: the same content has the same id wherever it was captured."""
    source: str
    """The name of the session source: `code`, `git`, `chat`, …"""
    title: str
    taken_at: datetime
    """When the work was done where that is known, else when it was captured."""
    events: tuple[Event, ...]
    evidence: tuple[Evidence, ...] = ()
    origin: Mapping[str, str]
    """Where it came from, for people: path, repository, commit, line."""
    stage: int | None = None
    """Tank Building stage, 1 to 4."""
    label: Label = Label.PRIVATE

    @property
    def reward_ppm(self) -> int | None:
        return reward_ppm(self.evidence)


def session_id(source: str, events: Iterable[Event]) -> str:
    """32 hex digits from what was said and done; label, stage, evidence and time are about it, not of it."""
    content = [[e.kind, e.role, e.name, e.text] for e in events]
    return digest_bytes(canonical_json([source, content])).hex[:32]


def reward_ppm(evidence: Iterable[Evidence]) -> int | None:
    """Passed over total across all evidence, in parts per million; None where nothing was observed."""
    seen = tuple(evidence)
    if not seen:
        return None
    shares = [e.passed * REWARD_ONE_PPM // e.total for e in seen]
    return sum(shares) // len(shares)
