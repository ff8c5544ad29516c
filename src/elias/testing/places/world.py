"""What happens in a simulated world, drawn by its seed before anybody acts: the same for whatever is done in it."""

from __future__ import annotations

import hashlib
import math
import random
import threading
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

START = datetime(2026, 11, 30, tzinfo=UTC)
"""A Monday."""
HOUR = timedelta(hours=1)
WEEK = timedelta(weeks=1)


class WorldClock:
    """The true time of a simulation; it moves when everybody sleeps, and never takes any time."""

    def __init__(self, now: datetime = START) -> None:
        self._now = now
        self._lock = threading.Lock()

    def now(self) -> datetime:
        return self._now

    def sleep(self, span: timedelta) -> None:
        with self._lock:
            self._now += max(span, timedelta(0))


@dataclass
class NodeClock:
    """The node's own, which may be set wrong."""

    world: WorldClock
    skew: timedelta = timedelta(0)

    def now(self) -> datetime:
        return self.world.now() + self.skew

    def sleep(self, span: timedelta) -> None:
        self.world.sleep(span)


@dataclass(frozen=True, slots=True)
class Spell:
    """Something that lasts: an outage, an hour of inference."""

    begins: datetime
    ends: datetime

    def holds(self, at: datetime) -> bool:
        return self.begins <= at < self.ends


@dataclass(frozen=True, kw_only=True, slots=True)
class SpotProcess:
    """Share of the on-demand price: its logarithm is an Ornstein-Uhlenbeck process by the hour, cut at both ends.

    Spot prices of today's EC2 move slowly around a share of the list price; the figures here are assumed, not fitted.
    """

    mean: float = 0.35
    back: float = 0.02
    """Share of the way back to the mean, an hour."""
    noise: float = 0.03
    low: float = 0.2
    high: float = 0.9

    def draw(self, drawn: random.Random, hours: int) -> Sequence[float]:
        at, middle = math.log(self.mean), math.log(self.mean)
        found: list[float] = []
        for _ in range(hours):
            at += self.back * (middle - at) + drawn.gauss(0.0, self.noise)
            found.append(min(self.high, max(self.low, math.exp(at))))
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Inference:
    """When it wants this machine's GPU: office hours of so many days a week, and a share of the evenings."""

    days: int = 5
    opens: float = 9.0
    off: float = 1.0
    """Hours by which it may begin sooner or later."""
    hours: tuple[float, float] = (8.0, 10.0)
    evenings: float = 0.3
    """The share of evenings, from 20:30 to 22:00."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Every answer depends on the seed and the question alone, never on what was asked before."""

    seed: int
    weeks: int = 8
    spot: SpotProcess = SpotProcess()
    busy: Inference = Inference()
    _kept: dict[str, list[Spell]] = field(default_factory=dict)
    _prices: dict[str, Sequence[float]] = field(default_factory=dict)
    _moments: dict[str, list[datetime]] = field(default_factory=dict)

    @property
    def end(self) -> datetime:
        """Two weeks later than the last run begins, so that all of them end inside."""
        return START + (self.weeks + 2) * WEEK

    def random(self, *name: object) -> random.Random:
        """A stream of its own for each name."""
        text = "/".join(map(str, (self.seed, *name)))
        return random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]))

    def share(self, kind: str, at: datetime) -> float:
        """Spot price over on-demand price."""
        if kind not in self._prices:
            self._prices[kind] = self.spot.draw(self.random("spot", kind), (self.end - START) // HOUR + 1)
        prices = self._prices[kind]
        return prices[min(len(prices) - 1, max(0, (at - START) // HOUR))]

    def outages(self, place: str, every: timedelta, mean: timedelta) -> Sequence[Spell]:
        """A Poisson process of outages whose lengths are exponential."""
        if place not in self._kept:
            drawn, at, found = self.random("outage", place), START, list[Spell]()
            while (at := at + drawn.expovariate(1.0) * every) < self.end:
                ends = at + drawn.expovariate(1.0) * mean
                found.append(Spell(at, ends))
                at = ends
            self._kept[place] = found
        return self._kept[place]

    def interruption(self, pool: str, per_hour: float, after: datetime) -> datetime | None:
        """When the machine in that pool is next taken away; the same moment for whoever has it then."""
        if per_hour <= 0:
            return None
        if pool not in self._moments:
            drawn, at, found = self.random("interruption", pool), START, list[datetime]()
            while (at := at + drawn.expovariate(per_hour) * HOUR) < self.end:
                found.append(at)
            self._moments[pool] = found
        later = bisect_right(self._moments[pool], after)
        return self._moments[pool][later] if later < len(self._moments[pool]) else None

    def inference(self) -> Sequence[Spell]:
        """When inference has this machine's GPU."""
        if "inference" not in self._kept:
            drawn, found = self.random("inference"), list[Spell]()
            for day in range((self.end - START).days):
                midnight = START + timedelta(days=day)
                off, length = drawn.uniform(-self.busy.off, self.busy.off), drawn.uniform(*self.busy.hours)
                evening = drawn.random() < self.busy.evenings
                if midnight.weekday() < self.busy.days:
                    begins = midnight + (self.busy.opens + off) * HOUR
                    found.append(Spell(begins, begins + length * HOUR))
                if evening:
                    found.append(Spell(midnight + 20.5 * HOUR, midnight + 22 * HOUR))
            self._kept["inference"] = sorted(found, key=lambda spell: spell.begins)
        return self._kept["inference"]

    def quota(self, week: int, least: timedelta, extra: timedelta) -> timedelta:
        """Kaggle's floats: it gives at least so much, and often more."""
        return least + self.random("quota", week).choice([0.0, 0.0, 0.5, 1.0]) * extra


def spell_at(spells: Sequence[Spell], at: datetime) -> Spell | None:
    number = bisect_right(spells, at, key=lambda spell: spell.begins) - 1
    return spells[number] if number >= 0 and spells[number].holds(at) else None


def next_spell(spells: Sequence[Spell], at: datetime) -> Spell | None:
    """The first one that begins after `at`."""
    number = bisect_right(spells, at, key=lambda spell: spell.begins)
    return spells[number] if number < len(spells) else None
