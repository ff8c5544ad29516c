"""The best plan of one run, with what a person wants to know of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from elias.domain.plan import NotTaken, Plan, PlannedSegment, percent
from elias.services.planner.calendar import Calendar
from elias.services.planner.lanes import HOUR, Lane, make_lanes, used_up, why_closed
from elias.services.planner.problem import Problem, RunAsk
from elias.services.planner.risk import chance, chance_of
from elias.services.planner.search import search
from elias.services.planner.task import MOST_PARTIALS, Aim, Found, Task
from elias.units import Money, rfc3339

NO_LIMIT = 1 << 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """A run among its places, as the search sees it."""

    problem: Problem
    ask: RunAsk
    calendar: Calendar
    lanes: tuple[Lane, ...]
    never: dict[str, str]
    """Place -> why it can not be had at all."""
    effort: int = MOST_PARTIALS

    @classmethod
    def of(cls, problem: Problem, ask: RunAsk, calendar: Calendar | None = None) -> Setting:
        calendar = calendar or Calendar(problem)
        lanes, never = make_lanes(problem, ask, calendar)
        return cls(problem=problem, ask=ask, calendar=calendar, lanes=tuple(lanes), never=never)

    def anew(self, calendar: Calendar) -> Setting:
        """With what is free by another calendar; all else was computed once."""
        lanes = [replace(lane, openings=calendar.openings(lane.place, self.ask.ready)) for lane in self.lanes]
        closed = {lane.place.key: why_closed(lane.place) for lane in lanes if not lane.openings}
        open_ones = tuple(lane for lane in lanes if lane.openings)
        return replace(self, calendar=calendar, lanes=open_ones, never={**self.never, **closed})

    @property
    def deadline(self) -> int:
        """In microseconds, and never beyond the horizon."""
        ask, end = self.ask, self.calendar.end
        return end if ask.deadline is None else min(end, self.calendar.at(ask.deadline))

    @property
    def budget(self) -> int:
        return NO_LIMIT if self.ask.budget is None else self.ask.budget.micro_usd

    def task(self, aim: Aim = Aim.CHEAPEST, *, deadline: int | None = None, budget: int | None = None) -> Task:
        return Task(
            lanes=self.lanes,
            steps=self.ask.steps,
            deadline=self.deadline if deadline is None else deadline,
            budget=self.budget if budget is None else budget,
            left=self.calendar.left,
            ends=self.calendar.ends,
            aim=aim,
            effort=self.effort,
        )


def plan_run(problem: Problem, ask: RunAsk, calendar: Calendar | None = None) -> Plan:
    """The cheapest plan that keeps deadline and budget; where there is none, the soonest within the budget.

    Then `is_in_time` is False. With no segments at all, `reason` and `wait_until` say why and until when.
    """
    return plan_setting(Setting.of(problem, ask, calendar))


def plan_setting(setting: Setting) -> Plan:
    """As `plan_run`, in a setting made before."""
    if (plan := plan_in_time(setting)) is not None:
        return plan
    return plan_late(setting)


def plan_late(setting: Setting) -> Plan:
    """The soonest within the budget, where the deadline cannot be kept; or nowhere."""
    late = search(setting.task(Aim.SOONEST, deadline=setting.calendar.end))
    return nowhere(setting) if late is None else to_plan(setting, late, is_in_time=False)


def plan_in_time(setting: Setting) -> Plan | None:
    """The cheapest plan that keeps deadline and budget."""
    found = search(setting.task())
    return None if found is None else to_plan(setting, found, is_in_time=True)


def to_plan(setting: Setting, found: Found, *, is_in_time: bool) -> Plan:
    ask = setting.ask
    segments = tuple(planned(setting, found, n) for n in range(len(found.pieces)))
    likely = chance(found, None if ask.deadline is None else setting.deadline)
    plan = Plan(
        segments=segments,
        run=ask.run,
        deadline=ask.deadline,
        budget=ask.budget,
        wanted=ask.wanted,
        is_in_time=is_in_time,
        # the search's own bound on the risk holds too; the better of two that are both safe
        chance=round(max(ask.wanted, likely) if is_in_time else likely, 4),
        bound=Money(found.bound) if is_in_time else None,
    )
    begins = segments[0].starts_at - begin_delay(segments[0], setting)
    if (until := segments[0].offer.passes_at) is not None:
        begins = max(begins, until)
    if begins > setting.problem.now:
        return replace(plan, wait_until=begins, reason=waits_for(plan))
    return plan


def planned(setting: Setting, found: Found, number: int) -> PlannedSegment:
    piece = found.pieces[number]
    lane = found.lanes[piece.lane]
    return PlannedSegment(
        offer=lane.place.offer,
        starts_at=setting.problem.now + timedelta(microseconds=piece.start),
        span=timedelta(microseconds=piece.end - piece.start),
        reserve=Money(lane.reserve(piece.steps)),
        expected=Money(lane.expected(piece.steps)),
        steps=piece.steps,
        chance=round(max(chance_of(found, piece), setting.ask.wanted), 4),
    )


def begin_delay(segment: PlannedSegment, setting: Setting) -> timedelta:
    """From sending it there to its start: what the plan allows for upload, queue and failures."""
    lane = next(lane for lane in setting.lanes if lane.place.offer is segment.offer)
    return timedelta(microseconds=lane.delay + lane.slack)


def waits_for(plan: Plan) -> str:
    first = plan.segments[0]
    cost = "free" if first.offer.hourly.micro_usd == 0 else f"for {first.expected}"
    why = f"{first.offer.refused}; " if first.offer.refused else ""
    likely = percent(plan.chance or 0.0)
    late = "" if plan.deadline is None else f", and in time for {plan.deadline:%a %d %b %H:%M} with {likely}"
    return f"waiting for {first.offer.backend} until {first.starts_at:%a %d %b %H:%M} UTC: {why}{cost}{late}"


def nowhere(setting: Setting) -> Plan:
    """No segments, with each place's reason and the instant at which it is worth asking again."""
    places = setting.problem.places
    little = {lane.place.key: _too_little(setting, lane) for lane in setting.lanes}
    reasons = {place.key: setting.never.get(place.key) or little[place.key] for place in places}
    refreshes = [
        place.offer.refreshes_at
        for place in places
        if place.offer.refreshes_at and place.offer.left is not None and place.offer.left < setting.ask.shortest
    ]
    each = dict.fromkeys(f"{place.offer.backend}: {reasons[place.key]}" for place in places)
    reason = "; ".join(each) or "no place is configured"
    return Plan(
        segments=(),
        not_taken=tuple(NotTaken(offer=place.offer, why=reasons[place.key]) for place in places),
        wait_until=min((at for at in refreshes if at > setting.problem.now), default=None),
        reason=reason,
        run=setting.ask.run,
        deadline=setting.ask.deadline,
        wanted=setting.ask.wanted,
        is_in_time=False,
        chance=0.0,
    )


def _too_little(setting: Setting, lane: Lane) -> str:
    offer, budget = lane.place.offer, setting.ask.budget
    if offer.left is not None and offer.left < setting.ask.shortest and offer.refreshes_at:
        return f"{used_up(offer)} until {rfc3339(offer.refreshes_at)}"
    if budget is not None and lane.reserve(1) > budget.micro_usd:
        return f"a first step there reserves {Money(lane.reserve(1))}, and {budget} may be spent"
    hours = lane.step * setting.ask.steps / HOUR
    return f"the {setting.ask.steps} steps left take it about {hours:.1f} h, more than its limits and the budget hold"
