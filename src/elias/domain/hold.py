"""Room 3. Why a place is not to be taken just now, though it could; and how inference is doing, which decides that."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta


@dataclass(frozen=True, kw_only=True, slots=True)
class Hold:
    why: str
    since: datetime
    until: datetime
    """When asking again is worth it, at the earliest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Demand:
    """What the gateway has to do at one moment."""

    depth: int
    """Requests that wait for a turn or are being answered."""
    slowest: timedelta
    """The longest that one waited for the first piece of its answer, lately; one that still waits counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class YieldRule:
    """When training on this machine makes way for inference."""

    depth: int = 2
    latency: timedelta = timedelta(seconds=10)
    calm_for: timedelta = timedelta(minutes=1)
    """Both bounds must have been kept for so long before training comes back."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pressure:
    """With hysteresis: it begins with the first moment past a bound, and ends after a long enough calm."""

    rule: YieldRule
    since: datetime | None = None
    """Of the pressure; None is calm."""
    last: datetime | None = None
    """When a bound was passed last."""
    why: str = ""

    def after(self, demand: Demand, now: datetime) -> Pressure:
        """What it is once `demand` was seen."""
        why = past_bounds(demand, self.rule)
        if why is not None:
            return replace(self, since=self.since or now, last=now, why=why)
        if self.last is None or now - self.last >= self.rule.calm_for:
            return Pressure(rule=self.rule)
        return self

    def hold(self) -> Hold | None:
        if self.since is None or self.last is None:
            return None
        calm = f"{self.rule.calm_for.total_seconds():g} s"
        why = f"inference needs this machine: {self.why}; goes on after {calm} of calm"
        return Hold(why=why, since=self.since, until=self.last + self.rule.calm_for)


def past_bounds(demand: Demand, rule: YieldRule) -> str | None:
    """Which bound is passed, in words."""
    if demand.depth > rule.depth:
        return f"{demand.depth} requests at the gateway, more than {rule.depth}"
    if demand.slowest > rule.latency:
        waited, bound = demand.slowest.total_seconds(), rule.latency.total_seconds()
        return f"an answer took {waited:.1f} s to begin, more than {bound:g} s"
    return None
