"""What is to be planned: runs with work left, places with their rules, and what is taken already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from elias.domain.label import Label
from elias.domain.offer import Offer
from elias.domain.speed import Estimate
from elias.units import Money

SHORTEST = timedelta(minutes=2)
"""Nothing shorter is reserved: below this a segment is spent on loading the base."""
HORIZON = timedelta(days=56)
NOTHING = Estimate(low=0.0, likely=0.0, high=0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    opens: datetime
    closes: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """An offer, and what else decides when and for how much it can be had."""

    offer: Offer
    name: str = ""
    """One of its own in a problem; empty is backend and variant."""
    not_before: datetime | None = None
    """When one that refuses for now is believed to take anything at the earliest, where its own word is not."""
    windows: tuple[Window, ...] = ()
    """When it can be had, in order, not overlapping; none is always."""
    quota: str | None = None
    """Whose hours `offer.left` are; None is the backend's own, shared by all its places."""
    refill: timedelta | None = None
    """What the quota holds after each refresh; None counts on nothing after the first."""
    refresh_every: timedelta = timedelta(days=7)
    sessions: str | None = None
    """Whose concurrency `offer.concurrency` is; None is the backend's own, shared by all its places."""
    upload: timedelta = timedelta(0)
    """Before the session, on top of `offer.start_delay`; neither billed nor counted."""
    loss: timedelta = timedelta(minutes=5)
    """Work lost with a session that is interrupted or fails: what was done since the last checkpoint that came home."""
    failure_rate: float = 0.0
    """Share of segments that end with an error, as seen here."""

    @property
    def key(self) -> str:
        return self.name or "/".join(filter(None, (self.offer.backend, self.offer.variant)))

    @property
    def takes_from(self) -> datetime | None:
        """When a segment may start there at the earliest, where its place refuses for now; None is at once."""
        until = self.offer.passes_at
        return max(until, self.not_before or until) + self.offer.start_delay + self.upload if until else None

    @property
    def quota_key(self) -> str:
        return self.quota or self.offer.backend

    @property
    def sessions_key(self) -> str:
        return self.sessions or self.offer.backend


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How long a run's work takes on a place."""

    step: Estimate
    """Seconds."""
    start_up: Estimate = NOTHING
    """Seconds of a session before its first step and after its last: the base, the checkpoint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunAsk:
    """A run with work left."""

    run: str
    label: Label
    steps: int
    """Optimizer steps left, at least 1."""
    paces: Mapping[str, Pace]
    """By `Place.key`; a place that is not in it is not taken."""
    deadline: datetime | None = None
    wanted: float = 0.9
    """The probability with which the deadline is to be kept."""
    budget: Money | None = None
    """For all that is reserved; None has no budget, and takes nothing that costs money."""
    ready: datetime | None = None
    """When what it trains on now ends: nothing begins before that; None is at once."""
    shortest: timedelta = SHORTEST
    longest: timedelta | None = None
    """Of a segment."""
    most_steps: int | None = None
    """In a segment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Commitment:
    """A segment that is running or planned, which the places' limits have to hold besides."""

    place: str
    starts_at: datetime
    span: timedelta
    is_in_quota: bool = False
    """Whether `offer.left` has it taken off already, as a running one's is."""
    run: str | None = None
    """Whose plan it is, where it has not begun."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    now: datetime
    places: tuple[Place, ...]
    runs: tuple[RunAsk, ...]
    horizon: timedelta = HORIZON
    """How far ahead anything is planned."""
    session_caps: Mapping[str, int] = field(default_factory=dict)
    """Backend -> the most sessions at once over all its places, where the account has such a cap."""
    commitments: tuple[Commitment, ...] = ()
    weekly_money: Money | None = None
    """The most that all runs together may reserve in any week from `now`; None leaves it to their budgets."""

    def __post_init__(self) -> None:
        keys = [place.key for place in self.places]
        if len(set(keys)) < len(keys):
            twice = sorted({key for key in keys if keys.count(key) > 1})
            raise ValueError(f"two places have one name: {', '.join(twice)}")
