"""A run's possible places in whole microseconds and micro-dollars: what the search computes with, exactly.

What is uncertain becomes a number here, on the safe side. A step is given the time that it stays below at a share
`SPEED_SHARE` of the allowed risk; all places' speeds are taken to err together, so that the sum of such times is the
sum's own quantile. The rest of the risk is for lost work: by Chernoff's bound, losses of `l` at rate `h` over a time
`T` stay below `T h (exp(k l) - 1) / k + ln(1 / rest) / k` for any k > 0, and such bounds add up over segments.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from elias.domain.label import Label
from elias.domain.offer import Offer
from elias.domain.speed import Estimate
from elias.services.planner.calendar import Calendar, Opening
from elias.services.planner.problem import Pace, Place, Problem, RunAsk
from elias.units import FREE

SPEED_SHARE = 0.7
AS_LIKELY_AS_NOT = 0.5
CAUTION = 1.25
"""Over the price that is likely: what a segment on spot is counted with for those after it; none at even chances."""
EXPONENTS = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
"""Chernoff's k times the longest loss; each holds: small ones suit long work, large ones what is nearly done."""
HOUR = 3_600_000_000
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lane:
    place: Place
    pace: Pace
    delay: int
    """Before each session: upload, queue, and what failed sessions cost on average."""
    slack: int
    """What lost work may take beyond what it takes on average, with the allowed probability: once a plan."""
    overhead: int
    """Of each session: start-up."""
    step: int
    likely_overhead: int
    likely_step: int
    shortest: int
    longest: int | None
    most_steps: int
    openings: Sequence[Opening]
    hourly: int
    likely_hourly: int
    spent_hourly: int
    """What an hour of a segment is counted with for those after it."""
    once: int

    def span(self, steps: int) -> int:
        return max(self.shortest, self.overhead + steps * self.step)

    def likely_span(self, steps: int) -> int:
        return min(self.span(steps), self.likely_overhead + steps * self.likely_step)

    def reserve(self, steps: int) -> int:
        return _for(self.hourly, self.span(steps)) + self.once

    def spends(self, steps: int, kept: int) -> int:
        """Of that, what is gone once it has ended, by today's price and some more; the rest comes back.

        With what lost work may cost beyond `kept`, the slack that the plan has before it.
        """
        return _for(self.spent_hourly, self.span(steps) + max(0, self.slack - kept)) + self.once

    def expected(self, steps: int) -> int:
        return _for(self.likely_hourly, self.likely_span(steps)) + self.once

    def steps_within(self, span: int) -> int:
        """The most that fit; below 1 where none does."""
        return (span - self.overhead) // self.step if span >= self.shortest else 0

    def span_for(self, money: int) -> int | None:
        """The longest that this much reserves; None is no limit, a negative one nothing."""
        left = money - self.once
        if left < 0:
            return -1
        return left * HOUR // self.hourly if self.hourly else None

    @property
    def is_free(self) -> bool:
        return not (self.hourly or self.once)


def make_lanes(problem: Problem, ask: RunAsk, calendar: Calendar) -> tuple[list[Lane], dict[str, str]]:
    """In order of name; and by name, why the others can not be had at all."""
    why = {place.key: reason for place in problem.places if (reason := why_never(place, ask))}
    usable = sorted((place for place in problem.places if place.key not in why), key=lambda place: place.key)
    risk = Risk.of(ask, usable)
    lanes = [_lane(problem, ask, place, risk, calendar) for place in usable]
    for lane in lanes:
        if not lane.openings:
            why[lane.place.key] = why_closed(lane.place)
    return [lane for lane in lanes if lane.openings], why


def label_forbids(label: Label, offer: Offer) -> str | None:
    if offer.needs_encryption and label is Label.SECRET:
        return "the data is secret and never leaves this machine"
    if offer.needs_encryption and label is Label.PRIVATE and not offer.seals_private:
        return "the data is private and would have to be encrypted to go there"
    return None


def why_never(place: Place, ask: RunAsk) -> str | None:
    """What no waiting would change."""
    offer = place.offer
    if offer.refused and offer.passes_at is None:
        return offer.refused
    if forbidden := label_forbids(ask.label, offer):
        return forbidden
    if place.key not in ask.paces:
        return "nobody knows how long a step takes there"
    if ask.budget is None and (offer.hourly > FREE or place.offer.once > FREE):
        return f"it costs {offer.hourly} an hour and the run has no budget"
    return None


