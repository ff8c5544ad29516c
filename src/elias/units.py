"""Money, instants and spans: the raw numbers that must never be mixed up."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Protocol

from elias.errors import InputError

MOST_DOLLARS = 1_000_000_000_000
"""In one amount that a person types; in micro-dollars it still fits a database's integer."""
LONGEST = timedelta(days=36_500)
"""Of a span that a person types; added to any instant of our time it stays within the calendar."""


@dataclass(frozen=True, order=True, slots=True)
class Money:
    """Whole micro-dollars. One dollar is 1,000,000."""

    micro_usd: int = 0

    @classmethod
    def usd(cls, dollars: str | int | Decimal) -> Money:
        """From dollars; a fraction below a micro-dollar is rounded up, so that a cost is never understated."""
        micro = Decimal(dollars) * 1_000_000
        return cls(int(micro.to_integral_value(rounding="ROUND_CEILING")))

    @classmethod
    def parse(cls, text: str) -> Money:
        """From what a person types: `20`, `20usd`, `$20.50`. Raises InputError."""
        bare = re.sub(r"^\$|\s*usd$", "", text.strip(), flags=re.IGNORECASE)
        try:
            dollars = Decimal(bare)
            is_below_zero, is_too_much = dollars < 0, dollars > MOST_DOLLARS
        except InvalidOperation as error:
            raise InputError(f"{text!r} is not an amount of money", fix="write it like 20usd or 0.50usd") from error
        if is_below_zero:
            raise InputError(f"{text!r} is below zero", fix="give an amount of zero or more, like 20usd")
        if is_too_much:
            raise InputError(f"{text!r} is more than is counted here", fix=f"give at most {MOST_DOLLARS}usd")
        return cls.usd(dollars)

    def __add__(self, other: Money) -> Money:
        return Money(self.micro_usd + other.micro_usd)

    def __sub__(self, other: Money) -> Money:
        return Money(self.micro_usd - other.micro_usd)

    def for_hours(self, span: timedelta) -> Money:
        """What this hourly price comes to over `span`, rounded up."""
        micros, hour = self.micro_usd * (span // timedelta(microseconds=1)), 3_600_000_000
        return Money(-(-micros // hour))

    def up_to_cents(self) -> Money:
        """So that the amount, as it is printed, is enough."""
        return Money(-(-self.micro_usd // 10_000) * 10_000)

    def __str__(self) -> str:
        return f"${Decimal(self.micro_usd) / 1_000_000:.2f}"


FREE = Money(0)

_SPAN = re.compile(r"(?P<n>\d+(?:\.\d+)?)\s*(?P<unit>s|m|min|h|d|w)?", re.IGNORECASE)
_SPAN_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_span(text: str, *, default_unit: str = "s") -> timedelta:
    """From what a person types: `90s`, `15m`, `1.5h`, `2d`. Raises InputError."""
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise InputError(f"{text!r} is not a span of time", fix="write it like 90s, 15m, 1.5h or 2d")
    return span_of(float(match["n"]), (match["unit"] or default_unit).lower())


def span_of(number: float, unit: str) -> timedelta:
    """`number` of a unit that `parse_span` knows. Raises InputError for more than LONGEST."""
    seconds = number * _SPAN_SECONDS[unit]
    if not seconds <= LONGEST.total_seconds():
        most = LONGEST.total_seconds() / _SPAN_SECONDS[unit]
        raise InputError(f"{number:g}{unit} is longer than a hundred years", fix=f"give at most {most:.0f}{unit}")
    return timedelta(seconds=seconds)


class Clock(Protocol):
    """Where the time comes from; tests and the simulator bring their own."""

    def now(self) -> datetime:
        """The instant, aware, in UTC."""
        ...

    def sleep(self, span: timedelta) -> None:
        """Return once `span` has passed on this clock."""
        ...


def instant(text: str) -> datetime:
    """From RFC 3339 text to an aware instant in UTC."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise InputError(f"{text!r} has no time zone", fix="write it like 2026-11-24T15:00:00Z")
    return moment.astimezone(UTC)


def rfc3339(moment: datetime) -> str:
    """To RFC 3339 text in UTC, with microseconds only where there are any."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
