"""Domain values as JSON fields: the same ones in `--json` and in the web API."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime, time, timedelta, tzinfo
from pathlib import Path
from typing import Any

from elias.domain.habit import Habit
from elias.units import Money, rfc3339


def as_json(value: Any) -> Any:
    """An instant in RFC 3339, a span in seconds, money in micro-dollars, a set in order, a habit hour by hour."""
    if isinstance(value, Money):
        return value.micro_usd
    if isinstance(value, Habit):
        return [None if share is None else round(share, 2) for share in value.shares()]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, time):
        return value.isoformat("minutes")
    if isinstance(value, tzinfo):
        return str(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(map(as_json, value))
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    return value
