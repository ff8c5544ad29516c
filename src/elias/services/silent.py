"""A place that does not answer is left out of a plan that has others; but money is not spent in its stead at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from elias.domain.offer import Need, Offer, refused_place
from elias.domain.plan import Plan
from elias.errors import BackendError
from elias.ports.backend import Backend
from elias.units import FREE

NO_ANSWER = "no answer"
"""The accelerator of an offer of a place that could not be asked just now."""
ASK_AGAIN = timedelta(minutes=1)


def offers_of(places: Mapping[str, Backend], need: Need, now: datetime) -> Iterator[tuple[Offer, Backend]]:
    """Of all places; one of several that fails is refused for a minute. Raises BackendError of one that is alone."""
    for name, place in places.items():
        try:
            found = place.offers(need)
        except BackendError as error:
            if len(places) == 1:
                raise
            found = [refused_place(name, NO_ANSWER, f"it does not answer: {error.what}", now + ASK_AGAIN)]
        for offer in found:
            yield _asked_later(offer, now), place


def _asked_later(offer: Offer, now: datetime) -> Offer:
    """One that still refuses when that should have passed, as after a clock was set, is not asked without a pause."""
    if not offer.refused or offer.refused_until is None or offer.refused_until > now:
        return offer
    return replace(offer, refused_until=now + ASK_AGAIN)


def before_money(plan: Plan, offers: Sequence[Offer]) -> Plan:
    """What would be paid for waits while a place has only just fallen silent: it may be free, and soon back.

    Its circuit breaker ends this: one that is down counts as gone.
    """
    silent = [offer for offer in offers if offer.accelerator == NO_ANSWER]
    if not silent or not plan.segments or plan.wait_until is not None:
        return plan
    first = plan.segments[0].offer
    if first.hourly == FREE and first.once == FREE:
        return plan
    reason = f"before money is spent on {first.backend}, {silent[0].backend} is asked again: {silent[0].refused}"
    return replace(plan, segments=(), wait_until=silent[0].refused_until, reason=reason)
