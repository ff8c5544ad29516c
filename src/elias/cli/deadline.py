"""`--by`: a moment as people say it."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from elias.errors import InputError
from elias.units import LONGEST, parse_span

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SPAN = re.compile(r"\d+(\.\d+)?\s*(m|min|h|d|w)", re.IGNORECASE)


def deadline(text: str, now: datetime, zone: tzinfo | None = None) -> datetime:
    """`friday` (its end), `tomorrow`, `2026-12-01` (its end), `2026-12-01T18:00`, `36h` or `3d`, as an instant in UTC.

    What names no zone is local time: `zone`, or the machine's own. Raises InputError, also for what is over or too far.
    """
    local = now.astimezone(zone)
    try:
        moment = _named(text, now, zone).astimezone(UTC)
    except (OverflowError, ValueError) as error:  # at the calendar's ends a zone leads out of it
        raise _too_far(text) from error
    if moment <= now:
        raise InputError(f"--by {text} is over: it is {local:%Y-%m-%d %H:%M} now", fix="give a moment to come, like 3d")
    if moment - now > LONGEST:
        raise _too_far(text)
    return moment


def _too_far(text: str) -> InputError:
    return InputError(f"--by {text} is more than a hundred years away", fix="give a nearer moment to come, like 3d")


def _named(text: str, now: datetime, zone: tzinfo | None) -> datetime:
    word = text.strip().lower()
    if _SPAN.fullmatch(word):
        return now + parse_span(word)
    if day := _day(word, now.astimezone(zone).date()):
        return _in_zone(datetime.combine(day + timedelta(days=1), time()), zone)
    return _moment(text, zone)


def _day(word: str, today: date) -> date | None:
    if word in ("today", "tomorrow"):
        return today + timedelta(days=word == "tomorrow")
    if len(word) >= 3 and (named := [n for n, day in enumerate(DAYS) if day.startswith(word)]):
        return today + timedelta(days=(named[0] - today.weekday()) % 7)
    try:
        return date.fromisoformat(word) if re.fullmatch(r"\d{4}-\d\d-\d\d", word) else None
    except ValueError:
        return None


def _moment(text: str, zone: tzinfo | None) -> datetime:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise InputError(
            f"--by {text!r} is no moment", fix="write it like friday, 3d, 36h, 2026-12-01 or 2026-12-01T18:00"
        ) from error
    return moment if moment.tzinfo else _in_zone(moment, zone)


def _in_zone(naive: datetime, zone: tzinfo | None) -> datetime:
    return naive.replace(tzinfo=zone) if zone else naive.astimezone()
