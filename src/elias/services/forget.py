"""Removes the checkpoints of runs that are over: the largest of what they leave, and of use only to go on.

Jobs, results, events, receipts and models stay. What could still go on is touched only when it is named.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from elias.domain.run import Run, RunState, Segment
from elias.errors import EliasError, Refused
from elias.ports.backend import Backend, CanForget
from elias.ports.stores import RunStore
from elias.services.run_folder import RunFolder
from elias.services.run_share import RunShare
from elias.units import Clock

log = logging.getLogger("elias.runs")

FORGOTTEN = "its checkpoints were removed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Leftover:
    """The checkpoints of one run, on this node."""

    run: str
    state: RunState
    ended_at: datetime
    """Of its last segment; of a run that never had one, when it was begun."""
    bytes: int
    could_resume: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Forgetting:
    runs: RunStore
    backends: Callable[[str], Mapping[str, Backend]]
    folders: Path
    """Holds a folder for each run."""
    share: RunShare
    clock: Clock

    def leftovers(self, older: timedelta) -> tuple[Leftover, ...]:
        """Of all runs that stand since `older` and hold any, newest first."""
        before = self.clock.now() - older
        found = [self.leftover(run) for run in self.runs.list() if run.state.is_standing]
        return tuple(left for left in found if left.bytes and left.ended_at <= before)

    def leftover(self, run: Run) -> Leftover:
        segments = self.runs.segments(run.id)
        ends = [segment.ended_at for segment in segments if segment.ended_at]
        return Leftover(
            run=run.id,
            state=run.state,
            ended_at=max(ends, default=run.created_at),
            bytes=_bytes(RunFolder(self.folders / run.id), segments),
            could_resume=not run.state.is_final,
        )

    def forget(self, run_id: str) -> Leftover:
        """What was removed. A run that could have gone on is cancelled first. Raises Refused for one under way."""
        run, segments = self.runs.get(run_id), self.runs.segments(run_id)
        if not run.state.is_standing or any(not segment.state.is_final for segment in segments):
            raise Refused(f"{run.id} is under way: its checkpoint is needed", fix=f"elias run cancel {run.id}")
        left = self.leftover(run)
        if run.state is RunState.DONE:
            self.runs.update(run.id, reason=FORGOTTEN)
        else:
            self.runs.update(run.id, state=RunState.CANCELLED, reason=f"cancelled; {FORGOTTEN}")
        RunFolder(self.folders / run.id).drop_old_checkpoints(segments, None)
        self.share.forget_checkpoints(run, segments)
        leave_places(segments, self.backends(run.strategy))
        return left


def left_at(run: Run, segments: Sequence[Segment], places: Callable[[str], Mapping[str, Backend]]) -> tuple[str, ...]:
    """The places that keep what segments of a run that could go on have left there, until somebody removes it."""
    if not run.state.is_standing or run.state.is_final:
        return ()
    try:
        backends = places(run.strategy)
    except EliasError:  # not ready here now; there is nothing to remove from here either
        return ()
    found = [s.backend for s in segments if s.handle and isinstance(backends.get(s.backend), CanForget)]
    return tuple(dict.fromkeys(found))


def leave_places(segments: Sequence[Segment], backends: Mapping[str, Backend]) -> None:
    """What segments that have ended left where they were trained goes; a place that fails may be asked again."""
    for segment in segments:
        backend = backends.get(segment.backend)
        if segment.handle and isinstance(backend, CanForget):
            try:
                backend.forget(segment.handle)
            except EliasError as error:
                log.warning("segment.left_behind segment=%s what=%s", segment.key, error.what)


def _bytes(folder: RunFolder, segments: Sequence[Segment]) -> int:
    """Two names of one file are one file: a checkpoint is linked from where it was written to where it is read."""
    seen: dict[tuple[int, int], int] = {}
    for segment in segments:
        for side in (folder.inputs(segment.number), folder.outputs(segment.number)):
            for path in (side / "checkpoint").rglob("*"):
                if path.is_file():
                    found = path.stat()
                    seen[found.st_dev, found.st_ino] = found.st_size
    return sum(seen.values())
