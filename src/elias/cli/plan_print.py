"""A plan as a person reads it before anything is spent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from elias.cli.output import emit_table, say
from elias.cli.plan_table import print_others
from elias.domain.offer import Offer
from elias.domain.plan import Plan, PlannedSegment, QueuePlan, Raised, Relaxation, WhatIf, percent
from elias.domain.spend import typed
from elias.units import Money

COLUMNS = ("place", "accelerator", "starts", "for", "steps", "expected", "at most", "chance")
POINTS = ("done by", "expected", "at most", "chance", "places")
RUNS = ("run", "deadline", "done by", "expected", "at most", "chance", "places")
TO_TYPE_IT = timedelta(minutes=10)
"""A plan begins when it is asked for: what a person types meanwhile has to hold still."""


def print_plan(plan: Plan, most_others: int | None = None, draw: Callable[[], None] = lambda: None) -> None:
    """`most_others` shortens the table of rented machines that were not taken, `draw` is called before it."""
    if plan.segments:
        emit_table(COLUMNS, [_cells(segment) for segment in plan.segments], empty="")
        _print_whole(plan)
    else:
        say(f"nothing takes this run now: {plan.reason}")
    if plan.wait_until:
        say(f"worth asking again at {plan.wait_until:%Y-%m-%d %H:%M} UTC" if not plan.segments else plan.reason or "")
    for line in plan.limited_by:
        print(f"limit: {line}")
    for helps in plan.relaxations:
        print(f"would do: {helps.words}{_typed(helps)}")
    for point in plan.sooner:
        print(f"sooner: {_moment(point.ends_at)} for {_price(point)}")
    draw()
    print_others(plan, most_others)


def print_points(points: Sequence[WhatIf]) -> None:
    """The curve of cost against deadline, a row a plan."""
    rows = dict.fromkeys(_point(point) for point in points)  # one plan may be the best for several deadlines
    emit_table(POINTS, list(rows), empty="no plan ends within the time that is planned")


def print_queue(queue: QueuePlan) -> None:
    emit_table(RUNS, [_run(plan) for plan in queue.plans], empty="no run waits")
    count = len(queue.plans)
    print(f"\n{queue.at_once} at once; {queue.in_time} of {count} in time{_proven(queue)}; made by {queue.solver}")
    for line in queue.limited_by:
        print(f"limit: {line}")
    for plan in queue.plans:
        if plan.is_in_time is not True:
            print(f"late: {plan.run}: {plan.reason or 'no plan keeps its deadline and budget'}")


def name(offer: Offer) -> str:
    return f"{offer.backend} {offer.variant}".rstrip()


def span_words(span: timedelta) -> str:
    """`45 s`, `3 min`, `11.5 h`, `2.1 days`."""
    seconds = span.total_seconds()
    for limit, unit, word in ((90, 1, "s"), (5400, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.1f} {word}" if word == "h" else f"{seconds / unit:.0f} {word}"
    return f"{seconds / 86400:.1f} days"


def _cells(segment: PlannedSegment) -> tuple[object, ...]:
    offer = segment.offer
    return (
        name(offer),
        f"{offer.accelerator_count} x {offer.accelerator}",
        _moment(segment.starts_at),
        "the end of the run" if segment.span is None else span_words(segment.span),
        "?" if segment.steps is None else segment.steps,
        _money(segment.expected),
        _money(segment.reserve),
        "?" if segment.chance is None else percent(segment.chance),
    )


def _print_whole(plan: Plan) -> None:
    ends = f"done by {_moment(plan.ends_at)}" if plan.ends_at else "ends with its work"
    print(f"\n{ends}, for {_money(plan.expected)} as expected and {_money(plan.reserve)} at most{_bound(plan)}")
    if plan.deadline is not None and plan.chance is not None and plan.wanted is not None:
        kept = "in time" if plan.is_in_time else "NOT in time as wanted"
        print(f"{kept} for {_moment(plan.deadline)}: with {percent(plan.chance)}, wanted {plan.wanted * 100:g}%")
    elif plan.is_in_time is False:
        print("what may be spent does not pay for all of it as surely as wanted")


def _bound(plan: Plan) -> str:
    if plan.bound is None or plan.bound == plan.expected:
        return "; no plan is cheaper" if plan.bound is not None else ""
    return f"; no plan is cheaper than {plan.bound}"


def _typed(helps: Relaxation) -> str:
    """The option that says all of it, or the command."""
    if helps.raised:
        return f" ({' and '.join(map(_raises, helps.raised))})"
    if helps.deadline is not None:
        return f" (--by {helps.deadline.astimezone() + TO_TYPE_IT:%Y-%m-%dT%H:%M})"
    return f" (--chance {percent(helps.probability)})" if helps.probability is not None else ""


def _raises(raised: Raised) -> str:
    option = "--budget" if raised.setting is None else f"elias budget set {raised.setting}"
    return f"{option} {typed(raised.limit)}"


def _point(point: WhatIf) -> tuple[object, ...]:
    if point.ends_at is None or point.expected is None or point.reserve is None:
        return _moment(point.deadline), "no plan", "", "", ""
    chance = "" if point.chance is None else percent(point.chance)
    return _moment(point.ends_at), _money(point.expected), _money(point.reserve), chance, ", ".join(point.places)


def _run(plan: Plan) -> tuple[object, ...]:
    places = dict.fromkeys(name(segment.offer) for segment in plan.segments)
    return (
        plan.run,
        _moment(plan.deadline) if plan.deadline else "none",
        _moment(plan.ends_at) if plan.ends_at else "not planned",
        _money(plan.expected),
        _money(plan.reserve),
        "?" if plan.chance is None else percent(plan.chance),
        ", ".join(places),
    )


def _price(point: WhatIf) -> str:
    return "?" if point.expected is None else f"{_money(point.expected)} as expected, {point.reserve} at most"


def _proven(queue: QueuePlan) -> str:
    if queue.gap is None or queue.bound is None:
        return ""
    most = f" (no plan has more than {queue.most_in_time})" if queue.most_in_time != queue.in_time else ""
    return f"{most}, at {queue.expected}, of which at most {queue.gap:.0%} could be saved"


def _money(money: Money) -> str:
    return str(money) if money.micro_usd else "free"


def _moment(moment: datetime | None) -> str:
    """In local time, as `--by` reads it."""
    return "?" if moment is None else f"{moment.astimezone():%a %d %b %H:%M}"
