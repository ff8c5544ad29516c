"""A place that does not answer, or is not set up, is left out of a plan that has others.

But money is not spent at once in the stead of one that has only just fallen silent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from elias.domain.offer import Need, Offer, refused_place
from elias.domain.plan import Plan
from elias.errors import BackendError, EliasError, InputError, Refused, UserError, VerificationError
from elias.ports.backend import Backend

NO_ANSWER = "no answer"
"""The accelerator of an offer of a place that could not be asked just now."""
NOT_SET_UP = "not set up"
"""Of one that somebody has to do something about first."""
ASK_AGAIN = timedelta(minutes=1)


def offers_of(places: Mapping[str, Backend], need: Need, now: datetime) -> Iterator[tuple[Offer, Backend]]:
    """Of all places; of several one that does not answer is refused for a minute, one that is not set up for good.

    Raises InputError where no place could ever do what the need says, and what keeps a place that is alone.
    """
    for name, place in places.items():
        try:
            found = place.offers(need)
        except InputError:
            raise
        except (BackendError, UserError, Refused, VerificationError) as error:
            if len(places) == 1:
                raise
            found = [_failed(name, error, now)]
        for offer in found:
            yield _asked_later(offer, now), place


def _failed(name: str, error: EliasError, now: datetime) -> Offer:
    if isinstance(error, BackendError):
        return refused_place(name, NO_ANSWER, f"it does not answer: {error.what}", now + ASK_AGAIN)
    return refused_place(name, NOT_SET_UP, f"{error.what} (fix: {error.fix})", None)


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
    if not first.is_paid:
        return plan
    reason = f"before money is spent on {first.backend}, {silent[0].backend} is asked again: {silent[0].refused}"
    return replace(plan, segments=(), wait_until=silent[0].refused_until, reason=reason)
