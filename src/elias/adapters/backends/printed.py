"""What a trainer printed somewhere else, apart: its events, the carrier's notes, and everything beside them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from elias_trainer.contract import EVENT_PREFIX
from elias_trainer.parcel import NOTE_PREFIX


def notes_in(lines: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    """What the job says about its machine."""
    return (note for line in lines if (note := json_after(NOTE_PREFIX, line)) is not None)


def other_lines(lines: Iterable[str]) -> Iterator[str]:
    """What was printed beside events and notes."""
    return (line for line in lines if not line.startswith((EVENT_PREFIX, NOTE_PREFIX)))


def json_after(prefix: str, line: str) -> Mapping[str, Any] | None:
    if not line.startswith(prefix):
        return None
    try:
        found = json.loads(line.removeprefix(prefix))
    except ValueError:
        return None  # a line cut in two
    return found if isinstance(found, dict) else None
