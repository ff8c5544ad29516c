"""From a run, its past and its places' offers to the problem that the planner solves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from elias.domain.offer import Offer
from elias.domain.plan import Plan
from elias.domain.run import Run
from elias.domain.spans import without
from elias.services.estimate import Forecast
from elias.services.planner.explain import explained
from elias.services.planner.problem import HORIZON, Commitment, Pace, Place, Problem, RunAsk, Window
from elias.services.sightings import Seen
from elias.units import Money

WANTED = 0.9
"""The probability with which a deadline is to be kept, where nobody says another."""
STAYS_OPEN = timedelta(minutes=30)
"""What can be had now, though it is usually taken at this hour."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sight:
    """An offer, how long the run's work takes there, and what its quota holds after a refresh."""

    offer: Offer
    forecast: Forecast
    refill: timedelta | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    run: Run
    now: datetime
    sights: Sequence[Sight]
    budget: Money | None
    """None takes nothing that costs money."""
    seen: Seen = field(default_factory=Seen)
    wanted: float = WANTED
    checkpoint_every: timedelta = timedelta(minutes=5)
    commitments: tuple[Commitment, ...] = ()
    """Sessions of other runs, and what they mean to begin."""
    ready: datetime | None = None
    """When the segment under way ends; None where there is none."""
    rest: int | None = None
    """Steps to do after it."""
    doubts: Mapping[str, datetime] = field(default_factory=dict)
    """Place -> when it is believed to open, which said that it would have by now."""

    @property
    def steps(self) -> int | None:
        """Left to do; None where nobody knows."""
        if self.rest is not None:
            return self.rest
        return next((s.forecast.steps for s in self.sights if s.forecast.steps is not None), None)

    def problem(self) -> Problem | None:
        """None where nobody knows how much there is to do, where it is done, or where it ends with its time."""
        if not self.steps or self.run.bounds.train_for is not None:
            return None
        names = _names([sight.offer for sight in self.sights])
        places = tuple(self._place(sight, name) for sight, name in zip(self.sights, names, strict=True))
        paces = {name: _pace(sight.forecast) for sight, name in zip(self.sights, names, strict=True)}
        return Problem(now=self.now, places=places, runs=(self.ask(paces),), commitments=self.commitments)

    def ask(self, paces: Mapping[str, Pace]) -> RunAsk:
        bounds = self.run.bounds
        return RunAsk(
            run=self.run.id,
            label=self.run.label,
            steps=self.steps or 0,
            paces=paces,
            deadline=bounds.by,
            wanted=self.wanted,
            budget=self.budget,
            ready=self.ready,
            longest=bounds.segment,
            most_steps=bounds.segment_steps,
        )

    def _place(self, sight: Sight, name: str) -> Place:
        reliability = self.seen.of(sight.offer.backend)
        return Place(
            offer=sight.offer,
            name=name,
            refill=sight.refill,
            windows=_windows(sight.offer, self.now),
            not_before=self.doubts.get(place_name(sight.offer.backend, sight.offer.variant)),
            # a rate that nobody has seen is not planned with
            failure_rate=reliability.failure_rate if reliability.segments else 0.0,
            loss=min([self.checkpoint_every, *_remaining(sight.forecast)]),
            # several instance types of one account have a quota each
            sessions=name if sight.offer.variant else None,
        )


def plan_ahead(outlook: Outlook) -> Plan | None:
    """The whole plan with its explanations; None where nobody knows how much there is to do, or where time decides."""
    problem = outlook.problem()
    return None if problem is None else explained(problem, problem.runs[0])


def queue_problem(
    outlooks: Sequence[Outlook], weekly_money: Money | None = None, commitments: Iterable[Commitment] = ()
) -> Problem:
    """All these runs over the places they share; a run that nobody knows the work of is left out."""
    places: dict[str, Place] = {}
    asks: list[RunAsk] = []
    for outlook in outlooks:
        own = outlook.problem()
        if own is None:
            continue
        takes = {place.key for place in own.places if place.offer.refused is None or place.offer.passes_at}
        paces = {name: pace for name, pace in own.runs[0].paces.items() if name in takes}
        asks.append(replace(own.runs[0], paces=paces))
        for place in own.places:
            # one run's refusal is not another's, but for one that passes: that is the place's own
            refused = place.offer.refused if place.offer.passes_at else None
            places.setdefault(place.key, replace(place, offer=replace(place.offer, refused=refused)))
    now = min(outlook.now for outlook in outlooks)
    return Problem(
        now=now,
        places=tuple(places.values()),
        runs=tuple(asks),
        weekly_money=weekly_money,
        commitments=tuple(commitments),
    )


def _windows(offer: Offer, now: datetime) -> tuple[Window, ...]:
    """Its hours, less those in which it is usually taken; what is open now stays so for a while."""
    until = now + HORIZON
    spans = list(offer.hours.spans(now, until)) if offer.hours else [(now, until)]
    spells = list(offer.habit.usually_taken(now, until)) if offer.habit else []
    if not offer.hours and not spells:
        return ()
    if spells and not offer.refused and spells[0][0] < (later := now + STAYS_OPEN):
        spells[:1] = [(later, spells[0][1])] if spells[0][1] > later else []
    return tuple(Window(opens=opens, closes=closes) for opens, closes in without(spans, spells))


def _pace(forecast: Forecast) -> Pace:
    told = forecast.overheads
    return Pace(step=forecast.step, start_up=told.start_up.plus(told.checkpoint))


def _remaining(forecast: Forecast) -> list[timedelta]:
    """No more is ever lost than there is to do."""
    return [] if forecast.remaining is None else [timedelta(seconds=forecast.remaining.high)]


def place_name(backend: str, variant: str | None) -> str:
    return "/".join(filter(None, (backend, variant)))


def _names(offers: Sequence[Offer]) -> list[str]:
    """Each its own: backend and variant, and a number where that is not enough."""
    found: list[str] = []
    for offer in offers:
        name = place_name(offer.backend, offer.variant)
        count = sum(other == name or other.startswith(f"{name} #") for other in found)
        found.append(f"{name} #{count + 1}" if count else name)
    return found
