"""When places can be had: windows, quota periods and what is taken, in microseconds from now."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from elias.domain.spans import without
from elias.services.planner.problem import Commitment, Place, Problem

_MICROSECOND = timedelta(microseconds=1)


class Opening(NamedTuple):
    """A segment lies within one: which quota's hours a session across a refresh takes is nowhere promised."""

    opens: int
    closes: int
    period: tuple[str, int] | None
    """The quota and its how-many-eth period; None takes from none."""


@dataclass
class Calendar:
    """Of a whole problem; `take` books a segment, and the next run sees what is left."""

    problem: Problem
    left: dict[tuple[str, int], int] = field(default_factory=dict)
    """Of each quota period."""
    ends: dict[tuple[str, int], int] = field(default_factory=dict)
    busy: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    """By whose sessions they are."""
    caps: dict[str, int] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    periods: dict[str, list[tuple[int, int, tuple[str, int] | None]]] = field(default_factory=dict)
    closed: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """When all sessions are taken; made anew after each change."""

    def __post_init__(self) -> None:
        self.places = {place.key: place for place in self.problem.places}
        for place in self.problem.places:
            own = place.sessions_key
            # several offers may speak of one account; the most cautious is believed
            self.caps[own] = min(self.caps.get(own, place.offer.concurrency), place.offer.concurrency)
            self.periods[place.key] = self._periods(place)
        for backend, cap in self.problem.session_caps.items():
            self.caps[_account(backend)] = cap
        for commitment in self.problem.commitments:
            self.commit(commitment)

    @property
    def end(self) -> int:
        return self.problem.horizon // _MICROSECOND

    def at(self, moment: datetime) -> int:
        return (moment - self.problem.now) // _MICROSECOND

    def commit(self, commitment: Commitment) -> None:
        start = self.at(commitment.starts_at)
        self.take(commitment.place, start, start + commitment.span // _MICROSECOND, counts=not commitment.is_in_quota)

    def take(self, name: str, start: int, end: int, *, counts: bool = True) -> None:
        """Book a session."""
        place = self.places.get(name)
        if place is None:
            return
        for key in self.session_keys(place):
            self.busy[key].append((start, end))
            self.closed.pop(key, None)
        period = next((p for opens, closes, p in self.periods[name] if opens <= start < closes), None)
        if period and counts:
            self.left[period] -= end - start

    def openings(self, place: Place, ready: datetime | None = None) -> list[Opening]:
        """In order of time, cut where a refusal passes, a quota refreshes, a window closes, or all are taken.

        `ready`: nothing is sent there before that.
        """
        opens = self.at(place.takes_from) if place.takes_from else 0
        if ready is not None:
            opens = max(opens, self.at(ready + place.offer.start_delay + place.upload))
        spans = [(max(o, opens), c, p) for o, c, p in self.periods[place.key] if p is None or self.left[p] > 0]
        if place.windows:
            windows = [(self.at(w.opens), self.at(w.closes)) for w in place.windows]
            spans = [(max(o, a), min(c, b), p) for o, c, p in spans for a, b in windows]
        for key in self.session_keys(place):
            spans = [(*part, p) for o, c, p in spans for part in without([(o, c)], self._full(key))]
        return [Opening(o, c, p) for o, c, p in spans if c > o]

    def session_keys(self, place: Place) -> list[str]:
        account = _account(place.offer.backend)
        return [place.sessions_key, *([account] if account in self.caps else [])]

    def _periods(self, place: Place) -> list[tuple[int, int, tuple[str, int] | None]]:
        offer, quota = place.offer, place.quota_key
        if offer.left is None:
            return [(0, self.end, None)]
        first = self.end if offer.refreshes_at is None else min(max(0, self.at(offer.refreshes_at)), self.end)
        found: list[tuple[int, int, tuple[str, int] | None]] = []
        opens, closes, number = 0, first, 0
        while opens < self.end:
            holds = offer.left if number == 0 else place.refill or timedelta(0)
            period = (quota, number)
            self.left[period] = min(self.left.get(period, holds // _MICROSECOND), holds // _MICROSECOND)
            self.ends[period] = closes
            found.append((opens, closes, period))
            number += 1
            opens, closes = closes, min(closes + place.refresh_every // _MICROSECOND, self.end)
        return found

    def _full(self, key: str) -> list[tuple[int, int]]:
        """When as many sessions run as may."""
        if key not in self.closed:
            self.closed[key] = _at_least(self.busy.get(key, []), self.caps[key])
        return self.closed[key]


def _account(backend: str) -> str:
    return f"all of {backend}"


def _at_least(sessions: list[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """The spans in which so many sessions run."""
    changes = sorted([(start, 1) for start, _ in sessions] + [(end, -1) for _, end in sessions])
    if count <= 0:
        return [(0, 1 << 62)]
    found: list[tuple[int, int]] = []
    running, since = 0, None
    for moment, change in changes:
        running += change
        if running >= count and since is None:
            since = moment
        elif running < count and since is not None:
            if moment > since:
                found.append((since, moment))
            since = None
    return found
