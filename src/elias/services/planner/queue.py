"""Many runs over the places they share: a solver's bound and its sharing of the quotas, then one run after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from datetime import timedelta

from elias.domain.plan import Plan, QueuePlan
from elias.errors import MissingPackage
from elias.services.planner.calendar import Calendar
from elias.services.planner.problem import Place, Problem
from elias.services.planner.relaxed import Relaxation, Relaxed, Wish
from elias.services.planner.search import promising, undominated, worth
from elias.services.planner.single import Setting, plan_run, plan_setting
from elias.units import FREE, Money

WEEK = timedelta(days=7)
NEXT_BEST = 8
EFFORT = 40
"""Of the search for each run; there are many."""
WITH_SOLVER, WITHOUT = "HiGHS, then one run after another", "one run after another, with no proof (no solver installed)"


def plan_queue(problem: Problem) -> QueuePlan:
    """A plan for each run; as many in time as can be, then as cheap as can be.

    `bound` and `most_in_time` are proven by the solver. Without one the plan is made all the same, and says so.
    """
    calendar = Calendar(problem)
    whole = [Setting.of(problem, ask, calendar) for ask in problem.runs]
    settings = [_narrowed(setting) for setting in whole]
    try:
        relaxation = Relaxation([Wish.of(setting.task()) for setting in whole], calendar)
    except MissingPackage:
        plans = _best(problem, settings, [None])
        return _told(problem, QueuePlan(plans=plans, solver=WITHOUT))
    best = relaxation.most_in_time()
    plans = _best(problem, settings, [best, None])
    in_time = sum(plan.is_in_time is True for plan in plans)
    queue = QueuePlan(
        plans=plans,
        solver=WITH_SOLVER,
        most_in_time=max(in_time, best.most_in_time),
        bound=Money(int(relaxation.least_cost(in_time))),
    )
    return _told(problem, queue)


def at_once(plans: Sequence[Plan]) -> int:
    """The most segments that run at the same time."""
    spans = [(s.starts_at, s.ends_at or s.starts_at) for plan in plans for s in plan.segments]
    return max((sum(a <= start < b for a, b in spans) for start, _ in spans), default=0)


def _narrowed(setting: Setting) -> Setting:
    """To the places worth a look for this run, while all are free."""
    if not setting.lanes:
        return setting
    best = [lane.place for lane in promising(setting.task(), undominated(setting.lanes))]
    # the next best ones too: others may be quicker to take the best
    cheapest = [lane.place for lane in sorted(setting.lanes, key=worth)[:NEXT_BEST]]
    names = {place.key for place in [*best, *cheapest]}
    places = tuple(place for place in setting.problem.places if place.key in names)
    return replace(setting, problem=replace(setting.problem, places=places))


def _best(problem: Problem, settings: Sequence[Setting], guides: Sequence[Relaxed | None]) -> tuple[Plan, ...]:
    """Of each guide's plans: the most in time, the cheapest, the earliest done."""
    tried = [_insert(problem, settings, guide) for guide in guides]
    return min(tried, key=lambda plans: _worth(problem, plans))


def _worth(problem: Problem, plans: Sequence[Plan]) -> tuple[int, int, int, timedelta]:
    in_time = sum(plan.is_in_time is True for plan in plans)
    ends = [plan.ends_at - problem.now for plan in plans if plan.ends_at]
    cost = sum(plan.expected.micro_usd for plan in plans)
    return -in_time, -len(ends), cost, sum(ends, timedelta(0))


def _insert(problem: Problem, settings: Sequence[Setting], guide: Relaxed | None) -> tuple[Plan, ...]:
    """The most urgent first; what the guide gives of a quota to those still to come is left to them."""
    calendar = Calendar(problem)
    plans: dict[int, Plan] = {}
    for number in _by_urgency(settings):
        kept = _kept(guide, [n for n in range(len(settings)) if n not in plans and n != number])
        plan = _plan(settings[number], _less(calendar, kept))
        if plan.is_in_time is not True:
            # neither what is kept for others nor the narrow choice may make it late
            plan = _plan(replace(settings[number], problem=problem), calendar)
        plan = _within_weeks(problem, settings[number], calendar, plan, list(plans.values()))
        plans[number] = plan
        _book(problem, calendar, plan)
    return tuple(plans[number] for number in range(len(settings)))


