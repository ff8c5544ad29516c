"""An independent look at plans: which rules of their problem they break. It shares no arithmetic with the planner."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from elias.domain.label import Label
from elias.domain.plan import Plan, PlannedSegment
from elias.services.planner.problem import Place, Problem, RunAsk
from elias.units import FREE, Money


@dataclass(frozen=True, slots=True)
class _Stay:
    """A session somewhere, planned or committed."""

    place: Place
    start: datetime
    span: timedelta
    counts: bool

    @property
    def end(self) -> datetime:
        return self.start + self.span


def check_plan(problem: Problem, plan: Plan) -> list[str]:
    """Each broken rule as a line; an empty list is a plan that may be carried out."""
    return check_plans(problem, [plan])


def check_plans(problem: Problem, plans: Sequence[Plan]) -> list[str]:
    """Of plans that are carried out at the same time."""
    asks = {ask.run: ask for ask in problem.runs}
    places = {place.key: place for place in problem.places}
    broken = [line for plan in plans for line in _of_run(problem, asks[plan.run or ""], plan)]
    stays = [_Stay(places[c.place], c.starts_at, c.span, not c.is_in_quota) for c in problem.commitments]
    for plan in plans:
        stays += [_Stay(_place(problem, s), s.starts_at, s.span or timedelta(0), True) for s in plan.segments]
    return [*broken, *_quotas(problem, stays), *_at_once(problem, stays), *_weekly(problem, plans)]


def _of_run(problem: Problem, ask: RunAsk, plan: Plan) -> Iterator[str]:
    free_at = max(problem.now, ask.ready or problem.now)
    for number, segment in enumerate(plan.segments, 1):
        name = f"{ask.run} segment {number}"
        yield from (f"{name}: {line}" for line in _of_segment(problem, ask, segment))
        if segment.starts_at < free_at + segment.offer.start_delay:
            yield f"{name}: begins before the one before it has ended and it was sent there"
        free_at = segment.ends_at or segment.starts_at
    done = sum(segment.steps or 0 for segment in plan.segments)
    if plan.segments and done != ask.steps:
        yield f"{ask.run}: plans {done} of {ask.steps} steps"
    left = ask.budget or FREE
    for number, segment in enumerate(plan.segments, 1):
        if segment.reserve > left:
            yield f"{ask.run} segment {number}: reserves {segment.reserve}, and {left} of the budget is left"
        left -= min(left, _spent(segment))
    if plan.is_in_time and ask.deadline and free_at > ask.deadline:
        yield f"{ask.run}: is said to be in time, and ends after its deadline"
    if plan.is_in_time and plan.chance is not None and plan.chance < ask.wanted:
        yield f"{ask.run}: is said to be in time with a chance of {plan.chance}, below {ask.wanted}"
    if plan.bound is not None and plan.expected < plan.bound:
        yield f"{ask.run}: costs less than the bound that no plan is below"


def _spent(segment: PlannedSegment) -> Money:
    """Of what it reserves, by the likely price and a quarter more."""
    offer, span = segment.offer, segment.span or timedelta(0)
    if offer.likely_hourly is None:
        return segment.reserve
    likely = 1.25 * offer.likely_hourly.micro_usd * (span / timedelta(hours=1)) + offer.once.micro_usd
    return min(segment.reserve, Money(int(likely)))


def _of_segment(problem: Problem, ask: RunAsk, segment: PlannedSegment) -> Iterator[str]:
    place, offer = _place(problem, segment), segment.offer
    if offer.refused and (offer.passes_at is None or segment.starts_at < offer.passes_at + offer.start_delay):
        yield "its place refused"
    if offer.needs_encryption and (
        ask.label is Label.SECRET or (ask.label is Label.PRIVATE and not offer.seals_private)
    ):
        yield "the label forbids its place"
    if place.key not in ask.paces or not segment.steps or segment.steps < 1 or segment.span is None:
        yield "has no known length"
        return
    if ask.most_steps and segment.steps > ask.most_steps:
        yield "has more steps than a segment may"
    longest = min((span for span in (offer.longest, ask.longest) if span is not None), default=timedelta.max)
    if segment.span > longest:
        yield "is longer than a session may be"
    pace = ask.paces[place.key]
    if segment.span.total_seconds() < pace.start_up.quantile(ask.wanted) + segment.steps * pace.step.quantile(
        ask.wanted
    ):
        yield "is too short for its steps with the wanted probability"
    if segment.starts_at < problem.now or segment.starts_at + segment.span > problem.now + problem.horizon:
        yield "is outside the time that is planned"
    if place.windows and not any(
        w.opens <= segment.starts_at and segment.starts_at + segment.span <= w.closes for w in place.windows
    ):
        yield "is outside its place's windows"
    hours = segment.span / timedelta(hours=1)
    least = hours * offer.hourly.micro_usd + place.offer.once.micro_usd
    if not least <= segment.reserve.micro_usd < least + 1:
        yield "does not reserve its span at the on-demand price"
    if segment.expected > segment.reserve:
        yield "is expected to cost more than it reserves"


def _quotas(problem: Problem, stays: Sequence[_Stay]) -> Iterator[str]:
    used: dict[tuple[str, datetime], timedelta] = defaultdict(timedelta)
    holds: dict[tuple[str, datetime], timedelta] = {}
    for stay in stays:
        offer, place = stay.place.offer, stay.place
        if offer.left is None:
            continue
        since, until, left = (
            problem.now,
            offer.refreshes_at or datetime.max.replace(tzinfo=problem.now.tzinfo),
            offer.left,
        )
        while until <= stay.start:
            since, until, left = until, until + place.refresh_every, place.refill or timedelta(0)
        if stay.end > until:
            yield f"{place.key}: a segment goes on over a refresh of the quota"
        key = (place.quota_key, since)
        holds[key] = min(holds.get(key, left), left)
        if stay.counts:
            used[key] += stay.span
    for key, span in used.items():
        if span > holds[key]:
            yield f"{key[0]}: {span} of a quota of {holds[key]} since {key[1]}"


def _at_once(problem: Problem, stays: Sequence[_Stay]) -> Iterator[str]:
    for stay in stays:
        beside = [other for other in stays if other.start <= stay.start < other.end]
        same = [other for other in beside if other.place.sessions_key == stay.place.sessions_key]
        if len(same) > min(other.place.offer.concurrency for other in same):
            yield f"{stay.place.key}: {len(same)} sessions at once at {stay.start}"
        backend = stay.place.offer.backend
        account = [other for other in beside if other.place.offer.backend == backend]
        if len(account) > problem.session_caps.get(backend, len(account)):
            yield f"{backend}: {len(account)} sessions at once at {stay.start}, over the account's cap"


def _weekly(problem: Problem, plans: Sequence[Plan]) -> Iterator[str]:
    if problem.weekly_money is None:
        return
    weeks: dict[int, Money] = defaultdict(Money)
    for plan in plans:
        for segment in plan.segments:
            weeks[(segment.starts_at - problem.now) // timedelta(days=7)] += segment.reserve
    for week, money in weeks.items():
        if money > problem.weekly_money:
            yield f"week {week}: {money} reserved of {problem.weekly_money}"


def _place(problem: Problem, segment: PlannedSegment) -> Place:
    return next(place for place in problem.places if place.offer is segment.offer)