@dataclass(frozen=True, slots=True)
class Risk:
    """How the allowed risk is shared out, in seconds."""

    quantile: float
    rest: float
    rate: float
    """Chernoff's k, a second: by that of `EXPONENTS` that sets least aside if all is done in the least time."""

    @classmethod
    def of(cls, ask: RunAsk, places: Sequence[Place]) -> Risk:
        allowed = 1 - ask.wanted
        quantile, rest = 1 - allowed * SPEED_SHARE, allowed * (1 - SPEED_SHARE)
        risky = [place for place in places if is_risky(place)]
        longest = max([1.0, *(loss_s(place, ask.paces[place.key], quantile) for place in risky)])
        hazard = max((place.offer.interruptions_per_hour for place in risky), default=0.0)
        failing = max((place.failure_rate for place in risky), default=0.0)
        mean = hazard * min((_hours(ask, place, quantile) for place in risky), default=0.0)

        def aside(exponent: float) -> float:
            """In losses: over the work, and for its start."""
            each = math.expm1(exponent)
            return (mean * each + math.log1p(failing * each) + math.log(1 / rest)) / exponent

        return cls(quantile, rest, min(EXPONENTS, key=aside) / longest)


def _hours(ask: RunAsk, place: Place, quantile: float) -> float:
    """All that is left, done there."""
    pace = ask.paces[place.key]
    return (pace.start_up.quantile(quantile) + ask.steps * pace.step.quantile(quantile)) / 3600


def is_risky(place: Place) -> bool:
    return place.offer.interruptions_per_hour > 0 or place.failure_rate > 0


def loss_s(place: Place, pace: Pace, quantile: float) -> float:
    """Seconds that an interrupted or failed session costs."""
    wait = place.offer.start_delay + place.upload
    return (place.loss + wait).total_seconds() + pace.start_up.quantile(quantile)


def _lane(problem: Problem, ask: RunAsk, place: Place, risk: Risk, calendar: Calendar) -> Lane:
    pace, offer = ask.paces[place.key], place.offer
    lost = loss_s(place, pace, risk.quantile)
    hazard = offer.interruptions_per_hour / 3600
    growth = math.expm1(risk.rate * lost) if is_risky(place) else 0.0
    inflation = 1 + hazard * growth / risk.rate
    failing = math.log1p(place.failure_rate * growth) / risk.rate
    reserve = math.log(1 / risk.rest) / risk.rate
    overhead = pace.start_up.quantile(risk.quantile) * inflation
    step = _micros_of(pace.step.quantile(risk.quantile) * inflation)
    likely_inflation = 1 + hazard * lost
    longest = [span for span in (offer.longest, ask.longest) if span is not None]
    likely = min(
        offer.hourly.micro_usd, (offer.hourly if offer.likely_hourly is None else offer.likely_hourly).micro_usd
    )
    caution = CAUTION if ask.wanted > AS_LIKELY_AS_NOT else 1.0
    return Lane(
        place=place,
        pace=pace,
        delay=micros(offer.start_delay + place.upload) + _micros_of(failing),
        slack=_micros_of(reserve) if is_risky(place) else 0,
        overhead=_micros_of(overhead),
        step=max(1, step),
        likely_overhead=min(_micros_of(_mean(pace.start_up) * likely_inflation), _micros_of(overhead)),
        likely_step=max(1, min(_micros_of(_mean(pace.step) * likely_inflation), step)),
        shortest=micros(max(ask.shortest, offer.shortest)),
        longest=micros(min(longest)) if longest else None,
        most_steps=ask.most_steps or ask.steps,
        openings=calendar.openings(place, ask.ready),
        hourly=offer.hourly.micro_usd,
        likely_hourly=likely,
        spent_hourly=min(offer.hourly.micro_usd, math.ceil(likely * caution)),
        once=offer.once.micro_usd,
    )


def micros(span: timedelta) -> int:
    return span // MICROSECOND


def since(now: datetime, moment: datetime) -> int:
    return micros(moment - now)


def _mean(estimate: Estimate) -> float:
    return estimate.likely * math.exp(estimate.sigma**2 / 2)


def _micros_of(seconds: float) -> int:
    return math.ceil(seconds * 1e6)


def _for(hourly: int, span: int) -> int:
    return -(-hourly * span // HOUR)


def why_closed(place: Place) -> str:
    if place.offer.left is not None and place.refill is None:
        return f"{used_up(place.offer)}, and nobody knows what it will hold next"
    return "it has no free hours within the time that is planned"


def used_up(offer: Offer) -> str:
    return f"its quota is used up{f': {kept_hours(offer)}' if offer.kept else ''}"


def kept_hours(offer: Offer) -> str:
    """Empty where none are."""
    return (
        f"{offer.kept / timedelta(hours=1):.1f} h of its quota are kept for runs without a budget" if offer.kept else ""
    )
