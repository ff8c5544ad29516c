"""What a run does next, from its wish and its segments alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from elias.domain.offer import Offer
from elias.domain.run import Bounds, Checkpoint, Run, RunState, Segment, SegmentState, Wish
from elias.errors import EliasError
from elias_trainer.contract import AtDeadline, FailureKind, Limits

MOST_FAILURES = 5
"""Segments in a row that ended badly without a new checkpoint."""
CURABLE = (FailureKind.CAPACITY, FailureKind.PREEMPTED, FailureKind.INFRASTRUCTURE, FailureKind.BUDGET)
"""Of a budget that ran out, planning anew says what it takes to go on."""
SHORTEST_END = timedelta(seconds=1)
"""Given to the last segment of a run whose time is over: it loads the newest checkpoint and writes the adapter."""
FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=1), timedelta(minutes=5)
DOUBLINGS = 9
"""From the one to beyond the other."""


@dataclass(frozen=True, slots=True)
class GoOn:
    """Carry on the segment that is under way."""

    segment: Segment


@dataclass(frozen=True, slots=True)
class Begin:
    """Plan a segment, from `start`."""

    number: int
    start: Checkpoint | None
    wait: timedelta = timedelta(0)
    """First, because the last one failed."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The adapter is there: make it an artifact."""

    segment: Segment


@dataclass(frozen=True, slots=True)
class End:
    state: RunState
    reason: str | None


Move = GoOn | Begin | Finish | End


def next_move(run: Run, segments: Sequence[Segment], failures: int) -> Move:
    """`failures` counts the segments in a row that made no progress since the run was last started."""
    last = segments[-1] if segments else None
    if run.state is RunState.DONE:
        return End(RunState.DONE, None)
    if last and not last.state.is_final:
        return GoOn(last)
    if last and last.state is SegmentState.DONE:
        return Finish(last)
    if run.wish is Wish.CANCEL:
        return End(RunState.CANCELLED, _stopped_at(segments, "cancelled"))
    if run.wish is Wish.PAUSE:
        return End(RunState.PAUSED, _stopped_at(segments, "paused"))
    number, start = (last.number + 1 if last else 1), newest_checkpoint(segments)
    if last is None or failures == 0:
        return Begin(number, start)
    why = last.failure.message if last.failure else f"the last one ended {last.state} at once"
    wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(failures - 1, DOUBLINGS))
    if last.failure and last.failure.kind is FailureKind.QUOTA:  # another offer may have one
        return Begin(number, start, wait)
    if last.failure and last.failure.kind not in CURABLE:
        return End(RunState.FAILED, why)
    if failures >= MOST_FAILURES:
        return End(RunState.FAILED, f"{failures} segments in a row made no progress; {why}")
    return Begin(number, start, wait)


def newest_checkpoint(segments: Sequence[Segment]) -> Checkpoint | None:
    return max((s.end for s in segments if s.end), key=lambda c: c.step, default=None)


def counts_as_failure(segment: Segment) -> bool:
    """Whether trying the same again would be in vain, or nearly."""
    if segment.state is SegmentState.DONE or made_way(segment) or was_taken_back(segment):
        return False
    if segment.failure and segment.failure.kind not in CURABLE:
        return True
    return segment.end is None or (segment.start is not None and segment.end.step <= segment.start.step)


def made_way(segment: Segment) -> bool:
    """Whether it ended because its machine was wanted back: that says nothing against trying again."""
    is_taken = segment.failure is not None and segment.failure.kind is FailureKind.PREEMPTED
    return segment.state is SegmentState.PAUSED and is_taken


def was_taken_back(segment: Segment) -> bool:
    """Out of its place's queue, before its turn, because the run would rather begin elsewhere."""
    is_unmet = segment.failure is not None and segment.failure.kind is FailureKind.CAPACITY
    return segment.state is SegmentState.CANCELLED and is_unmet


def time_spent(segments: Sequence[Segment]) -> timedelta:
    spans = [s.ended_at - s.started_at for s in segments if s.started_at and s.ended_at]
    return sum(spans, timedelta(0))


def time_left(bounds: Bounds, segments: Sequence[Segment], now: datetime) -> timedelta | None:
    """Until the adapter must be written, whatever was reached; None has no such moment."""
    limits = [bounds.train_for - time_spent(segments)] if bounds.train_for else []
    limits += [bounds.by - now] if bounds.by else []
    return max(SHORTEST_END, min(limits)) if limits else None


def limits(run: Run, segments: Sequence[Segment], span: timedelta | None, now: datetime) -> Limits:
    """What the trainer of a segment that long is held to; the last one of a run's time writes the adapter."""
    left = time_left(run.bounds, segments, now)
    is_last = left is not None and span is not None and left <= max(span, SHORTEST_END)
    own = min((s for s in (span, left) if s is not None), default=None)  # a place may reserve more than is left
    start, steps = newest_checkpoint(segments), run.bounds.segment_steps
    found = Limits(
        seconds=own.total_seconds() if own and span else None,
        at_deadline=AtDeadline.FINISH if is_last else AtDeadline.PAUSE,
        stop_at_step=(start.step if start else 0) + steps if steps else None,
    )
    every = run.checkpoint_every
    return found if every is None else replace(found, checkpoint_every_s=every.total_seconds())


def matching_offer(offers: Sequence[Offer], segment: Segment) -> Offer:
    """The one it was planned on, refused or not: by now the segment itself may have taken the place's last room.

    Where that one is gone, an open one.
    """
    same = [offer for offer in offers if offer.variant == segment.offer] if segment.offer else []
    return next((offer for offer in same or offers if not offer.refused), (same or offers)[0])


def one_line(error: EliasError) -> str:
    """As a run's reason."""
    return f"{error.what} (fix: {error.fix})"


def why_it_ended(segment: Segment) -> str:
    return segment.failure.message if segment.failure else f"the last segment ended {segment.state} at once"


def _stopped_at(segments: Sequence[Segment], how: str) -> str:
    newest = newest_checkpoint(segments)
    return f"{how} at step {newest.step}" if newest else f"{how} before its first checkpoint"
