"""Room 3. A plan: which segments go where and when, at what cost and chance, why not elsewhere, and what would help."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from elias.domain.offer import Offer
from elias.units import FREE, Money


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedSegment:
    offer: Offer
    starts_at: datetime
    """When the place begins with it; it is sent there `Offer.start_delay` before."""
    span: timedelta | None
    """Reserved, and never longer than needed; None runs to the end of the run."""
    reserve: Money = FREE
    """What it costs at the very most, at the on-demand price."""
    expected: Money = FREE
    """What it will probably cost."""
    steps: int | None = None
    """Optimizer steps that fit into `span` with the wanted probability; None where nobody knows how long one takes."""
    chance: float | None = None
    """That its steps are done within `span`."""

    @property
    def ends_at(self) -> datetime | None:
        return None if self.span is None else self.starts_at + self.span


@dataclass(frozen=True, kw_only=True, slots=True)
class NotTaken:
    offer: Offer
    why: str


class Loosens(StrEnum):
    BUDGET = "budget"
    DEADLINE = "deadline"
    PROBABILITY = "probability"


@dataclass(frozen=True, kw_only=True, slots=True)
class Raised:
    """A limit on money, as it would have to be."""

    limit: Money
    setting: str | None = None
    """What `elias budget set` calls it; None is the run's own budget."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Relaxation:
    """One bound, loosened just so far that a plan exists."""

    loosens: Loosens
    words: str
    """Such as `$2.10 more` or `1 day 3 h later`."""
    budget: Money | None = None
    """All that it would take."""
    raised: tuple[Raised, ...] = ()
    """What has to be raised for that, of the run and of the node."""
    deadline: datetime | None = None
    probability: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class WhatIf:
    """A point of the curve of cost against deadline; without `ends_at` no plan keeps this deadline."""

    deadline: datetime
    ends_at: datetime | None = None
    expected: Money | None = None
    reserve: Money | None = None
    chance: float | None = None
    places: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    segments: tuple[PlannedSegment, ...]
    """In order; empty when nothing can take the run now."""
    not_taken: tuple[NotTaken, ...] = ()
    wait_until: datetime | None = None
    """When it is worth planning again, where `segments` is empty or the first of them is not to be begun yet."""
    reason: str | None = None
    """Why `segments` is empty, or what is waited for."""
    run: str | None = None
    deadline: datetime | None = None
    budget: Money | None = None
    """Each segment reserves no more than is left of it by then, of spot by today's price."""
    wanted: float | None = None
    """The probability with which the deadline is to be kept."""
    is_in_time: bool | None = None
    """Whether it keeps deadline and budget with the wanted probability; None where nobody knows a step's time."""
    chance: float | None = None
    """Of having all steps done by the deadline, or by its own end where there is none; never overstated."""
    bound: Money | None = None
    """No plan that keeps the same rules is expected to cost less."""
    sooner: tuple[WhatIf, ...] = ()
    relaxations: tuple[Relaxation, ...] = ()
    limited_by: tuple[str, ...] = ()
    """Caps of a day or a month that the planner does not see and that may delay it, one line each."""

    @property
    def expected(self) -> Money:
        return sum((segment.expected for segment in self.segments), FREE)

    @property
    def reserve(self) -> Money:
        """The worst case: all spans used up, at the on-demand price, or its budget, at which it pauses."""
        most = sum((segment.reserve for segment in self.segments), FREE)
        return most if self.budget is None else min(most, self.budget)

    @property
    def costs_money(self) -> bool:
        return any(segment.offer.is_paid for segment in self.segments)

    @property
    def ends_at(self) -> datetime | None:
        return self.segments[-1].ends_at if self.segments else None


@dataclass(frozen=True, kw_only=True, slots=True)
class QueuePlan:
    """Several runs planned together over the places they share."""

    plans: tuple[Plan, ...]
    """One a run, in the order of the runs; `Plan.run` names it."""
    solver: str
    """What made it: `HiGHS and insertion`, or `insertion alone`."""
    bound: Money | None = None
    """No plan that has the same runs in time spends less on them; None where no solver proved one."""
    most_in_time: int | None = None
    """No plan has more runs in time."""
    at_once: int = 0
    """The most segments that run at the same time."""
    limited_by: tuple[str, ...] = ()
    """What keeps it from being more, one line each."""

    @property
    def expected(self) -> Money:
        return sum((plan.expected for plan in self.plans), FREE)

    @property
    def in_time(self) -> int:
        return sum(plan.is_in_time is True for plan in self.plans)

    @property
    def gap(self) -> float | None:
        """How much of the cost of the runs in time might be saved at most, as a share; None is not proven."""
        if self.bound is None:
            return None
        cost = sum(plan.expected.micro_usd for plan in self.plans if plan.is_in_time)
        return 0.0 if cost <= self.bound.micro_usd else 1 - self.bound.micro_usd / cost


def percent(chance: float) -> str:
    """Rounded down: nothing is told to be surer than it is."""
    return f"{math.floor(chance * 100 + 1e-9)}%"
