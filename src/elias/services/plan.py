"""Which place takes the next segment: the cheapest that may, can and has time left; and why not the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from elias.domain.label import Label
from elias.domain.offer import Offer
from elias.domain.plan import NotTaken, Plan, PlannedSegment
from elias.units import FREE, Money, rfc3339

SHORTEST = timedelta(minutes=2)
"""Below this a rented or rationed segment is spent on loading the base; it is not begun."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """What is to be placed now."""

    label: Label
    now: datetime
    span: timedelta | None = None
    """The longest that the segment may take; None runs to the end of the run."""
    budget_left: Money | None = None
    """None has no budget: nothing that costs money is taken."""


def plan_segment(ask: Ask, offers: Sequence[Offer]) -> Plan:
    """One segment, or none with the reason and the instant at which it is worth asking again."""
    reasons = {n: why for n, offer in enumerate(offers) if (why := _why_not(ask, offer))}
    fits = [offer for n, offer in enumerate(offers) if n not in reasons]
    not_taken = [NotTaken(offer=offers[n], why=why) for n, why in reasons.items()]
    if not fits:
        wait_until = min((o.refreshes_at for o in offers if _is_used_up(o) and o.refreshes_at), default=None)
        reason = "; ".join(f"{taken.offer.backend}: {taken.why}" for taken in not_taken) or "no place is configured"
        return Plan(segments=(), not_taken=tuple(not_taken), wait_until=wait_until, reason=reason)
    best, *others = sorted(fits, key=_preference)
    not_taken += [NotTaken(offer=offer, why=_why_second(best, offer)) for offer in others]
    span = _span(ask, best)
    reserve = best.hourly.for_hours(span) if span is not None else FREE
    chosen = PlannedSegment(offer=best, starts_at=ask.now + best.start_delay, span=span, reserve=reserve)
    return Plan(segments=(chosen,), not_taken=tuple(not_taken))


def _why_not(ask: Ask, offer: Offer) -> str | None:
    if offer.refused:
        return offer.refused
    if offer.needs_encryption and ask.label is Label.SECRET:
        return "the data is secret and never leaves this machine"
    if offer.needs_encryption and ask.label is Label.PRIVATE and not offer.seals_private:
        return "the data is private and would have to be encrypted to go there"
    if _is_used_up(offer):
        return f"its quota is used up{f' until {rfc3339(offer.refreshes_at)}' if offer.refreshes_at else ''}"
    if offer.hourly > FREE:
        if ask.budget_left is None:
            return f"it costs {offer.hourly} an hour and the run has no budget"
        if offer.hourly.for_hours(SHORTEST) > ask.budget_left:
            return f"it costs {offer.hourly} an hour and {ask.budget_left} of the budget is left"
    return None


def _is_used_up(offer: Offer) -> bool:
    return offer.left is not None and offer.left < SHORTEST


def _preference(offer: Offer) -> tuple[Money, timedelta, float, str]:
    return offer.hourly, offer.start_delay, -(offer.tflops or 0) * offer.accelerator_count, offer.backend


def _why_second(best: Offer, offer: Offer) -> str:
    if offer.hourly > best.hourly:
        return f"{offer.hourly} an hour; {best.backend} costs {best.hourly}"
    if offer.start_delay > best.start_delay:
        return f"starts later than {best.backend}"
    return f"no better than {best.backend}"


def _span(ask: Ask, offer: Offer) -> timedelta | None:
    limits = [span for span in (ask.span, offer.longest, offer.left) if span is not None]
    if offer.hourly > FREE and ask.budget_left is not None:
        hours = ask.budget_left.micro_usd / offer.hourly.micro_usd
        limits.append(timedelta(seconds=int(hours * 3600)))
    return min(limits, default=None)
