"""A plan as bars over time, before it is known with what it is drawn: rows, what money runs up, marks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from elias.domain.offer import Offer
from elias.domain.plan import Plan, PlannedSegment, percent
from elias.units import FREE, Money

WEEK = timedelta(days=7)
"""Between two refreshes of a quota, as the planner takes it."""
NEAR = 4
"""A deadline is on the axis where that does not make the plan smaller than a share of 1 / `NEAR`."""
STEPS = tuple(
    timedelta(minutes=minutes) for minutes in (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10080, 20160)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    row: str
    number: int
    """Of the segment in its run's plan, from 1."""
    starts: datetime
    ends: datetime | None
    """None runs to the end of the run, which nobody knows."""
    is_paid: bool
    run: str | None = None
    """Named only where several runs share the chart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """By one segment: reserved at once when it begins, spent little by little."""

    starts: datetime
    ends: datetime
    expected: Money
    reserve: Money

    def expected_by(self, moment: datetime) -> float:
        """In USD."""
        share = (moment - self.starts) / (self.ends - self.starts)
        return self.expected.micro_usd * min(1.0, max(0.0, share)) / 1e6

    def reserved_by(self, moment: datetime) -> float:
        """In USD; what is given back afterwards is not taken off: this is the plan at its very dearest."""
        return self.reserve.micro_usd / 1e6 if moment >= self.starts else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Quota:
    row: str
    words: str
    """Such as `19.8 h left, new on Sat 28 Nov 00:00`."""
    refreshes: tuple[datetime, ...]
    """Those on the axis."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    first: datetime
    last: datetime
    bars: tuple[Bar, ...]
    money: tuple[Spent, ...] = ()
    """Empty where nobody pays."""
    quotas: tuple[Quota, ...] = ()
    deadline: datetime | None = None
    """May lie beyond `last`."""
    chance: float | None = None
    """Of having all done by then."""

    @property
    def rows(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(bar.row for bar in self.bars))

    @property
    def span(self) -> timedelta:
        return self.last - self.first

    @property
    def has_deadline(self) -> bool:
        return self.deadline is not None and self.deadline <= self.last

    @property
    def expected(self) -> Money:
        return sum((spent.expected for spent in self.money), FREE)

    @property
    def reserve(self) -> Money:
        return sum((spent.reserve for spent in self.money), FREE)

    def expected_by(self, moment: datetime) -> float:
        """In USD, all segments together."""
        return sum(spent.expected_by(moment) for spent in self.money)

    def reserved_by(self, moment: datetime) -> float:
        return sum(spent.reserved_by(moment) for spent in self.money)

    def share(self, moment: datetime) -> float:
        """Where on the axis: 0 is its beginning, 1 its end."""
        return min(1.0, max(0.0, (moment - self.first) / self.span))


def chart_of(plans: Sequence[Plan], now: datetime) -> Chart:
    """Of plans with segments; one of them gives its deadline and chance, several share the places."""
    segments = sorted((s for plan in plans for s in plan.segments), key=lambda s: s.starts_at)
    alone = plans[0] if len(plans) == 1 else None
    deadline = alone.deadline if alone else None
    last = _last(now, segments, deadline)
    return Chart(
        first=now,
        last=last,
        bars=tuple(bar for plan in plans for bar in _bars(plan, is_alone=alone is not None)),
        money=tuple(_money(segments)) if any(s.offer.is_paid for s in segments) else (),
        quotas=tuple(_quotas(segments, now, last)),
        deadline=deadline,
        chance=alone.chance if alone else None,
    )


def title_of(plans: Sequence[Plan]) -> str:
    """`done by Fri 27 Nov 09:10, for $2.10 as expected and $6.00 at most`."""
    ends = max((plan.ends_at for plan in plans if plan.ends_at), default=None)
    when = f"done by {moment_words(ends)}" if ends else "ends with its work"
    many = f"{len(plans)} runs, " if len(plans) > 1 else ""
    expected, reserve = sum((p.expected for p in plans), FREE), sum((p.reserve for p in plans), FREE)
    if not any(plan.costs_money for plan in plans):
        return f"{many}{when}, free"
    return f"{many}{when}, for {expected} as expected and {reserve} at most"


def ticks(first: datetime, last: datetime, most: int) -> Iterator[datetime]:
    """Round moments in local time, about that many: days where `is_in_days`."""
    least = timedelta(days=1) if is_in_days(first, last) else STEPS[0]
    step = next((step for step in STEPS if step >= least and (last - first) / step <= most), STEPS[-1] * 2)
    local = first.astimezone()
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    moment = midnight + -(-(local - midnight) // step) * step
    while moment <= last:
        yield moment
        moment += step


def is_in_days(first: datetime, last: datetime) -> bool:
    """Whether an axis names days, not hours."""
    return last - first >= timedelta(days=2)


def place(offer: Offer) -> str:
    return f"{offer.backend} {offer.variant}".rstrip()


def moment_words(moment: datetime) -> str:
    return f"{moment.astimezone():%a %d %b %H:%M}"


def deadline_words(chart: Chart) -> str:
    """`deadline Sat 28 Nov 00:00 (in time with 97%)`; empty without one."""
    if chart.deadline is None:
        return ""
    likely = "" if chart.chance is None else f" (in time with {percent(chart.chance)})"
    return f"deadline {moment_words(chart.deadline)}{likely}"


def _last(now: datetime, segments: Sequence[PlannedSegment], deadline: datetime | None) -> datetime:
    """A little after the last thing to be seen."""
    end = max(segment.ends_at or segment.starts_at + timedelta(hours=1) for segment in segments)
    if deadline is not None and deadline > end and deadline - now < NEAR * (end - now):
        end = deadline
    return end + (end - now) * 0.06


def _bars(plan: Plan, *, is_alone: bool) -> Iterator[Bar]:
    for number, segment in enumerate(plan.segments, start=1):
        yield Bar(
            row=place(segment.offer),
            number=number,
            starts=segment.starts_at,
            ends=segment.ends_at,
            is_paid=segment.offer.is_paid,
            run=None if is_alone else plan.run,
        )


def _money(segments: Sequence[PlannedSegment]) -> Iterator[Spent]:
    for segment in segments:
        if segment.ends_at is not None and segment.offer.is_paid:
            yield Spent(
                starts=segment.starts_at, ends=segment.ends_at, expected=segment.expected, reserve=segment.reserve
            )


def _quotas(segments: Sequence[PlannedSegment], now: datetime, last: datetime) -> Iterator[Quota]:
    for offer in dict.fromkeys(segment.offer for segment in segments):
        if offer.left is None:
            continue
        left = f"{offer.left.total_seconds() / 3600:.3g} h left"
        moments, moment = [], offer.refreshes_at
        while moment is not None and moment <= last:
            moments += [moment] if moment > now else []
            moment += WEEK
        words = left if offer.refreshes_at is None else f"{left}, new on {moment_words(offer.refreshes_at)}"
        yield Quota(row=place(offer), words=words, refreshes=tuple(moments))
