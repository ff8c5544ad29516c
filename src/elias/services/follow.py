"""Stays with one segment until it has ended: renews its lease, keeps its events, passes on what the user wants."""

from __future__ import annotations

import threading
from collections.abc import Callable, Container
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from elias.domain.run import Run, RunState, Segment, SegmentFailure, SegmentState, Wish
from elias.errors import (
    BackendError,
    BudgetExhausted,
    EliasError,
    QuotaExhausted,
    StoreError,
    VerificationError,
)
from elias.ports.backend import Backend, CanPause, NeedsLease, Status, StreamsEvents
from elias.ports.stores import RunStore
from elias.units import FREE, Clock, Money
from elias_trainer.contract import FailureKind

MOST_POLL_FAILURES = 20
"""In a row; then the segment is given up and its successor starts from the newest checkpoint that came home."""
OVERTIME = timedelta(minutes=10)
"""A segment that has not ended so long after its limit is not coming back by itself."""

LONGEST_QUEUE = timedelta(hours=1)
"""In a place's queue before it is asked whether the run would rather begin elsewhere; then again after so long."""


class Stopping(BaseException):
    """The engine stops: this step has not ended and will be called again. No Exception, so that nobody records it."""


@dataclass(kw_only=True)
class Follower:
    runs: RunStore
    clock: Clock
    poll_every: timedelta
    node: str | None = None
    """This node's name, where several share the store."""
    stopping: threading.Event = field(default_factory=threading.Event)

    def follow(
        self, backend: Backend, segment: Segment, held: Money = FREE, is_in_vain: Callable[[], bool] = lambda: False
    ) -> Status:
        """The final status. Raises Stopping, also when another node has taken the run over meanwhile.

        A segment that `is_in_vain` says waits in vain for its turn is taken back: it ends, cancelled and never begun.
        """
        asked, failures, said, queued, taken_back = Wish.GO, 0, None, self.clock.now(), False
        carrier = self.runs.get(segment.run).node
        after = max((int(event["seq"]) for event in self.runs.events(segment.key)), default=-1)
        while True:
            try:
                status = self._look(backend, segment)
                after = self._keep_events(backend, segment, after)
                segment = self._shown(segment, status)
                failures = 0
            except (BackendError, StoreError) as error:
                failures += 1
                if failures >= MOST_POLL_FAILURES:
                    return Status(state=SegmentState.FAILED, failure=failure_of(error), cost_is_final=held == FREE)
                self._pause(self.poll_every * min(2**failures, 60))
                continue
            if status.state.is_final:
                is_unmet = taken_back and status.state is SegmentState.CANCELLED and status.started_at is None
                return replace(status, failure=_unmet(segment)) if is_unmet else status
            if status.note != said:
                said = self._say(segment, status)
            asked = self._pass_on(self._still_ours(segment.run, carrier).wish, asked, backend, segment)
            if self._is_overdue(segment, status) or status.cost > held > FREE:
                backend.cancel(_handle(segment))
            elif status.state is SegmentState.PENDING and self.clock.now() >= queued + LONGEST_QUEUE:
                queued = self.clock.now()
                taken_back = taken_back or (is_in_vain() and _is_taken_back(backend, segment))
            self._pause(self.poll_every)

    def wait(self, run_id: str, until: datetime, heeds: Container[Wish] = (Wish.GO,)) -> None:
        """Return at `until`, or as soon as the user wants something else than `heeds`. Raises Stopping."""
        carrier = self.runs.get(run_id).node
        while self.clock.now() < until and self._still_ours(run_id, carrier).wish in heeds:
            self._pause(min(self.poll_every, until - self.clock.now()))

    def _still_ours(self, run_id: str, carrier: str | None) -> Run:
        """Raises Stopping once the run was given to another node than this one and the one that had it before."""
        run = self.runs.get(run_id)
        if self.node is not None and run.node not in (carrier, self.node):
            raise Stopping
        return run

    def _say(self, segment: Segment, status: Status) -> str | None:
        """What the place does or waits for, as the run's reason; one that it does not train yet for is a wait."""
        waits = status.state is SegmentState.PENDING and status.note is not None
        state = RunState.WAITING if waits else RunState.RUNNING
        self.runs.update(segment.run, state=state, reason=status.note)
        return status.note

    def _shown(self, segment: Segment, status: Status) -> Segment:
        """As its place has it now, written down for whoever looks on; its end is left to who brings it home."""
        if status.state.is_final or status.state is segment.state:
            return segment
        shown = replace(segment, state=status.state, started_at=status.started_at or segment.started_at)
        self.runs.put_segment(shown)
        return shown

    def _look(self, backend: Backend, segment: Segment) -> Status:
        handle = _handle(segment)
        if isinstance(backend, NeedsLease):
            backend.renew(handle)
        return backend.poll(handle)

    def _keep_events(self, backend: Backend, segment: Segment, after: int) -> int:
        """The `seq` of the newest one kept."""
        if not isinstance(backend, StreamsEvents):
            return after
        events = list(backend.events(_handle(segment), after))
        if events:
            self.runs.append_events(segment.key, events)
        return max((int(event["seq"]) for event in events), default=after)

    def _pass_on(self, wish: Wish, asked: Wish, backend: Backend, segment: Segment) -> Wish:
        if wish is asked:
            return asked
        if wish is Wish.PAUSE and isinstance(backend, CanPause):
            backend.pause(_handle(segment))
        elif wish is not Wish.GO:
            backend.cancel(_handle(segment))
        return wish

    def _is_overdue(self, segment: Segment, status: Status) -> bool:
        if segment.planned_for is None or status.started_at is None:
            return False
        return self.clock.now() > status.started_at + segment.planned_for + OVERTIME

    def _pause(self, span: timedelta) -> None:
        if self.stopping.wait(max(0.0, span.total_seconds())):
            raise Stopping


def failure_of(error: EliasError) -> SegmentFailure:
    """What an error on the way means for the segment."""
    kinds: tuple[tuple[type[EliasError], FailureKind], ...] = (
        (QuotaExhausted, FailureKind.QUOTA),
        (BudgetExhausted, FailureKind.BUDGET),
        (VerificationError, FailureKind.VERIFICATION),
        (BackendError, FailureKind.INFRASTRUCTURE),
    )
    kind = next((kind for error_type, kind in kinds if isinstance(error, error_type)), FailureKind.USER)
    return SegmentFailure(kind=kind, message=error.what, fix=error.fix)


def _is_taken_back(backend: Backend, segment: Segment) -> bool:
    """Else it keeps its turn: the place did not answer."""
    try:
        backend.cancel(_handle(segment))
    except BackendError:
        return False
    return True


def _unmet(segment: Segment) -> SegmentFailure:
    message = f"its turn at {segment.backend} had not come, and it can begin elsewhere"
    return SegmentFailure(kind=FailureKind.CAPACITY, message=message, fix="nothing: it goes on by itself")


def _handle(segment: Segment) -> str:
    if segment.handle is None:
        raise BackendError(f"{segment.key} was never submitted", fix=f"elias run resume {segment.run}")
    return segment.handle
