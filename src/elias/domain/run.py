"""Room 4. A run is a chain of segments; a segment is bounded, and ends in a checkpoint or the finished adapter."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from elias.domain.label import Label
from elias.units import FREE, Money
from elias_trainer.contract import BaseModel, Digest, FailureKind, Recipe

HYBRID = "hybrid"
"""The strategy that takes any place; each other one is the name of its place."""


class RunState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    """For a quota, a budget or a place; `reason` says until when."""
    PAUSED = "paused"
    """By the user, or at a cap on money, which `reason` names; `elias run resume` goes on."""
    DONE = "done"
    FAILED = "failed"
    """Stopped by what trying again would not cure; once that is mended, `elias run resume` goes on."""
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in (RunState.DONE, RunState.CANCELLED)

    @property
    def is_standing(self) -> bool:
        """Nothing more happens by itself."""
        return self in (RunState.PAUSED, RunState.DONE, RunState.FAILED, RunState.CANCELLED)


class SegmentState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    """Ended with a checkpoint, the run not done."""
    DONE = "done"
    """Ended with the finished adapter."""
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self not in (SegmentState.PENDING, SegmentState.RUNNING)


class Wish(StrEnum):
    """What the user last asked of a run; the coordinator reads it at every poll."""

    GO = "go"
    PAUSE = "pause"
    CANCEL = "cancel"


LEAST_CHANCE = 0.5
"""One below that is none to plan with."""
MOST_STEPS = 100_000_000
"""Of a run; more would not end within anybody's life."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """How far a run may go."""

    train_for: timedelta | None = None
    """All segments together; the adapter is what was reached by then."""
    by: datetime | None = None
    chance: float | None = None
    """With which `by` and the budget are to be kept; None is the planner's own."""
    budget: Money | None = None
    segment: timedelta | None = None
    """The longest single segment; None leaves it to the backend."""
    segment_steps: int | None = None
    """The most optimizer steps in a segment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    id: str
    created_at: datetime
    strategy: str
    """`local`, `kaggle`, `sagemaker`, `hybrid`, or the name of any backend."""
    base: BaseModel
    recipe: Recipe
    corpus: Digest
    label: Label
    bounds: Bounds = field(default_factory=Bounds)
    checkpoint_every: timedelta | None = None
    """None is the node's own setting."""
    instance: str | None = None
    """The only kind of machine that it is to be rented, as its place calls it, such as `ml.g5.xlarge`."""
    state: RunState = RunState.QUEUED
    wish: Wish = Wish.GO
    reason: str | None = None
    """One line for people: why it waits, was paused, or failed."""
    failure: FailureKind | None = None
    """Of a run that failed between its segments; a segment knows its own."""
    artifact: Digest | None = None
    node: str | None = None
    """The engine that carries it out, where several share a store."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A whole checkpoint that came home."""

    step: int
    digest: Digest
    path: str
    """Relative to the run's folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentFailure:
    kind: FailureKind
    message: str
    fix: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """`key` is all a backend needs to know one segment from another: submitting it twice is submitting it once."""

    run: str
    number: int
    """1, 2, 3, … within the run."""
    backend: str
    offer: str | None = None
    """The `variant` of the offer it was planned on; None in a segment written down before offers had one."""
    state: SegmentState = SegmentState.PENDING
    planned_for: timedelta | None = None
    start: Checkpoint | None = None
    end: Checkpoint | None = None
    handle: str | None = None
    """The backend's own name for it, once submitted."""
    sent_at: datetime | None = None
    """Of one that costs money: when it was first sent. Without a `handle` nobody knows yet what became of that."""
    submitted_at: datetime | None = None
    """When the place took it; from then to the trainer's first word is its start delay."""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    cost: Money = FREE
    failure: SegmentFailure | None = None

    @property
    def key(self) -> str:
        return f"{self.run}-{self.number:04d}"
