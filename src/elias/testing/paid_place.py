"""A place that costs money, around one that does not: it asks a price, keeps a bill in a file, and fails on demand.

What it bills is made up by the test; everything else (the trainer, its files, its end) is the inner place's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from elias.domain.offer import Need, Offer
from elias.errors import BackendError, ConfigError, NotStarted, QuotaExhausted
from elias.ports.backend import Bundle, Status
from elias.units import FREE, Money

LOST, REFUSED, EXPIRED, NOT_STARTED = "lost", "refused", "expired", "not started"
"""What the next `submit` may meet: begun and its answer lost; no quota; no valid key; certainly nothing begun."""


@dataclass(kw_only=True)
class PaidPlace:
    inner: Any
    """A backend that takes leases and streams events, such as this machine's."""
    bill: Path
    """A file with a line for each segment that was begun: what the provider would charge for."""
    hourly: Money = field(default_factory=lambda: Money.usd(6))
    once: Money = FREE
    cost: Money = field(default_factory=lambda: Money.usd("0.50"))
    """Of each segment, once it has ended."""
    faults: list[str] = field(default_factory=list)
    """Met by `submit`, the first one first."""
    is_reachable: bool = True

    def offers(self, need: Need) -> Sequence[Offer]:
        self._reach()
        own = {"hourly": self.hourly, "once": self.once, "variant": "rented"}
        return [replace(offer, **own) for offer in self.inner.offers(need)]

    def submit(self, key: str, bundle: Bundle, offer: Offer) -> str:
        fault = self.faults.pop(0) if self.faults else None
        if fault == REFUSED:
            raise QuotaExhausted("no quota for that machine", fix="ask for more")
        if fault == EXPIRED:
            raise ConfigError("the key of this account has expired", fix="renew it")
        if fault == NOT_STARTED:
            raise NotStarted("there is no such machine just now", fix="wait")
        self._reach()
        if key not in self.begun():
            with self.bill.open("a") as stream:
                stream.write(f"{key}\n")
        handle = str(self.inner.submit(key, bundle, offer))
        if fault == LOST:
            raise BackendError("the connection broke before the answer", fix="wait")
        return handle

    def poll(self, handle: str) -> Status:
        self._reach()
        status: Status = replace(self.inner.poll(handle), started_at=None)  # by a clock that a test may not move
        return replace(status, cost=self.cost) if status.state.is_final else status

    def begun(self) -> Sequence[str]:
        return self.bill.read_text().split() if self.bill.exists() else []

    def billed(self, since: datetime, until: datetime) -> Mapping[str, Money]:
        return dict.fromkeys(self.begun(), self.cost)

    def fetch(self, handle: str, into: Path) -> None:
        self._reach()
        self.inner.fetch(handle, into)

    def cancel(self, handle: str) -> None:
        self._reach()
        self.inner.cancel(handle)

    def renew(self, handle: str) -> None:
        self.inner.renew(handle)

    def events(self, handle: str, after: int) -> Iterator[Mapping[str, Any]]:
        yield from self.inner.events(handle, after)

    def _reach(self) -> None:
        if not self.is_reachable:
            raise BackendError("the place cannot be reached", fix="wait")


class FindingPlace(PaidPlace):
    """One that can tell what was begun under a key."""

    def find(self, key: str) -> str | None:
        self._reach()
        return key if key in self.begun() else None
