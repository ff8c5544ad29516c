"""What stands before a place: what holds it back for now, and the breaker that leaves a silent one alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from elias.domain.habit import Habit
from elias.domain.hold import Hold
from elias.domain.offer import Need, Offer, refused_place
from elias.errors import BackendError, NotStarted
from elias.ports.backend import Backend, Bundle, Status
from elias.services.breaker import Breaker

Answer = TypeVar("Answer")
NOT_SEEN = "not seen"
"""The accelerator of an offer of a place that has not answered since this program began."""


def nothing_holds() -> Hold | None:
    return None


class Guarded:
    """The place itself, with all its powers, except that `offers` are refused while it is held or down.

    They also say when it is usually held.

    What is under way there goes on as ever: a segment is polled, fetched and cancelled whatever the breaker says, and
    each such call that fails is counted.
    """

    def __init__(
        self,
        name: str,
        place: Backend,
        breaker: Breaker | None,
        hold: Callable[[], Hold | None] = nothing_holds,
        habit: Callable[[], Habit | None] = lambda: None,
    ) -> None:
        self.name, self.place, self.breaker = name, place, breaker
        self._hold, self._habit = hold, habit
        self._known: Sequence[Offer] = ()
        for power in dir(type(place)):  # on the object, where isinstance looks for a protocol's methods
            if not power.startswith("_") and not hasattr(type(self), power) and callable(getattr(type(place), power)):
                setattr(self, power, getattr(place, power))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.place, name)

    def offers(self, need: Need) -> Sequence[Offer]:
        if (hold := self._hold()) is not None:
            return self._refused(self._offers(need), hold.why, hold.until)
        if self.breaker is not None and (down := self.breaker.is_down()) is not None:
            known = [replace(offer, is_down=True) for offer in self._known]
            return self._refused(known, down.words, down.probe_at)
        self._known = self._counted(lambda: self._offers(need))
        if self.breaker is not None:
            self.breaker.worked()
        return self._known

    def submit(self, key: str, bundle: Bundle, offer: Offer) -> str:
        if offer.accelerator == NOT_SEEN:
            raise BackendError(offer.refused or f"{self.name} is down", fix="nothing: it is asked again by itself")
        return self._counted(lambda: self.place.submit(key, bundle, offer))

    def poll(self, handle: str) -> Status:
        return self._counted(lambda: self.place.poll(handle))

    def fetch(self, handle: str, into: Path) -> None:
        self._counted(lambda: self.place.fetch(handle, into))

    def cancel(self, handle: str) -> None:
        self._counted(lambda: self.place.cancel(handle))

    def _offers(self, need: Need) -> Sequence[Offer]:
        habit = self._habit()
        found = self.place.offers(need)
        return [replace(offer, habit=habit) for offer in found] if habit else found

    def _counted(self, call: Callable[[], Answer]) -> Answer:
        """Only the failures: all but `offers` may be answered from memory, and then say nothing of the place."""
        try:
            return call()
        except BackendError as error:
            if self.breaker is not None and error.is_worth_retry and not isinstance(error, NotStarted):
                self.breaker.failed(error.what)
            raise

    def _refused(self, offers: Sequence[Offer], why: str, until: datetime | None) -> Sequence[Offer]:
        return [replace(offer, refused=why, refused_until=until) for offer in offers] or [
            refused_place(self.name, NOT_SEEN, why, until)
        ]
