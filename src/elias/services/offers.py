"""The offers of all places in one list: asked all at once, none waited for too long, each with what it would take."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import timedelta

from elias.domain.label import Label
from elias.domain.offer import Need, Offer
from elias.domain.speed import Estimate
from elias.errors import BackendError, EliasError
from elias.ports.backend import Backend
from elias.services.estimate import Forecast, Known, forecast_new
from elias.services.sightings import Reliability
from elias.units import FREE, Money


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """Of one place: its offers, or why there are none."""

    backend: str
    offers: tuple[Offer, ...] = ()
    error: EliasError | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class OfferRow:
    """An offer, and what is known about it here."""

    offer: Offer
    takes: Label
    """The strictest label that may go there."""
    refused: str | None
    """Why it does not take this need: its own word, or the label's."""
    forecast: Forecast
    seconds: Estimate | None
    """The whole run: every step, and a start-up for each session; waiting for the place left out."""
    cost: Money | None
    """Of that, at the likely time and price."""
    reliability: Reliability


@dataclass(frozen=True, kw_only=True, slots=True)
class PlaceRows:
    """A place that cannot be asked has no rows, but says why and what would help."""

    backend: str
    rows: tuple[OfferRow, ...] = ()
    not_ready: str | None = None
    fix: str | None = None
    left_out: str | None = None
    """Why `hybrid` does not go there, whatever it offers."""


def ask_all(places: Mapping[str, Callable[[], Backend]], need: Need, within: timedelta) -> tuple[Answer, ...]:
    """One answer for each place, in their order. Never raises, and returns within about `within`."""
    asked = {name: _ask(name, make, need) for name, make in places.items()}
    until = time.monotonic() + within.total_seconds()
    return tuple(_answer(name, future, until, within) for name, future in asked.items())


def rows_of(answer: Answer, need: Need, known: Known) -> PlaceRows:
    """Those that take the need first, the cheapest and then the soonest done in front."""
    if answer.error is not None:
        return PlaceRows(backend=answer.backend, not_ready=answer.error.what, fix=answer.error.fix)
    if not answer.offers:
        return PlaceRows(backend=answer.backend, not_ready="it offers nothing for this")
    rows = [_row(offer, need, known) for offer in answer.offers]
    return PlaceRows(backend=answer.backend, rows=tuple(sorted(rows, key=_order)))


def strictest_allowed(offer: Offer) -> Label:
    if not offer.needs_encryption:
        return Label.SECRET
    return Label.PRIVATE if offer.seals_private else Label.SHARED


@dataclass
class _Asking:
    """A thread that nobody has to wait for: one that hangs is left behind, and ends with the process."""

    future: Future[tuple[Offer, ...]] = field(default_factory=Future)

    def run(self, make: Callable[[], Backend], need: Need) -> None:
        try:
            self.future.set_result(tuple(make().offers(need)))
        except Exception as error:  # noqa: BLE001 - kept for `_answer`: a stranger's plug-in must not end the list
            self.future.set_exception(error)


def _ask(name: str, make: Callable[[], Backend], need: Need) -> Future[tuple[Offer, ...]]:
    asking = _Asking()
    threading.Thread(target=asking.run, args=(make, need), name=f"offers of {name}", daemon=True).start()
    return asking.future


def _answer(name: str, future: Future[tuple[Offer, ...]], until: float, within: timedelta) -> Answer:
    try:
        error = future.exception(timeout=max(0.0, until - time.monotonic()))
    except TimeoutError:
        what = f"{name} did not answer within {within.total_seconds():g} s"
        return Answer(backend=name, error=BackendError(what, fix="look at the network, or give it longer: --timeout"))
    if error is None:
        return Answer(backend=name, offers=future.result())
    if isinstance(error, EliasError):
        return Answer(backend=name, error=error)
    what = f"the backend {name!r} failed: {type(error).__name__}: {error}"
    return Answer(backend=name, error=BackendError(what, fix="that is a mistake in its program: tell its makers"))


def _row(offer: Offer, need: Need, known: Known) -> OfferRow:
    told, takes = forecast_new(need, offer, known), strictest_allowed(offer)
    refused = offer.refused
    if refused is None and need.label.strictness > takes.strictness:
        refused = f"the data is {need.label}, and only {takes} data or more open may go there"
    seconds = _whole(told, offer)
    return OfferRow(
        offer=offer,
        takes=takes,
        refused=refused,
        forecast=told,
        seconds=seconds,
        cost=_cost(offer, seconds),
        reliability=known.seen.of(offer.backend),
    )


def _whole(told: Forecast, offer: Offer) -> Estimate | None:
    training = told.remaining
    if training is None:
        return None
    sessions = 1
    if offer.longest is not None:
        room = offer.longest.total_seconds() - told.overheads.start_up.likely
        sessions = max(1, math.ceil(training.likely / room)) if room > 0 else 1
    return training.plus(told.overheads.start_up.times(sessions))


def _cost(offer: Offer, seconds: Estimate | None) -> Money | None:
    if offer.hourly == FREE:
        return FREE
    if seconds is None:
        return None
    hourly = offer.hourly if offer.likely_hourly is None else offer.likely_hourly
    return hourly.for_hours(timedelta(seconds=seconds.likely)) + offer.once


def _order(row: OfferRow) -> tuple[bool, int, float, Sequence[str]]:
    cost = row.cost.micro_usd if row.cost else row.offer.hourly.micro_usd
    seconds = row.seconds.likely if row.seconds else row.forecast.step.likely
    return row.refused is not None, cost, seconds, (row.offer.backend, row.offer.variant)
