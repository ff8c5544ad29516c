"""Sends a segment to its place: once, paid for before it goes, and never taken for not begun while nobody knows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from elias.domain.offer import Offer
from elias.domain.run import Run, RunState, Segment, SegmentState, Wish
from elias.errors import EliasError
from elias.ports.backend import Backend, Bundle, CanFind, Status
from elias.ports.stores import RunStore
from elias.services.follow import failure_of
from elias.services.spend import Purse, is_certain
from elias.units import FREE, Clock, rfc3339

ASK_AGAIN = timedelta(minutes=1)
"""After a place could not tell whether it has begun what would be paid for."""

Taken = dict[str, Any] | None
"""None once the place has it; else how it ended at once, or under `ask_again` when to ask what became of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sender:
    runs: RunStore
    purse: Purse
    clock: Clock

    def send(self, run: Run, segment: Segment, backend: Backend, load: Callable[[], tuple[Bundle, Offer]]) -> Taken:
        """`load` is called where it has to be sent, and not where it is found there already."""
        was_sent = segment.sent_at is not None
        try:
            handle = None
            if was_sent and isinstance(backend, CanFind):
                handle, was_sent = backend.find(segment.key), False
            if handle is None and not was_sent and self._is_unwanted(run, segment):
                return Status(state=SegmentState.CANCELLED, ended_at=self.clock.now()).to_record()
            if handle is None:
                bundle, offer = load()
                segment = self._pay(run, segment, offer)
                handle = backend.submit(segment.key, bundle, offer)
        except EliasError as error:
            if segment.sent_at is not None and not is_certain(error, was_sent=was_sent):
                return self._ask_again(run, segment, error)
            return self._refused(error)
        now = self.clock.now()
        self.runs.put_segment(replace(segment, handle=handle, submitted_at=now, started_at=now))
        return None

    def not_sent(self, run: Run, segment: Segment, error: EliasError) -> Taken:
        """Where its place cannot even be asked."""
        return self._refused(error) if segment.sent_at is None else self._ask_again(run, segment, error)

    def _is_unwanted(self, run: Run, segment: Segment) -> bool:
        return run.wish is not Wish.GO and self.purse.held(segment.key) > FREE

    def _pay(self, run: Run, segment: Segment, offer: Offer) -> Segment:
        """Written down as sent before it is: whoever finds it so, without a handle, has to ask what became of it."""
        if not self.purse.secure_again(run, segment, offer) or segment.sent_at is not None:
            return segment
        segment = replace(segment, sent_at=self.clock.now())
        self.runs.put_segment(segment)
        return segment

    def _ask_again(self, run: Run, segment: Segment, error: EliasError) -> Taken:
        reason = f"{segment.backend} has not said whether {segment.key} was begun, and its money stays reserved"
        self.runs.update(run.id, state=RunState.WAITING, reason=f"{reason}: {error.what} (fix: {error.fix})")
        return {"ask_again": rfc3339(self.clock.now() + ASK_AGAIN)}

    def _refused(self, error: EliasError) -> Taken:
        failed = Status(state=SegmentState.FAILED, failure=failure_of(error))
        return failed.to_record(self.clock.now())
