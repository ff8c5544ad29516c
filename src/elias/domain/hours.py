"""Room 3. Hours of the day in which a place can be had."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo


@dataclass(frozen=True, kw_only=True, slots=True)
class DailyHours:
    opens: time
    closes: time
    """On the next day where it is no later than `opens`."""
    zone: tzinfo | None = None
    """None is this machine's own."""

    @classmethod
    def parse(cls, text: str) -> DailyHours:
        """Such as `22:00-07:00`, in this machine's time. Raises ValueError."""
        opens, dash, closes = text.partition("-")
        if not dash:
            raise ValueError(f"{text!r} has no dash")
        return cls(opens=time.fromisoformat(opens.strip()), closes=time.fromisoformat(closes.strip()))

    def __str__(self) -> str:
        return f"from {self.opens:%H:%M} to {self.closes:%H:%M}"

    def spans(self, since: datetime, until: datetime) -> Iterator[tuple[datetime, datetime]]:
        """In order, in UTC: those that close after `since` and open before `until`; the first may be open by then."""
        day = since.astimezone(self.zone).date() - timedelta(days=1)
        while (opens := self._at(day, self.opens)) < until:
            over_night = timedelta(days=1 if self.closes <= self.opens else 0)
            closes = self._at(day + over_night, self.closes)
            if closes > since:
                yield opens, closes
            day += timedelta(days=1)

    def closed_until(self, now: datetime) -> datetime | None:
        """None within the hours."""
        opens, _ = next(self.spans(now, now + timedelta(days=2)))
        return opens if opens > now else None

    def _at(self, day: date, moment: time) -> datetime:
        return datetime.combine(day, moment, tzinfo=self.zone).astimezone(UTC)
