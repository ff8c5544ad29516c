"""An offer that says for itself how long the whole run would take there, and for how much."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

from elias.domain.interruption import Work, expected_hours
from elias.domain.offer import Offer
from elias.services.estimate import Forecast
from elias.units import FREE

SURELY = 0.9
"""With this probability the shortest segment has loaded the base before it is over."""


def foretold(offer: Offer, forecast: Forecast, checkpoint_every: timedelta) -> Offer:
    """By all that was measured, in place of what its place could only guess; what nobody knows stays.

    No segment that costs money is shorter than its start and its last checkpoint: it would be paid for nothing.
    """
    told = forecast.overheads
    if offer.hourly > FREE:
        least = timedelta(seconds=math.ceil(told.start_up.plus(told.checkpoint).quantile(SURELY)))
        least = least if offer.longest is None else min(least, offer.longest)
        offer = replace(offer, shortest=max(offer.shortest, least))
    if forecast.remaining is None:
        return offer
    work = Work(
        steps=forecast.remaining.likely / 3600,
        start=told.start_up.likely / 3600,
        between_checkpoints=(checkpoint_every.total_seconds() + told.checkpoint.likely) / 3600,
    )
    span = timedelta(hours=expected_hours(work, offer.interruptions_per_hour))
    price = offer.hourly if offer.likely_hourly is None else offer.likely_hourly
    return replace(offer, likely_span=span, likely_cost=price.for_hours(span) + offer.once)
