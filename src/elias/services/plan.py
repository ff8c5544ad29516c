"""Which place takes the next segment, and for how long; and why not the others.

Where it is known how much there is to do, by the planner: the first segment of the best plan for the whole run from
here. Where it is not, or where the run ends with its time, by a rule: the cheapest place that may, can and has time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from elias.domain.label import Label
from elias.domain.offer import Offer
from elias.domain.plan import NotTaken, Plan, PlannedSegment
from elias.domain.run import Segment
from elias.services.planner.calendar import Calendar
from elias.services.planner.explain import relaxations
from elias.services.planner.lanes import AS_LIKELY_AS_NOT, used_up
from elias.services.planner.outlook import Outlook, place_name
from elias.services.planner.problem import SHORTEST, Commitment, Problem, RunAsk
from elias.services.planner.single import Setting, plan_in_time, plan_late
from elias.services.silent import before_money
from elias.units import FREE, Money, rfc3339

LONGEST_WAIT = timedelta(hours=1)
"""Before it is planned again: prices, quotas and the user's mind may have changed."""
ADVICE_EFFORT = 40
"""Of each search for what would help a run that waits: it is asked again every hour."""
TURN = timedelta(hours=6)
"""On a place that is free and has no quota, such as this machine: then whoever waits for it comes first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """What is to be placed now."""

    label: Label
    now: datetime
    span: timedelta | None = None
    """The longest that the segment may take; None runs to the end of the run."""
    budget_left: Money | None = None
    """None has no budget: nothing that costs money is taken."""


def next_segment(ask: Ask, outlook: Outlook) -> Plan:
    """The plan from here; `wait_until` and `reason` where nothing is to be begun before that."""
    offers = [sight.offer for sight in outlook.sights]
    return before_money(_next(ask, outlook, offers), offers)


def _next(ask: Ask, outlook: Outlook, offers: Sequence[Offer]) -> Plan:
    problem = outlook.problem()
    if problem is None:
        return plan_segment(ask, offers)
    plan = _likeliest(problem, problem.runs[0])
    if plan.is_in_time is not True and not _is_worth_going_on(plan):
        return _what_is_free(ask, problem, [_unpromised(offer, outlook) for offer in offers])
    if plan.wait_until is not None and not _only_queues(plan.segments[0].offer, outlook):
        return replace(plan, wait_until=min(plan.wait_until, ask.now + LONGEST_WAIT))
    return replace(plan, segments=(_fitted(ask, plan, outlook), *plan.segments[1:]), wait_until=None, reason=None)


def plan_segment(ask: Ask, offers: Sequence[Offer]) -> Plan:
    """One segment, or none with the reason and the instant at which it is worth asking again."""
    reasons = {n: why for n, offer in enumerate(offers) if (why := _why_not(ask, offer))}
    fits = [offer for n, offer in enumerate(offers) if n not in reasons]
    not_taken = [NotTaken(offer=offers[n], why=why) for n, why in reasons.items()]
    if not fits:
        wait_until = min((moment for offer in offers if (moment := _opens_at(offer))), default=None)
        # a place with many machines says of most of them the same
        each = dict.fromkeys(f"{taken.offer.backend}: {taken.why}" for taken in not_taken)
        reason = "; ".join(each) or "no place is configured"
        return Plan(segments=(), not_taken=tuple(not_taken), wait_until=wait_until, reason=reason)
    best, *others = sorted(fits, key=_preference)
    not_taken += [NotTaken(offer=offer, why=_why_second(best, offer)) for offer in others]
    span = _span(ask, best)
    reserve = best.hourly.for_hours(span) + best.once if span is not None else FREE
    chosen = PlannedSegment(offer=best, starts_at=ask.now + best.start_delay, span=span, reserve=reserve)
    return Plan(segments=(chosen,), not_taken=tuple(not_taken))


def _likeliest(problem: Problem, ask: RunAsk) -> Plan:
    """As wanted; else at least as likely as not to be done with its budget in time; else as soon as can be."""
    calendar = Calendar(problem)
    setting = Setting.of(problem, ask, calendar)
    if (plan := plan_in_time(setting)) is not None:
        return plan
    if ask.wanted > AS_LIKELY_AS_NOT:
        likely = Setting.of(problem, replace(ask, wanted=AS_LIKELY_AS_NOT), calendar)
        if (plan := plan_in_time(likely)) is not None:
            return replace(plan, wanted=ask.wanted)
    return plan_late(replace(setting, effort=ADVICE_EFFORT))


def _is_worth_going_on(plan: Plan) -> bool:
    """Late, but begun at once: as far as it gets until its deadline, where there is one.

    With money only where it may be in time all the same: the search sets more aside for lost work than it takes.
    """
    if not plan.segments or plan.wait_until is not None or plan.deadline is None:
        return False
    if plan.segments[0].offer.is_paid and (plan.chance or 0.0) < AS_LIKELY_AS_NOT:
        return False
    return plan.segments[0].starts_at < plan.deadline


def _what_is_free(ask: Ask, problem: Problem, offers: Sequence[Offer]) -> Plan:
    """By the rule; and no money for a run that is not expected to be done with it."""
    found = plan_segment(replace(ask, budget_left=None), offers)
    if found.segments or ask.budget_left is None:
        return replace(found, is_in_time=False)
    setting = replace(Setting.of(problem, problem.runs[0]), effort=ADVICE_EFFORT)
    late = plan_late(setting)
    late = replace(late, segments=(), wait_until=found.wait_until, relaxations=relaxations(setting))
    helps = " or ".join(relaxation.words for relaxation in late.relaxations)
    reason = f"cannot be done within {ask.budget_left}: {helps}" if helps else late.reason or found.reason
    return replace(late, reason=reason)


def _fitted(ask: Ask, plan: Plan, outlook: Outlook) -> PlannedSegment:
    """The first segment, no longer than the run may go on; to its end where it stays where nothing is asked for it."""
    segment = plan.segments[0]
    offer, spans = segment.offer, [span for span in (segment.span, ask.span) if span is not None]
    if not offer.is_paid and offer.left is None and all(other.offer is offer for other in plan.segments):
        # one that has a deadline takes turns: another one's may be nearer
        turn = TURN if plan.deadline is not None else None
        promises = [promise.starts_at for promise in _promises(offer, outlook) if promise.starts_at > segment.starts_at]
        room = min(promises) - segment.starts_at if promises else None
        spans = [span for span in (offer.longest, offer.open_for(ask.now), ask.span, turn, room) if span is not None]
    span = max(min(spans), offer.shortest) if spans else None
    if not offer.is_paid or span is None:
        return replace(segment, span=span)
    return replace(segment, span=span, reserve=min(segment.reserve, offer.hourly.for_hours(span) + offer.once))


def _unpromised(offer: Offer, outlook: Outlook) -> Offer:
    """Without what runs that can be in time mean to take there soon."""
    promises = _promises(offer, outlook)
    if offer.refused or offer.is_paid or not promises:
        return offer
    if offer.left is not None:
        until = offer.refreshes_at
        taken = sum((p.span for p in promises if until is None or p.starts_at < until), timedelta(0))
        return replace(offer, left=max(timedelta(0), offer.left - taken))
    first = min(promises, key=lambda promise: promise.starts_at)
    if first.starts_at >= outlook.now + TURN:
        return offer
    ends = first.starts_at + first.span
    return replace(offer, refused=f"{first.run} is to be in time with it", refused_until=ends)


def _promises(offer: Offer, outlook: Outlook) -> list[Commitment]:
    name = place_name(offer.backend, offer.variant)
    return [commitment for commitment in outlook.commitments if commitment.place == name and commitment.run]


def _only_queues(offer: Offer, outlook: Outlook) -> bool:
    """Behind another run, where waiting costs nothing: there it is begun the moment the other one ends."""
    name = place_name(offer.backend, offer.variant)
    is_behind = any(commitment.place == name and not commitment.run for commitment in outlook.commitments)
    return is_behind and not offer.is_paid and offer.left is None and not offer.refused


def begins_elsewhere(plan: Plan, segment: Segment) -> bool:
    """Whether the plan begins now, and not where that segment was sent."""
    if not plan.segments or plan.wait_until is not None:
        return False
    offer = plan.segments[0].offer
    return place_name(offer.backend, offer.variant) != place_name(segment.backend, segment.offer)


def _why_not(ask: Ask, offer: Offer) -> str | None:
    if offer.refused:
        return offer.refused
    if offer.needs_encryption and ask.label is Label.SECRET:
        return "the data is secret and never leaves this machine"
    if offer.needs_encryption and ask.label is Label.PRIVATE and not offer.seals_private:
        return "the data is private and would have to be encrypted to go there"
    if _is_used_up(offer):
        return f"{used_up(offer)}{f' until {rfc3339(offer.refreshes_at)}' if offer.refreshes_at else ''}"
    if offer.is_paid:
        if ask.budget_left is None:
            return f"it costs {offer.hourly} an hour and the run has no budget"
        if offer.hourly.for_hours(_shortest(offer)) + offer.once > ask.budget_left:
            return f"it costs {offer.hourly} an hour and {ask.budget_left} may be spent"
    return None


def _is_used_up(offer: Offer) -> bool:
    return offer.left is not None and offer.left < _shortest(offer)


def _shortest(offer: Offer) -> timedelta:
    return max(SHORTEST, offer.shortest)


def _opens_at(offer: Offer) -> datetime | None:
    """When one that is closed now opens by itself."""
    if offer.refused and offer.refused_until:
        return offer.refused_until
    return offer.refreshes_at if _is_used_up(offer) else None


def _preference(offer: Offer) -> tuple[Money, timedelta, float, str]:
    return offer.hourly, offer.start_delay, -(offer.tflops or 0) * offer.accelerator_count, offer.backend


def _why_second(best: Offer, offer: Offer) -> str:
    if offer.hourly > best.hourly:
        return f"{offer.hourly} an hour; {best.backend} costs {best.hourly}"
    if offer.start_delay > best.start_delay:
        return f"starts later than {best.backend}"
    return f"no better than {best.backend}"


def _span(ask: Ask, offer: Offer) -> timedelta | None:
    limits = [span for span in (ask.span, offer.longest, offer.left, offer.open_for(ask.now)) if span is not None]
    if offer.hourly > FREE and ask.budget_left is not None:
        hours = (ask.budget_left - offer.once).micro_usd / offer.hourly.micro_usd
        limits.append(timedelta(seconds=int(hours * 3600)))
    return max(min(limits), offer.shortest) if limits else None
