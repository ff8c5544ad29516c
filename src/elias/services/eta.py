"""When a run that is training now will be done, from its own events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from elias.domain.run import Run, RunState, Segment
from elias.domain.speed import Estimate
from elias.ports.stores import RunStore
from elias.services.estimate import forecast_found
from elias.services.next_move import time_left


@dataclass(frozen=True, kw_only=True, slots=True)
class Eta:
    """To the last step; start-ups and waits of segments to come are not in it."""

    seconds: Estimate
    steps: int
    """Left to do."""
    step: Estimate
    """Seconds of one."""
    ends_at: datetime
    """By the likely estimate, and never past the bounds of the run."""


def eta_of(run: Run, runs: RunStore, now: datetime) -> Eta | None:
    """None for a run that is not training, or before its first step."""
    segments = runs.segments(run.id)
    if run.state is not RunState.RUNNING or not segments or segments[-1].state.is_final:
        return None
    told = eta(run, segments[-1], runs.events(segments[-1].key), now)
    bound = time_left(run.bounds, segments, now)
    if told is None or bound is None or bound.total_seconds() >= told.seconds.high:
        return told
    limit = bound.total_seconds()
    seconds = Estimate(**{name: min(limit, getattr(told.seconds, name)) for name in ("low", "likely", "high")})
    ends_at = now + timedelta(seconds=seconds.likely)
    return Eta(seconds=seconds, steps=told.steps, step=told.step, ends_at=ends_at)


def eta(run: Run, segment: Segment, events: Sequence[Mapping[str, Any]], now: datetime) -> Eta | None:
    """Of a segment under way; None before its first step."""
    last = next((event for event in reversed(events) if event["kind"] == "step"), None)
    told = forecast_found(run, segment, events, int(last["step"])) if last else None
    if told is None or told.steps is None or told.remaining is None:
        return None
    ends_at = now + timedelta(seconds=told.remaining.likely)
    return Eta(seconds=told.remaining, steps=told.steps, step=told.step, ends_at=ends_at)
