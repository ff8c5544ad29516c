"""Looks, at the node's start and then on a timer, for what costs money elsewhere and belongs to no run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from elias.domain.holding import Holding, HoldingKind, Orphan, Owner, may_be_stopped, orphans_among
from elias.domain.run import RunState
from elias.errors import EliasError, NotFound
from elias.ports.backend import Backend, HasHoldings
from elias.ports.stores import RunStore
from elias.units import Clock

log = logging.getLogger("elias.orphans")

LOOK_EVERY = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What one place was found to hold."""

    place: str
    at: datetime
    holdings: tuple[Holding, ...] = ()
    orphans: tuple[Orphan, ...] = ()
    stopped: tuple[str, ...] = ()
    """Orphaned jobs that were told to end, just now."""
    trouble: str | None = None
    """Why nobody can say."""

    @property
    def jobs(self) -> list[Holding]:
        return [holding for holding in self.holdings if holding.kind is HoldingKind.JOB]


class Orphans:
    """`places` are all that is configured; those without holdings of their own are passed over."""

    def __init__(self, places: Callable[[], Mapping[str, Backend]], runs: RunStore, clock: Clock) -> None:
        self._places = places
        self._runs = runs
        self._clock = clock
        self._suspects: set[tuple[str, str]] = set()
        """Orphaned jobs at the last look: only one that was so twice is stopped."""
        self.last: list[Look] = []
        """What was found last; empty before the first look has ended."""

    def look(self) -> list[Look]:
        """At every place now, and stop what may be stopped. One that cannot be looked at says so and stops nothing."""
        places = self._places().items()
        self.last = [self._look_at(name, place) for name, place in places if isinstance(place, HasHoldings)]
        return self.last

    def owner(self, run: str, segment: str | None) -> Owner:
        """By the node's store. Raises StoreError, which must not pass for `unknown`."""
        try:
            found = self._runs.get(run)
        except NotFound:
            return Owner.UNKNOWN
        if found.id != run:  # the store takes the beginning of an id too
            return Owner.UNKNOWN
        if segment is None:
            return Owner.ENDED if found.state in (RunState.DONE, RunState.CANCELLED) else Owner.UNDER_WAY
        known = next((s for s in self._runs.segments(found.id) if s.key == segment), None)
        if known is None:
            return Owner.UNKNOWN
        return Owner.ENDED if known.state.is_final else Owner.UNDER_WAY

    def _look_at(self, name: str, place: HasHoldings) -> Look:
        now = self._clock.now()
        try:
            holdings = tuple(place.holdings())
            orphans = tuple(orphans_among(holdings, self.owner))
            stopped = tuple(self._stop(name, place, orphans))
        except EliasError as error:
            log.warning("orphans.no_look place=%s what=%s", name, error.what)
            return Look(place=name, at=now, trouble=f"{error.what} (fix: {error.fix})")
        return Look(place=name, at=now, holdings=holdings, orphans=orphans, stopped=stopped)

    def _stop(self, name: str, place: HasHoldings, orphans: Sequence[Orphan]) -> list[str]:
        grace, before = place.orphan_grace(), self._suspects
        jobs = [orphan for orphan in orphans if orphan.holding.kind is HoldingKind.JOB]
        self._suspects = {s for s in before if s[0] != name} | {(name, job.holding.name) for job in jobs}
        stopped = []
        for orphan in jobs:
            job = orphan.holding.name
            if (name, job) not in before:
                log.warning("orphans.found place=%s job=%s why=%s", name, job, orphan.why)
            elif grace is not None and may_be_stopped(orphan, self._clock.now(), grace):
                place.stop(job)
                log.warning("orphans.stopped place=%s job=%s why=%s", name, job, orphan.why)
                stopped.append(job)
        return stopped
