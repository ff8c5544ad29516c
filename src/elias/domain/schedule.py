"""Room 3. A standing order to train: when, on what, where, and within which money and hours."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any

from elias.domain.run import MOST_STEPS
from elias.errors import InputError
from elias.units import Money, parse_span
from elias_trainer.contract import Method

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WEEK = timedelta(days=7)


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    name: str
    created_at: datetime
    at: time | None = None
    """UTC; None is whenever there is enough new evidence."""
    days: tuple[str, ...] = DAYS
    new_sessions: int = 1
    """That it takes since its last training; fewer, and the day is left out. 0 trains all the same."""
    base: str | None = None
    """None is the node's own."""
    strategy: str | None = None
    method: Method = Method.LORA
    steps: int | None = None
    epochs: float | None = None
    sources: tuple[str, ...] = ()
    """Of the sessions; empty takes all."""
    stages: tuple[int, ...] = ()
    """Of the sessions; empty takes all."""
    hours: timedelta | None = None
    """Of training, each time; the adapter is what was reached by then."""
    budget: Money | None = None
    """Each time; None spends nothing but what [budget] gives every run."""
    deploy: bool = True
    """Whether a model that the gate accepts goes into service; a specialised adapter is only judged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Firing:
    """One time that a schedule was due; `slot` is its name, so that it is carried out once."""

    schedule: str
    slot: datetime
    sessions: tuple[str, ...] = ()
    """What its corpus is built of."""
    run: str | None = None
    outcome: str | None = None
    """How it ended, in one line; None is under way."""

    @property
    def run_id(self) -> str:
        """The same whenever it is begun again."""
        tail = hashlib.sha256(self.schedule.encode()).hexdigest()[:6]
        return f"run-{self.slot:%Y%m%d-%H%M%S}-{tail}"


def latest_slot(schedule: Schedule, now: datetime) -> datetime | None:
    """The last appointed moment up to `now`; None where it has none yet, or goes by evidence alone."""
    if schedule.at is None:
        return None
    today = now.replace(hour=schedule.at.hour, minute=schedule.at.minute, second=0, microsecond=0)
    slots = (today - timedelta(days=n) for n in range(8))
    return next((s for s in slots if s <= now and s > schedule.created_at and DAYS[s.weekday()] in schedule.days), None)


def next_slot(schedule: Schedule, now: datetime) -> datetime | None:
    """The first appointed moment after `now`."""
    found = latest_slot(schedule, now + _WEEK) if schedule.at is not None else None
    if found is None:
        return None
    while (earlier := latest_slot(schedule, found - timedelta(minutes=1))) is not None and earlier > now:
        found = earlier
    return found


def due_slot(schedule: Schedule, last: datetime | None, now: datetime) -> datetime | None:
    """However many were missed, the latest one, and once."""
    slot = latest_slot(schedule, now)
    return slot if slot is not None and (last is None or slot > last) else None


def schedule_from(name: str, table: Mapping[str, Any], created_at: datetime) -> Schedule:
    """From a TOML table or what the command line gathered. Raises InputError naming what is wrong."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,40}", name):
        raise InputError(f"{name!r} is no name for a schedule", fix="use small letters, digits and dashes")
    if unknown := sorted(table.keys() - _READ.keys()):
        raise InputError(f"schedule {name} has no setting {unknown[0]!r}", fix=f"it knows: {', '.join(_READ)}")
    values: dict[str, Any] = {}
    for key, raw in table.items():
        try:
            values[key] = _READ[key](raw)
        except (ValueError, TypeError, AttributeError, OverflowError, InputError) as error:
            fix = f"write it like: {key} = {_EXAMPLES[key]}"
            raise InputError(f"schedule {name}: {key} is {raw!r}", fix=fix) from error
    made = Schedule(name=name, created_at=created_at, **values)
    if made.at is None and (made.new_sessions < 1 or "days" in table):
        raise InputError(f"schedule {name} is never due", fix='give it a time (at = "02:00") or new_sessions = 20')
    return made


def _time(raw: Any) -> time:
    if not re.fullmatch(r"\d\d:\d\d", raw):
        raise ValueError(raw)
    return time.fromisoformat(raw)


def _days(raw: Any) -> tuple[str, ...]:
    found = tuple(raw)
    if not found or set(found) - set(DAYS) or isinstance(raw, str):
        raise ValueError(raw)
    return found


def _whole(raw: Any) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int) or raw < 0:
        raise ValueError(raw)
    return raw


def _span(raw: Any) -> timedelta:
    found = parse_span(raw, default_unit="h")
    if found <= timedelta(0):
        raise ValueError(raw)
    return found


def _texts(raw: Any) -> tuple[str, ...]:
    if isinstance(raw, str) or not all(isinstance(item, str) for item in raw):
        raise ValueError(raw)
    return tuple(raw)


def _text(raw: Any) -> str:
    if not isinstance(raw, str) or not raw:
        raise ValueError(raw)
    return raw


def _positive(raw: Any) -> float:
    if isinstance(raw, bool) or not 0 < float(raw) <= MOST_STEPS:
        raise ValueError(raw)
    return float(raw)


def _truth(raw: Any) -> bool:
    if not isinstance(raw, bool):
        raise ValueError(raw)
    return raw


_READ: Mapping[str, Any] = {
    "at": _time,
    "days": _days,
    "new_sessions": _whole,
    "base": _text,
    "strategy": _text,
    "method": Method,
    "steps": lambda raw: int(_positive(_whole(raw))),
    "epochs": _positive,
    "sources": _texts,
    "stages": lambda raw: tuple(_whole(stage) for stage in raw),
    "hours": _span,
    "budget": Money.parse,
    "deploy": _truth,
}
_EXAMPLES = {
    "at": '"02:00"',
    "days": '["mon", "thu"]',
    "new_sessions": "20",
    "base": '"starter"',
    "strategy": '"hybrid"',
    "method": '"lora"',
    "steps": "200",
    "epochs": "1.0",
    "sources": '["git"]',
    "stages": "[1, 2]",
    "hours": '"6h"',
    "budget": '"5usd"',
    "deploy": "true",
}
