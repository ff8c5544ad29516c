"""One segment from job.json to result.json, whatever happens in between.

Every way out writes result.json, last, when what it names is whole on the disk. Nothing heavier than the standard
library is imported before the inputs have been checked.
"""

from __future__ import annotations

import fcntl
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from elias_trainer import checkpoint, inputs
from elias_trainer.checkpoint import Start, State
from elias_trainer.contract import (
    AtDeadline,
    CheckpointRef,
    EventKind,
    Failure,
    FailureKind,
    Job,
    Outcome,
    Result,
    digest_file,
    from_json,
    to_json,
    write_whole,
)
from elias_trainer.events import Events, Silence
from elias_trainer.failures import Refusal, exit_code, failure_of
from elias_trainer.folders import clear_leftovers
from elias_trainer.ledger import Ledger
from elias_trainer.stopping import Abandoned, Stop

if TYPE_CHECKING:
    from elias_trainer.loading import Work

RESULT, EVENTS, LOCK = "result.json", "events.jsonl", ".trainer.lock"


def train(job_file: Path, out: Path, cache: Path | None) -> int:
    """Carry out the job; the exit code: 0 done or paused, 2 the user's, 4 verification, 5 the world's."""
    if not _is_first():
        return _Segment(job_file, out, cache, Silence(), Ledger()).run()
    out.mkdir(parents=True, exist_ok=True)
    with _alone(out) as is_alone:
        if not is_alone:
            print(f"another trainer is at work in {out}; it was left alone", file=sys.stderr)
            return 5
        if _is_done(job_file, out):
            print(f"{out / RESULT} says that this segment is done; nothing was repeated", file=sys.stderr)
            return 0
        _clear(out)
        return _Segment(job_file, out, cache, Events(out / EVENTS), Ledger()).run()


@dataclass(slots=True)
class _Segment:
    job_file: Path
    out: Path
    cache: Path | None
    events: Events
    ledger: Ledger

    def run(self) -> int:
        with Stop() as stop:
            try:
                reason = self._work(stop)
            except Abandoned:
                stop.settle()
                return self._left_loading(stop, str(stop.reason))
            except Exception as error:  # noqa: BLE001 # every way out is told in result.json
                traceback.print_exc()
                failure = failure_of(error)
                return self._end(stop, Outcome.FAILED, failure.message, failure)
            is_done = reason in ("steps", "epochs") or self._finishes(reason)
            return self._end(stop, Outcome.DONE if is_done else Outcome.PAUSED, reason)

    def _work(self, stop: Stop) -> str:
        """Check, load, train, export; why it ended. Raises Abandoned when stopped before the first step."""
        try:
            with stop.abandonable(), self.ledger.timed("load"):
                work = self._load(stop)
        except Exception as error:
            if stop.reason is not None:
                # Libraries that are interrupted while they are imported or load have their own words for it.
                raise Abandoned from error
            raise
        from elias_trainer import loop

        try:
            reason = loop.train(work, self.out, stop, self.events, self.ledger)
            if reason in ("steps", "epochs") or self._finishes(reason):
                self._refuse_untrained(reason)
                if work.ranks.is_first:
                    with self.ledger.timed("export"):
                        loop.export(work, self.out)
        finally:
            work.ranks.leave()
        return reason

    def _load(self, stop: Stop) -> Work:
        job = self.ledger.job = inputs.read_job(self.job_file)
        stop.limit(job.limits.seconds)
        if job.lease is not None:
            stop.hold(self.job_file.parent / job.lease.path, job.lease.seconds)
        start = self._start(job)
        # Threads that spin while they wait starve whoever shares the machine; read when torch is imported.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        # Only now: torch alone takes seconds and hundreds of megabytes.
        from elias_trainer import loading

        return loading.load(job, self.job_file.parent, self.cache, self.events, self.ledger, start)

    def _start(self, job: Job) -> Start | None:
        """The newest of the job's checkpoint and those that an earlier start of this segment left behind."""
        given = inputs.verify(job, self.job_file.parent)
        found, passed_over = checkpoint.newest(self.out, job)
        for why in passed_over:
            self.events.warn(f"{why}; the checkpoint before it is taken instead")
        if found is not None and (given is None or found.state.step > given.state.step):
            where = found.folder.relative_to(self.out).as_posix()
            self.ledger.checkpoint = CheckpointRef(step=found.state.step, path=where, digest=found.digest)
        else:
            found = given
        self.ledger.state = _state(job, found)
        return found

    def _finishes(self, reason: str) -> bool:
        job = self.ledger.job
        return reason == "deadline" and job is not None and job.limits.at_deadline is AtDeadline.FINISH

    def _refuse_untrained(self, reason: str) -> None:
        if self.ledger.state.step == 0:
            raise Refusal(
                FailureKind.USER,
                f"the time ended ({reason}) before the first step was done, so there is nothing to keep",
                fix="give the run more time, or lower batch_size or sequence_length",
            )

    def _left_loading(self, stop: Stop, reason: str) -> int:
        if not self._finishes(reason):
            return self._end(stop, Outcome.PAUSED, reason)
        failure = Failure(
            kind=FailureKind.USER,
            message="the time ended while the base model was being loaded, so there is no adapter",
            fix="give the run more time; its checkpoint, if it has one, is kept",
        )
        return self._end(stop, Outcome.FAILED, failure.message, failure)

    def _end(self, stop: Stop, outcome: Outcome, reason: str, failure: Failure | None = None) -> int:
        if _is_first():
            self.events.emit(EventKind.ENDED, outcome=outcome.value, reason=reason, step=self.ledger.state.step)
            result = self.ledger.result(outcome, reason, out=self.out, total_s=stop.elapsed(), failure=failure)
            write_whole(self.out / RESULT, to_json(result))
        if failure is None:
            return 0
        print(f"{failure.kind.value}: {failure.message}\nfix: {failure.fix}", file=sys.stderr)
        return exit_code(failure)


def _state(job: Job, start: Start | None) -> State:
    """Where the segment begins; its sums go on when the checkpoint is of this very segment."""
    state = start.state if start else State()
    if state.segment == job.segment:
        return state
    return State(step=state.step, segment=job.segment, started_at_step=state.step, scaler=state.scaler)


def _is_first() -> bool:
    """Of the processes that torchrun starts, the first alone writes."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _alone(out: Path) -> Iterator[bool]:
    """Whether no other trainer works in this folder; the lock goes with the process, however it ends."""
    with (out / LOCK).open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _clear(out: Path) -> None:
    """Make `result.json` mean that this start has ended, and drop what a killed one left half-written."""
    (out / RESULT).unlink(missing_ok=True)
    for folder in (out, out / "checkpoint"):
        clear_leftovers(folder)


def _is_done(job_file: Path, out: Path) -> bool:
    """Whether this very segment ended with an adapter that is still what its result says."""
    try:
        job = inputs.read_job(job_file)
        result = from_json(Result, (out / RESULT).read_bytes())
        if (result.run, result.segment, result.outcome) != (job.run, job.segment, Outcome.DONE):
            return False
        return all(digest_file(out / path) == digest for path, digest in result.outputs.items())
    except (OSError, ValueError, Refusal):
        return False
