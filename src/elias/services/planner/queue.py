"""Many runs over the places they share: a solver's bound and its sharing of the quotas, then one run after another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from datetime import timedelta

from elias.domain.plan import Plan, QueuePlan
from elias.errors import MissingPackage
from elias.services.planner.calendar import Calendar
from elias.services.planner.choice import promising, undominated, worth
from elias.services.planner.problem import Place, Problem
from elias.services.planner.relaxed import Relaxation, Relaxed, Unsolved, Wish
from elias.services.planner.single import Setting, plan_in_time, plan_late, plan_run
from elias.units import FREE, Money

WEEK = timedelta(days=7)
NEXT_BEST = 8
EFFORT, BEST_EFFORT = 40, 120
"""Of the search for each run: there are many; and where one is planned again."""
MANY = 60
"""Runs, above which the queue is filled once, as the solver shares the quotas out."""
TRIES, MOVED = 400, 2
"""To improve a queue of one run, fewer for longer ones; and how many runs make room for another at most."""
WITH_SOLVER = "HiGHS, then one run after another"
WITHOUT = "one run after another, with no proof"


def plan_queue(problem: Problem, tries: int = TRIES) -> QueuePlan:
    """A plan for each run; as many in time as can be, then as cheap as can be.

    `bound` and `most_in_time` are proven by the solver. Without one the plan is made all the same, and says so.
    `tries` divided by the number of runs is how many of them are tried to be planned better.
    """
    calendar = Calendar(problem)
    settings = [Setting.of(problem, ask, calendar) for ask in problem.runs]
    try:
        queue = _proven(problem, settings, calendar, tries)
    except (MissingPackage, Unsolved) as error:
        why = "HiGHS did not solve it"
        if isinstance(error, MissingPackage):
            why = f"HiGHS is not installed ({error.fix})"
        queue = QueuePlan(plans=_best(problem, settings, [None], tries), solver=f"{WITHOUT}: {why}")
    return _told(problem, queue)


def _proven(problem: Problem, settings: Sequence[Setting], calendar: Calendar, tries: int) -> QueuePlan:
    """Raises MissingPackage, Unsolved."""
    relaxation = Relaxation([Wish.of(setting.task()) for setting in settings], calendar)
    best = relaxation.most_in_time()
    by_urgency_alone = replace(best, payers=frozenset())
    plans = _best(problem, settings, [best, by_urgency_alone, None] if len(settings) <= MANY else [best], tries)
    in_time = frozenset(n for n, plan in enumerate(plans) if plan.is_in_time)
    return QueuePlan(
        plans=plans,
        solver=WITH_SOLVER,
        most_in_time=max(len(in_time), best.most_in_time),
        bound=Money(int(relaxation.least_cost(in_time))),
    )


def at_once(plans: Sequence[Plan]) -> int:
    """The most segments that run at the same time."""
    spans = [(s.starts_at, s.ends_at or s.starts_at) for plan in plans for s in plan.segments]
    return max((sum(a <= start < b for a, b in spans) for start, _ in spans), default=0)


def _narrowed(setting: Setting) -> Setting:
    """To the places worth a look for this run, while all are free."""
    if not setting.lanes:
        return setting
    best = [lane.place for lane in next(promising(setting.task(), undominated(setting.lanes)))]
    # the next best ones too: others may be quicker to take the best
    cheapest = [lane.place for lane in sorted(setting.lanes, key=worth)[:NEXT_BEST]]
    names = {place.key for place in [*best, *cheapest]}
    return replace(setting, lanes=tuple(lane for lane in setting.lanes if lane.place.key in names))


def _best(
    problem: Problem, settings: Sequence[Setting], guides: Sequence[Relaxed | None], tries: int
) -> tuple[Plan, ...]:
    """Of each guide's plans the best, improved: the most in time, the cheapest, the earliest done."""
    tried = [_insert(problem, settings, guide) for guide in guides]
    return _improved(problem, settings, min(tried, key=lambda plans: _worth(problem, plans)), tries)


def _worth(problem: Problem, plans: Sequence[Plan]) -> tuple[int, int, int, timedelta]:
    in_time = sum(plan.is_in_time is True for plan in plans)
    ends = [plan.ends_at - problem.now for plan in plans if plan.ends_at]
    cost = sum(plan.expected.micro_usd for plan in plans)
    return -in_time, -len(ends), cost, sum(ends, timedelta(0))