def _by_urgency(settings: Sequence[Setting]) -> list[int]:
    return sorted(range(len(settings)), key=lambda n: (settings[n].deadline, settings[n].ask.run))


def _plan(setting: Setting, calendar: Calendar) -> Plan:
    return plan_setting(replace(Setting.of(setting.problem, setting.ask, calendar), effort=EFFORT))


def _kept(guide: Relaxed | None, others: Sequence[int]) -> dict[tuple[str, int], int]:
    kept: dict[tuple[str, int], int] = {}
    for other in others if guide else ():
        for period, span in guide.shares.get(other, {}).items():  # type: ignore[union-attr]
            kept[period] = kept.get(period, 0) + int(span)
    return kept


def _less(calendar: Calendar, kept: dict[tuple[str, int], int]) -> Calendar:
    if not kept:
        return calendar
    less = copy(calendar)
    less.left = {period: max(0, left - kept.get(period, 0)) for period, left in calendar.left.items()}
    return less


def _within_weeks(problem: Problem, setting: Setting, calendar: Calendar, plan: Plan, others: Sequence[Plan]) -> Plan:
    """Planned again with less money until no week reserves more than it may, at last with none."""
    budget = setting.ask.budget
    while problem.weekly_money is not None and (over := _over(problem, [*others, plan])) > FREE:
        if budget is None or budget <= FREE:
            return replace(
                plan, segments=(), is_in_time=False, reason=f"{problem.weekly_money} a week is spent already"
            )
        budget = min(budget, plan.reserve)
        budget = budget - over if budget > over else FREE
        plan = plan_run(problem, replace(setting.ask, budget=budget), calendar)
    return plan


def _over(problem: Problem, plans: Sequence[Plan]) -> Money:
    """By how much the worst week's reserves exceed what a week may have."""
    weeks: dict[int, Money] = {}
    for plan in plans:
        for segment in plan.segments:
            week = (segment.starts_at - problem.now) // WEEK
            weeks[week] = weeks.get(week, FREE) + segment.reserve
    most = max(weeks.values(), default=FREE)
    allowed = problem.weekly_money
    return most - allowed if allowed is not None and most > allowed else FREE


def _book(problem: Problem, calendar: Calendar, plan: Plan) -> None:
    keys = {id(place.offer): place.key for place in problem.places}
    for segment in plan.segments:
        start = calendar.at(segment.starts_at)
        end = start + (segment.span or timedelta(0)) // timedelta(microseconds=1)
        calendar.take(keys[id(segment.offer)], start, end)


def _told(problem: Problem, queue: QueuePlan) -> QueuePlan:
    return replace(queue, at_once=at_once(queue.plans), limited_by=tuple(_limits(problem, queue.plans)))


def _limits(problem: Problem, plans: Sequence[Plan]) -> Iterator[str]:
    """What these runs met: sessions, quotas, money, deadlines."""
    taken = {id(segment.offer) for plan in plans for segment in plan.segments}
    used = [place for place in problem.places if id(place.offer) in taken]
    for backend in sorted({place.offer.backend for place in used}):
        places = [place for place in used if place.offer.backend == backend]
        yield f"{backend}: {_sessions(problem, places)}"
        quota = next((place for place in places if place.offer.left is not None), None)
        if quota is not None and quota.offer.left is not None:
            yield f"{backend}: {_hours(quota.offer.left)} of its quota left{_until(quota)}"
    if problem.weekly_money is not None:
        yield f"money: at most {problem.weekly_money} reserved in a week"
    late = [plan.run or "" for plan in plans if not plan.is_in_time]
    if late:
        yield f"not in time: {', '.join(late)}"


def _sessions(problem: Problem, places: Sequence[Place]) -> str:
    sessions = {place.sessions_key: place.offer.concurrency for place in places}
    count = min(sum(sessions.values()), problem.session_caps.get(places[0].offer.backend, sum(sessions.values())))
    return f"{count} session{'s' * (count != 1)} at once"


def _until(place: Place) -> str:
    return f" until {place.offer.refreshes_at:%a %d %b %H:%M} UTC" if place.offer.refreshes_at else ""


def _hours(span: timedelta) -> str:
    return f"{span / timedelta(hours=1):.1f} h"
