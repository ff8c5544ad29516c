"""An offer that says for itself how long the whole run would take there, and for how much."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from elias.domain.interruption import Work, expected_hours
from elias.domain.offer import Offer
from elias.services.estimate import Forecast


def foretold(offer: Offer, forecast: Forecast, checkpoint_every: timedelta) -> Offer:
    """By all that was measured, in place of what its place could only guess; unchanged where nobody knows the work."""
    if forecast.remaining is None:
        return offer
    told = forecast.overheads
    work = Work(
        steps=forecast.remaining.likely / 3600,
        start=told.start_up.likely / 3600,
        between_checkpoints=(checkpoint_every.total_seconds() + told.checkpoint.likely) / 3600,
    )
    span = timedelta(hours=expected_hours(work, offer.interruptions_per_hour))
    price = offer.hourly if offer.likely_hourly is None else offer.likely_hourly
    return replace(offer, likely_span=span, likely_cost=price.for_hours(span) + offer.once)