def _insert(problem: Problem, settings: Sequence[Setting], guide: Relaxed | None) -> tuple[Plan, ...]:
    """The most urgent first; what the guide gives of a quota to those still to come is left to them."""
    book = _Book(problem, settings)
    order, late = _by_urgency(settings, range(len(settings))), []
    if guide is not None:
        order.sort(key=lambda n: n in guide.payers)
    for n, number in enumerate(order):
        if not book.add_in_time(number, _kept(guide, order[n + 1 :])):
            late.append(number)
    for number in late:
        book.add(number)
    return book.all()


def _improved(problem: Problem, settings: Sequence[Setting], plans: tuple[Plan, ...], tries: int) -> tuple[Plan, ...]:
    """Those that are late or pay go first in turn, and a few patient ones that were in their way after them."""
    numbers = range(len(plans))
    costly = [n for n in numbers if not plans[n].is_in_time or plans[n].expected > FREE]
    costly.sort(key=lambda n: (plans[n].is_in_time is True, -plans[n].expected.micro_usd, n))
    for number in costly[: tries // len(plans)]:
        moved = _in_the_way(settings, plans, number)
        book = _Book(problem, settings, {n: plans[n] for n in numbers if n != number and n not in moved})
        late = [n for n in [number, *_by_urgency(settings, moved)] if not book.add_in_time(n, {}, BEST_EFFORT)]
        for n in late:
            book.add(n)
        plans = min(plans, book.all(), key=lambda tried: _worth(problem, tried))
    return plans


def _in_the_way(settings: Sequence[Setting], plans: Sequence[Plan], number: int) -> list[int]:
    """Runs with time to spare that take what costs nothing while this one could."""
    until = settings[number].deadline

    def taken(n: int) -> timedelta:
        free = [s for s in plans[n].segments if s.offer.hourly == FREE and settings[n].calendar.at(s.starts_at) < until]
        return sum((segment.span or timedelta(0) for segment in free), timedelta(0))

    others = [n for n in range(len(plans)) if n != number and settings[n].deadline > until and taken(n)]
    return sorted(others, key=lambda n: (-taken(n), n))[:MOVED]


class _Book:
    """Plans made one after another, each around those before it."""

    def __init__(self, problem: Problem, settings: Sequence[Setting], plans: dict[int, Plan] | None = None) -> None:
        self.problem, self.settings = problem, settings
        self.calendar, self.plans = Calendar(problem), dict(plans or {})
        self.keys = {id(place.offer): place.key for place in problem.places}
        for plan in self.plans.values():
            self._take(plan)

    def add_in_time(self, number: int, kept: dict[tuple[str, int], int], effort: int = EFFORT) -> bool:
        """Whether it can be in time: with what is not kept for others, with everything, at any place."""
        whole = self.settings[number]
        for setting, calendar in ((_narrowed(whole), _less(self.calendar, kept)), (whole, self.calendar)):
            plan = plan_in_time(replace(setting.anew(calendar), effort=effort))
            if plan is not None and (plan := self._within_weeks(number, plan)).is_in_time:
                self._keep(number, plan)
                return True
        return False

    def add(self, number: int) -> None:
        """Late, after those in time."""
        setting = self.settings[number].anew(self.calendar)
        self._keep(number, self._within_weeks(number, plan_late(replace(setting, effort=EFFORT))))

    def all(self) -> tuple[Plan, ...]:
        return tuple(self.plans[number] for number in range(len(self.settings)))

    def _keep(self, number: int, plan: Plan) -> None:
        self.plans[number] = plan
        self._take(plan)

    def _take(self, plan: Plan) -> None:
        for segment in plan.segments:
            start = self.calendar.at(segment.starts_at)
            end = start + (segment.span or timedelta(0)) // timedelta(microseconds=1)
            self.calendar.take(self.keys[id(segment.offer)], start, end)

    def _within_weeks(self, number: int, plan: Plan) -> Plan:
        """Planned again with less money until no week reserves more than it may, at last with none."""
        ask, allowed = self.settings[number].ask, self.problem.weekly_money
        budget = ask.budget
        while allowed is not None and (over := _over(self.problem, [*self.plans.values(), plan])) > FREE:
            if budget is None or budget <= FREE:
                return replace(plan, segments=(), is_in_time=False, reason=f"{allowed} a week is spent already")
            budget = min(budget, plan.reserve)
            budget = budget - over if budget > over else FREE
            plan = plan_run(self.problem, replace(ask, budget=budget), self.calendar)
        return plan


def _by_urgency(settings: Sequence[Setting], numbers: Iterable[int]) -> list[int]:
    return sorted(numbers, key=lambda n: (settings[n].deadline, settings[n].ask.run))


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
