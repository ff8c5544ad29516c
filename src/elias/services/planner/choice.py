"""Which lanes are worth a look, and what any plan over them comes to at least."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from elias.services.planner.bounds import Hull
from elias.services.planner.lanes import HOUR, Lane
from elias.services.planner.task import Aim, Task

MOST_LANES = 10
"""A search looks at."""


def undominated(lanes: Sequence[Lane]) -> list[Lane]:
    """Cheapest first, without those that another is no worse than in every respect."""
    kept: list[Lane] = []
    for lane in sorted(lanes, key=worth):
        if not any(_is_no_worse(other, lane) for other in kept):
            kept.append(lane)
    return kept


def promising(task: Task, lanes: list[Lane]) -> Iterator[list[Lane]]:
    """All, where they are few. Else a choice, then smaller ones for a search that was cut short with it.

    What is free, the best mixes for the time there is, and the best alone, for all of the work and for what free hours
    leave; then without the last; then what is free.
    """
    if len(lanes) <= MOST_LANES:
        yield lanes
        return
    everyone = range(len(lanes))
    free, paid = [n for n in everyone if lanes[n].is_free], [n for n in everyone if not lanes[n].is_free]
    mixes = [*_mixes(task, lanes)]
    rest = _beyond(task, [lanes[n] for n in free])
    fastest = min(everyone, key=lambda n: (lanes[n].step, n))
    # for a rest a slower machine that is sooner ready may be cheaper than the cheapest by the step
    for_rest = _alone(task, lanes, paid, rest) if rest > 0 else []
    alone = [n for count in (task.steps, max(1, task.steps // 2)) for n in _alone(task, lanes, everyone, count)]
    sets = [[*free, *mixes, *for_rest, *alone, fastest], [*free, *mixes, *alone, fastest]]
    if free and task.aim is not Aim.SOONEST:
        sets.append(free)
    kept = dict.fromkeys(tuple(sorted(list(dict.fromkeys(numbers))[:MOST_LANES])) for numbers in sets)
    yield from ([lanes[n] for n in numbers] for numbers in kept)


def _mixes(task: Task, lanes: Sequence[Lane]) -> Iterator[int]:
    """The neighbours of the mean time on either side make the cheapest mix that is in time."""
    mean = task.deadline / task.steps
    for of in (likely_price, price):
        corners = set(Hull([(lane.step, of(lane)) for lane in lanes]).times)
        near = sorted((n for n, lane in enumerate(lanes) if lane.step in corners), key=lambda n: (of(lanes[n]), n))
        yield from [n for n in near if lanes[n].step <= mean][:2]
        yield from [n for n in near if lanes[n].step > mean][-2:]


def _alone(task: Task, lanes: Sequence[Lane], among: Iterable[int], count: int) -> list[int]:
    """The one that does so many steps for least, in time; none where none does."""
    in_time = [n for n in among if lanes[n].delay + lanes[n].slack + lanes[n].span(count) <= task.deadline]
    return sorted(in_time, key=lambda n: (lanes[n].expected(count), n))[:1]


def least(task: Task, lanes: Sequence[Lane]) -> int:
    """What the aim puts first comes to at least: the hull's price, with what costs nothing as far as it lasts."""
    if task.aim is Aim.SOONEST:
        return task.steps * min(lane.step for lane in lanes) + min(lane.delay + lane.overhead for lane in lanes)
    of, which = (price, 1) if task.aim is Aim.THRIFTIEST else (likely_price, 0)
    paid = [lane for lane in lanes if of(lane) > 0 or lane.once]
    free = [lane for lane in lanes if not (of(lane) > 0 or lane.once)]
    rest = _beyond(task, free)
    if rest <= 0 or not paid:
        return 0
    hulls = [(Hull([(lane.step, of(lane)) for lane in lanes]), task.steps)]
    hulls.append((Hull([(lane.step, of(lane)) for lane in paid]), rest))
    prices = [hull.least(steps, task.deadline) or 0.0 for hull, steps in hulls]
    return int(max(prices) + min(fixed(lane)[which] for lane in paid))


def _beyond(task: Task, lanes: Sequence[Lane]) -> int:
    """The fewest steps that these leave, were they all used at once."""
    return task.steps - sum(_capacity(task, lane) for lane in lanes)


def _capacity(task: Task, lane: Lane) -> int:
    """The most steps that its openings and quotas hold before the deadline."""
    room: dict[tuple[str, int] | None, int] = defaultdict(int)
    for opening in lane.openings:
        room[opening.period] += max(0, min(opening.closes, task.deadline) - opening.opens)
    return sum(min(span, task.left[period] if period else span) // lane.step for period, span in room.items())


def worth(lane: Lane) -> tuple[float, int, float, int, int, float, str]:
    return (
        likely_price(lane),
        lane.step,
        price(lane),
        lane.overhead,
        lane.delay,
        -(lane.longest or math.inf),
        lane.place.key,
    )


def _is_no_worse(a: Lane, b: Lane) -> bool:
    return (
        a.step <= b.step
        and a.overhead <= b.overhead
        and a.delay <= b.delay
        and a.slack <= b.slack
        and a.hourly <= b.hourly
        and a.likely_hourly <= b.likely_hourly
        and a.likely_step <= b.likely_step
        and a.likely_overhead <= b.likely_overhead
        and a.once <= b.once
        and (a.longest is None or (b.longest is not None and a.longest >= b.longest))
        and (a.openings == b.openings or _is_always(a, b))
    )


def _is_always(a: Lane, b: Lane) -> bool:
    """Whether a can be had whenever b can, with no quota to save."""
    if len(a.openings) != 1 or a.openings[0].period:
        return False
    return a.openings[0].opens <= b.openings[0].opens and a.openings[0].closes >= b.openings[-1].closes


def price(lane: Lane) -> float:
    return lane.spent_hourly * lane.step / HOUR


def likely_price(lane: Lane) -> float:
    return lane.likely_hourly * lane.likely_step / HOUR


def fixed(lane: Lane) -> tuple[float, float]:
    """Of a segment, expected and spent; a little less, against rounding."""
    switch = lane.once
    likely = lane.likely_hourly * lane.likely_overhead / HOUR + switch
    return likely * (1 - 1e-9), (lane.spent_hourly * lane.overhead / HOUR + switch) * (1 - 1e-9)
