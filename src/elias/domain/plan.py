"""Room 3. A plan: which segment goes where next, and why not elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from elias.domain.offer import Offer
from elias.units import FREE, Money


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedSegment:
    offer: Offer
    starts_at: datetime
    span: timedelta | None
    """None runs to the end of the run."""
    reserve: Money = FREE


@dataclass(frozen=True, kw_only=True, slots=True)
class NotTaken:
    offer: Offer
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    segments: tuple[PlannedSegment, ...]
    """In order; empty when nothing can take the run now."""
    not_taken: tuple[NotTaken, ...] = ()
    wait_until: datetime | None = None
    """When it is worth planning again, where `segments` is empty."""
    reason: str | None = None
    """Why `segments` is empty."""
