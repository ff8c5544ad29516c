"""What a node's caps mean for a plan of a run that has not begun."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from elias.domain.plan import Plan, PlannedSegment, Raised
from elias.domain.spend import Cap, Room, day_after, day_of, dollars, month_after, month_of, named, whole_dollars
from elias.services.spend import shortest_cost
from elias.units import FREE, Money

Step = Callable[[datetime], datetime]
PERIODS: dict[Cap, tuple[Step, Step]] = {Cap.DAY: (day_of, day_after), Cap.MONTH: (month_of, month_after)}
"""The first instant of the one that holds a moment, and of the next one."""


def raised(found: Sequence[Room], own: Money | None, needed: Money) -> tuple[Raised, ...]:
    """What has to be raised before a run with that budget of its own may spend `needed` in all.

    `found` are the caps of the node; those that begin anew are no limit on a whole run.
    """
    lasting = [room for room in found if room.until is None]
    is_allowed = any(room.cap is Cap.RUN for room in lasting) if own is None else own >= needed
    mine = () if is_allowed else (Raised(limit=needed.up_to_cents()),)
    return mine + tuple(
        Raised(limit=(room.spent + room.reserved + needed).up_to_cents(), setting=room.setting)
        for room in lasting
        if room.left < needed
    )


def limited_by(found: Sequence[Room], plan: Plan) -> Iterator[str]:
    """A line for each cap of a day or a month that holds less than the plan may reserve within one of them.

    What other runs will spend by then is not known, nor that all of it is reserved at once: it says what may be.
    """
    paid = [segment for segment in plan.segments if segment.offer.is_paid]
    for room in found:
        if room.cap not in PERIODS or not paid:
            continue
        most = _most(room, plan, paid)
        least = max(map(shortest_cost, paid))
        if least > room.limit:
            why = "a segment that the plan pays for would not begin"
        elif most > room.limit:
            why = f"segments that are paid for may be shorter, or wait for the next {room.cap}"
        else:
            continue
        fix = f"elias budget set {room.setting} {whole_dollars(max(most, least))}"
        yield f"the cap of {named(room.cap)} is {dollars(room.limit)}: {why} ({fix})"


def _most(room: Room, plan: Plan, paid: Sequence[PlannedSegment]) -> Money:
    """What would count against the cap in its fullest day or month, all spans used up."""
    begin, after = PERIODS[room.cap]
    sums: dict[datetime, Money] = {}
    for segment in paid:
        period, ends = begin(segment.starts_at), segment.ends_at or segment.starts_at
        while period <= ends:
            sums[period] = sums.get(period, FREE) + segment.reserve
            period = after(period)
    return max(
        (reserve if plan.budget is None else min(reserve, plan.budget))
        + (room.spent + room.reserved if after(period) == room.until else FREE)
        for period, reserve in sums.items()
    )
