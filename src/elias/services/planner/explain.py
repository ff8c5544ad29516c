"""Why not elsewhere, what sooner would cost, and what would have to give where a run cannot be done in time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from elias.domain.plan import Loosens, NotTaken, Plan, Raised, Relaxation, WhatIf, percent
from elias.domain.run import LEAST_CHANCE
from elias.services.planner.calendar import Calendar
from elias.services.planner.lanes import Lane, kept_hours
from elias.services.planner.problem import Problem, RunAsk
from elias.services.planner.risk import chance
from elias.services.planner.search import alone, search
from elias.services.planner.single import NO_LIMIT, Setting, plan_run
from elias.services.planner.task import Aim, Found
from elias.units import FREE, Money

CENT = 10_000
"""Micro-dollars."""


def explained(problem: Problem, ask: RunAsk, calendar: Calendar | None = None) -> Plan:
    """`plan_run`, with why each other place was not taken, what sooner would cost, and what would help."""
    setting = Setting.of(problem, ask, calendar)
    plan = plan_run(problem, ask, setting.calendar)
    if not plan.segments:
        return replace(plan, relaxations=relaxations(setting))
    helps = () if plan.is_in_time else relaxations(setting)
    return replace(plan, not_taken=not_taken(setting, plan), sooner=sooner(setting, plan), relaxations=helps)


def what_if(problem: Problem, ask: RunAsk, deadlines: Sequence[datetime]) -> tuple[WhatIf, ...]:
    """The curve of cost against deadline, all else being the same."""
    setting = Setting.of(problem, ask)
    return _never_dearer([_point(setting, deadline) for deadline in deadlines])


def curve(problem: Problem, ask: RunAsk, points: int = 8) -> tuple[WhatIf, ...]:
    """From the soonest end that the budget buys to the end that costs least, each twice as far from it as the last.

    So close together at first because there an hour saves most.
    """
    setting = Setting.of(problem, ask)
    last = search(setting.task(deadline=setting.calendar.end))
    first = search(setting.task(Aim.SOONEST, deadline=setting.calendar.end))
    if last is None or first is None:
        return ()
    most = 2 ** max(1, points - 1) - 1
    ends = sorted({first.end + (last.end - first.end) * (2**n - 1) // most for n in range(max(2, points))})
    return _never_dearer([_point(setting, setting.problem.now + timedelta(microseconds=end)) for end in ends])


def _never_dearer(points: Sequence[WhatIf]) -> tuple[WhatIf, ...]:
    """A plan for one deadline keeps each later one, too: the search, which may be cut short, need not see that."""
    found, best = dict[datetime, WhatIf](), None
    for point in sorted(points, key=lambda point: point.deadline):
        if point.expected is not None and (best is None or best.expected is None or point.expected <= best.expected):
            best = point
        found[point.deadline] = point if best is None else replace(best, deadline=point.deadline)
    return tuple(found[point.deadline] for point in points)


def sooner(setting: Setting, plan: Plan) -> tuple[WhatIf, ...]:
    """Halfway to the soonest end, and the soonest end, where that is sooner at all."""
    first = search(setting.task(Aim.SOONEST, deadline=setting.calendar.end))
    if first is None or plan.ends_at is None:
        return ()
    end = setting.calendar.at(plan.ends_at)
    if first.end >= end:
        return ()
    moments = [setting.problem.now + timedelta(microseconds=at) for at in ((first.end + end) // 2, first.end)]
    return tuple(_point(setting, moment) for moment in moments)


def relaxations(setting: Setting) -> tuple[Relaxation, ...]:
    """What would do on its own, the smallest change first."""
    found = sorted(_relaxations(setting), key=lambda pair: pair[0])
    return tuple(relaxation for _, relaxation in found)


def not_taken(setting: Setting, plan: Plan) -> tuple[NotTaken, ...]:
    taken = {id(segment.offer) for segment in plan.segments}
    lanes = {lane.place.key: lane for lane in setting.lanes}
    found: list[NotTaken] = []
    for place in setting.problem.places:
        if id(place.offer) in taken:
            continue
        why = setting.never.get(place.key) or why_not(setting, lanes[place.key], plan)
        kept = kept_hours(place.offer)
        found.append(NotTaken(offer=place.offer, why=why if kept in why else f"{kept}; {why}"))
    return tuple(found)


def why_not(setting: Setting, lane: Lane, plan: Plan) -> str:
    """In money, hours or probability: what the run would be like with this place alone."""
    ask, found = setting.ask, alone(setting.task(deadline=setting.calendar.end, budget=NO_LIMIT), lane)
    if found is None:
        return f"alone it would not be done within the {setting.problem.horizon.days} days that are planned"
    if ask.budget is not None and found.spends > ask.budget.micro_usd:
        return f"alone it would spend {Money(found.spends)}, and {ask.budget} may be spent"
    if ask.deadline is not None and found.end > setting.deadline:
        late = spell(timedelta(microseconds=found.end - setting.deadline))
        likely = chance(found, setting.deadline)
        # what is set aside for lost work is on the safe side, and may be more than it takes
        would = "might" if likely >= ask.wanted else "would"
        return f"alone it {would} be {late} late: in time with {percent(likely)}"
    return _compared(setting, found, plan)


def _compared(setting: Setting, found: Found, plan: Plan) -> str:
    more = found.expected - plan.expected.micro_usd
    end = setting.calendar.at(plan.ends_at) if plan.ends_at else 0
    later = timedelta(microseconds=found.end - end)
    when = f"ends {spell(abs(later))} {'later' if later > timedelta(0) else 'sooner'}" if later else "ends no sooner"
    if more > 0:
        return f"alone it would cost {Money(more)} more ({Money(found.expected)}) and {when}"
    if more == 0 and later > timedelta(0):
        return f"alone it would cost the same and {when}"
    if more == 0:
        return "no better than what was taken"
    # cheaper and in time, yet not the plan: only where the plan itself is not in time, or the search was cut short
    return f"alone it would cost {Money(-more)} less and {when}"


def _relaxations(setting: Setting) -> Iterator[tuple[float, Relaxation]]:
    """Each with how large a change it is, as a share of what is there."""
    ask, now = setting.ask, setting.problem.now
    if (needed := _budget_needed(setting)) is not None:
        more = needed - (ask.budget or FREE)
        words = f"{more.up_to_cents()} more" if ask.budget else f"a budget of {needed.up_to_cents()}"
        share = more.micro_usd / max(ask.budget.micro_usd, 1) if ask.budget else 1.0
        own = Raised(limit=needed.up_to_cents())
        yield share, Relaxation(loosens=Loosens.BUDGET, words=words, budget=needed, raised=(own,))
    if ask.deadline is None:
        return
    late = search(setting.task(Aim.SOONEST, deadline=setting.calendar.end))
    if late is not None:
        deadline = now + timedelta(microseconds=late.end)
        after = deadline - ask.deadline
        share = after / max(ask.deadline - now, timedelta(minutes=1))
        yield share, Relaxation(loosens=Loosens.DEADLINE, words=f"{spell(after)} later", deadline=deadline)
    if (wanted := _probability_reached(setting)) is not None:
        words = f"in time with {percent(wanted)} instead of {ask.wanted * 100:g}%"
        # for a person a lesser certainty weighs more than the same share of time or money
        share = 4 * (ask.wanted - wanted) / ask.wanted
        yield share, Relaxation(loosens=Loosens.PROBABILITY, words=words, probability=wanted)


def _budget_needed(setting: Setting) -> Money | None:
    """To be in time; None where money is not what is missing."""
    rich = replace(setting.ask, budget=Money(NO_LIMIT))
    paid = replace(Setting.of(setting.problem, rich, setting.calendar), effort=setting.effort)
    found = search(paid.task(Aim.THRIFTIEST))
    low = (setting.ask.budget or FREE).micro_usd
    if found is None or found.needs <= low:
        return None
    low, high = max(low, found.spends - 1), found.needs
    while high - low > max(CENT, high // 100):  # shorter segments reserve less at once
        middle = (low + high) // 2
        shorter = search(paid.task(Aim.THRIFTIEST, budget=middle))
        low, high = (middle, high) if shorter is None else (low, min(middle, shorter.needs))
    return Money(high)


def _probability_reached(setting: Setting) -> float | None:
    """The highest at which there is a plan, in steps of a hundredth."""
    low, high = round(LEAST_CHANCE * 100), round(setting.ask.wanted * 100)

    def exists(hundredths: int) -> bool:
        weaker = replace(setting.ask, wanted=hundredths / 100)
        looser = replace(Setting.of(setting.problem, weaker, setting.calendar), effort=setting.effort)
        return search(looser.task()) is not None

    if not exists(low):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if exists(middle) else (low, middle)
    return low / 100


def _point(setting: Setting, deadline: datetime) -> WhatIf:
    at = min(setting.calendar.at(deadline), setting.calendar.end)
    found = search(setting.task(deadline=at))
    if found is None:
        return WhatIf(deadline=deadline)
    places = dict.fromkeys(found.lanes[piece.lane].place.key for piece in found.pieces)
    return WhatIf(
        deadline=deadline,
        ends_at=setting.problem.now + timedelta(microseconds=found.end),
        expected=Money(found.expected),
        reserve=Money(min(found.reserved, setting.budget)),
        chance=round(max(setting.ask.wanted, chance(found, at)), 4),
        places=tuple(places),
    )


def spell(span: timedelta) -> str:
    """For people: `3 min`, `5 h 20 min`, `2 days 4 h`; rounded up."""
    minutes = -(-span // timedelta(minutes=1))
    if minutes >= 24 * 60:
        days, hours = divmod(-(-minutes // 60), 24)
        return f"{days} day{'s' * (days > 1)}" + (f" {hours} h" if hours else "")
    hours, rest = divmod(minutes, 60)
    return " ".join(filter(None, (f"{hours} h" if hours else "", f"{rest} min" if rest or not hours else "")))
