"""What was seen of places so far: how long a step took, how long a start, how often a segment failed. Pure.

Steps are timed by the trainer's own clock, between one step event and the next, so that the first step, which warms
caches and compiles kernels, never counts once there is a second one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import Any

from elias.domain.accelerators import CPU, UNKNOWN, find
from elias.domain.run import Run, Segment, SegmentState
from elias.units import instant
from elias_trainer.contract import BaseModel, FailureKind, Precision, Recipe

PLACE_FAILURES = (FailureKind.CAPACITY, FailureKind.PREEMPTED, FailureKind.INFRASTRUCTURE)
"""What a place is blamed for; a user's mistake, a quota and a budget say nothing about it."""
PRIOR_FAILURES, PRIOR_SUCCESSES = 0.5, 9.5
"""Of the Beta prior: one segment in twenty, as sure as if ten had been seen. Assumed."""
_NEWEST_STEPS = 200
_OUTLIER = 4.0
"""Times the median, either way: a laptop that slept, a clock that was set."""
_USUAL_SPREAD, _USUAL_WEIGHT = 0.3, 2.0
_FIRST_STEP_NOISE = 0.7
_LEAST_NOISE = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class StepSeconds:
    """Measured, of one optimizer step."""

    seconds: float
    noise: float
    """Standard deviation of its logarithm."""
    steps: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """What a trainer said that it found."""

    backend: str
    accelerator: str
    count: int
    precision: Precision

    @property
    def key(self) -> tuple[str, ...]:
        """The same for what should be equally fast; a CPU is like no other place's CPU."""
        card = find(self.accelerator)
        name = self.accelerator.lower() if card is UNKNOWN else card.name
        return (name, str(self.count), self.precision.value, *([self.backend] if card is CPU else []))


@dataclass(frozen=True, kw_only=True, slots=True)
class Sighting:
    """One run's speed on one kind of hardware."""

    run: str
    base: BaseModel
    recipe: Recipe
    hardware: Hardware
    measured: StepSeconds
    corpus_event: Mapping[str, Any]
    """What the trainer counted of the corpus."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reliability:
    """Of one backend, from the segments of this store that have ended."""

    segments: int
    failures: int
    start_delays: tuple[float, ...] = ()
    """Seconds from submitting to the trainer's first word."""

    @property
    def failure_rate(self) -> float:
        """Mean of the Beta posterior."""
        return (self.failures + PRIOR_FAILURES) / (self.segments + PRIOR_FAILURES + PRIOR_SUCCESSES)

    @property
    def start_delay(self) -> float | None:
        return median(self.start_delays) if self.start_delays else None


NOTHING_SEEN = Reliability(segments=0, failures=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    sightings: tuple[Sighting, ...] = ()
    reliability: Mapping[str, Reliability] | None = None
    """By backend."""

    def of(self, backend: str) -> Reliability:
        return (self.reliability or {}).get(backend, NOTHING_SEEN)


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentStory:
    run: Run
    segment: Segment
    events: Sequence[Mapping[str, Any]]


def what_was_seen(stories: Iterable[SegmentStory]) -> Seen:
    """Of segments in any order; several of one run on like hardware count as one sighting, the longest."""
    kept: dict[tuple[str, ...], Sighting] = {}
    ended: dict[str, list[SegmentStory]] = {}
    for story in stories:
        if story.segment.state.is_final:
            ended.setdefault(story.segment.backend, []).append(story)
        seen = sighting_of(story)
        if seen is None:
            continue
        key = (seen.run, *seen.hardware.key)
        if key not in kept or kept[key].measured.steps < seen.measured.steps:
            kept[key] = seen
    return Seen(sightings=tuple(kept.values()), reliability={name: _reliability(of) for name, of in ended.items()})


def sighting_of(story: SegmentStory) -> Sighting | None:
    """None before its second word about steps."""
    hardware, measured = hardware_of(story.segment, story.events), step_seconds(story.events)
    corpus = next((e for e in story.events if e["kind"] == "loaded" and e.get("phase") == "corpus"), None)
    if hardware is None or measured is None or corpus is None:
        return None
    run = story.run
    return Sighting(
        run=run.id, base=run.base, recipe=run.recipe, hardware=hardware, measured=measured, corpus_event=corpus
    )


def hardware_of(segment: Segment, events: Iterable[Mapping[str, Any]]) -> Hardware | None:
    started = next((event for event in events if event["kind"] == "started"), None)
    if started is None:
        return None
    try:
        precision = Precision(started.get("precision", ""))
    except ValueError:
        return None  # another trainer's word for it: such a speed cannot be compared
    return Hardware(
        backend=segment.backend,
        accelerator=str(started["accelerator"]),
        count=int(started["accelerator_count"]),
        precision=precision,
    )


def step_seconds(events: Sequence[Mapping[str, Any]]) -> StepSeconds | None:
    """Of one segment's events, the newest steps; None where they say nothing about speed yet."""
    spans = _spans(events)[-_NEWEST_STEPS:]
    if not spans:
        return _first_step(events)
    middle = median(spans)
    kept = [min(max(span, middle / _OUTLIER), middle * _OUTLIER) for span in spans]
    logs = [math.log(span / middle) for span in kept]
    spread = 1.4826 * median(abs(log) for log in logs)
    count = len(kept)
    pooled = (_USUAL_WEIGHT * _USUAL_SPREAD**2 + count * spread**2) / (_USUAL_WEIGHT + count)
    # Neighbouring steps err alike, so that four of them tell about as much as one.
    noise = math.sqrt(pooled / max(1.0, count / 4) + _LEAST_NOISE**2)
    return StepSeconds(seconds=fmean(kept), noise=noise, steps=count)


def _spans(events: Sequence[Mapping[str, Any]]) -> list[float]:
    """Seconds of each step but the first, a gap in the events shared out evenly."""
    found: list[float] = []
    steps = [event for event in events if event["kind"] == "step"]
    for before, after in pairwise(steps):
        count = int(after["step"]) - int(before["step"])
        seconds = _seconds_between(before, after)
        if count > 0 and seconds > 0:
            found += [seconds / count] * min(count, _NEWEST_STEPS)
    return found


def _first_step(events: Sequence[Mapping[str, Any]]) -> StepSeconds | None:
    first = next((n for n, event in enumerate(events) if event["kind"] == "step"), None)
    if not first:
        return None
    seconds = _seconds_between(events[first - 1], events[first])
    return StepSeconds(seconds=seconds, noise=_FIRST_STEP_NOISE, steps=1) if seconds > 0 else None


def _seconds_between(before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    return (instant(after["at"]) - instant(before["at"])).total_seconds()


def _reliability(stories: Sequence[SegmentStory]) -> Reliability:
    counted = [story for story in stories if _tells_of_the_place(story.segment)]
    failed = [story for story in counted if story.segment.state is SegmentState.FAILED]
    delays = [delay for story in stories if (delay := _start_delay(story)) is not None]
    return Reliability(segments=len(counted), failures=len(failed), start_delays=tuple(delays))


def _tells_of_the_place(segment: Segment) -> bool:
    if segment.state is SegmentState.FAILED:
        return segment.failure is not None and segment.failure.kind in PLACE_FAILURES
    return segment.state in (SegmentState.DONE, SegmentState.PAUSED)


def _start_delay(story: SegmentStory) -> float | None:
    first = next((event for event in story.events if event["kind"] == "started"), None)
    if first is None or story.segment.submitted_at is None:
        return None
    return max(0.0, (instant(first["at"]) - story.segment.submitted_at).total_seconds())
