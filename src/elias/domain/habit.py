"""Room 3. When in the week this machine is usually wanted for something else, as it was seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo

DAYS, HOURS = 7, 24
CELLS = DAYS * HOURS
WORKING_DAYS = 5
HOUR = timedelta(hours=1)
MEMORY = 4.0
"""Hours of one hour of the week, so weeks, that are remembered: older ones fade."""
OWN = 0.5
"""Hours of the same hour on like days that count as much as an hour of the week itself."""
ENOUGH = 2.0
"""Hours of like days, below which nobody can say."""
USUALLY = 1 / 3
"""The share from which on an hour is not counted on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Habit:
    """By hour of the week, Monday's first hour in front: hours looked at, and hours of these that were taken."""

    seen: tuple[float, ...] = (0.0,) * CELLS
    taken: tuple[float, ...] = (0.0,) * CELLS
    zone: tzinfo | None = None
    """None is this machine's own."""

    def after(self, since: datetime, until: datetime, *, taken: bool) -> Habit:
        """With what was seen between the two."""
        seen, had = list(self.seen), list(self.taken)
        for begins, ends, cell in self._cells(since, until):
            share = (ends - begins) / HOUR
            fades = min(1.0, MEMORY / (seen[cell] + share))
            seen[cell] = (seen[cell] + share) * fades
            had[cell] = (had[cell] + (share if taken else 0.0)) * fades
        return replace(self, seen=tuple(seen), taken=tuple(had))

    def share(self, cell: int) -> float | None:
        """How much of that hour is usually taken; None while too little was seen of it and of the same on like days."""
        like = _like(cell)
        of_like = sum(self.seen[c] for c in like)
        if of_like < ENOUGH:
            return None
        pooled = sum(self.taken[c] for c in like) / of_like
        return (self.taken[cell] + OWN * pooled) / (self.seen[cell] + OWN)

    def shares(self) -> list[float | None]:
        """Of all hours of the week."""
        return [self.share(cell) for cell in range(CELLS)]

    def usually_taken(self, since: datetime, until: datetime) -> Iterator[tuple[datetime, datetime]]:
        """In order, not touching; the first and the last are cut off at both ends."""
        closed = [(share or 0.0) >= USUALLY for share in self.shares()]
        if not any(closed):
            return
        opens: datetime | None = None
        for begins, _, cell in self._cells(since, until):
            if closed[cell] and opens is None:
                opens = begins
            elif not closed[cell] and opens is not None:
                yield opens, begins
                opens = None
        if opens is not None:
            yield opens, until

    def _cells(self, since: datetime, until: datetime) -> Iterator[tuple[datetime, datetime, int]]:
        at = since
        while at < until:
            here = at.astimezone(self.zone)
            into = timedelta(minutes=here.minute, seconds=here.second, microseconds=here.microsecond)
            ends = min(at + HOUR - into, until)
            yield at, ends, here.weekday() * HOURS + here.hour
            at = ends


def _like(cell: int) -> list[int]:
    """The same hour of the working days, or of the other two."""
    day, hour = divmod(cell, HOURS)
    days = range(WORKING_DAYS) if day < WORKING_DAYS else range(WORKING_DAYS, DAYS)
    return [d * HOURS + hour for d in days]
