"""Work that somebody started by hand at a training place, brought into the run that it belongs to.

It becomes the run's next segment, already ended, and from there on is collected, verified and finished as any other.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from elias.domain.run import Checkpoint, Run, RunState, Segment, SegmentState
from elias.errors import DigestMismatch, InputError, NotFound, Refused
from elias.ports.backend import Adopts, Backend
from elias.services.by_hand import laid_out, standing
from elias.services.next_move import newest_checkpoint
from elias.services.run_folder import RunFolder, disk_errors
from elias.services.runs import error_of
from elias.services.train import Coordinator
from elias_trainer.contract import Job, Outcome, Result, from_json, tree_digest

_TO_ITS_END = "run the notebook to its end, then type this again"


class Adoption:
    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator, self._means = coordinator, coordinator.means

    def adopt(self, name: str, backend: Backend, address: str) -> Run:
        """The run, one segment longer: done, with its artifact, where that work ended with the adapter; else at its
        newest checkpoint, from which `resume` goes on.

        Of no effect when nothing there is newer than what the run has. Safe to repeat after a crash. Raises NotFound,
        Refused, InputError or a VerificationError; nothing of the run has changed then.
        """
        if not isinstance(backend, Adopts):
            raise InputError(f"{name} has no work that could be adopted", fix="elias run list shows this node's own")
        handle = backend.adopt(address)
        with self._brought(backend, handle) as home:
            work = _work_in(home, address)
            run = standing(self._run(work), name, self._means)
            segment = self._segment(run, work, name, handle)
        if segment is None:
            return run
        self._coordinator.collect(run.id, segment.number, backend.poll(handle).to_record())
        return self._end(run, segment.number)

    @contextmanager
    def _brought(self, backend: Backend, handle: str) -> Iterator[Path]:
        """A copy of what lies there, to look at."""
        scratch = self._means.folders / ".adopted" / handle
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            with disk_errors(scratch):
                backend.fetch(handle, scratch)
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _run(self, work: _Work) -> Run:
        try:
            run = self._means.runs.get(work.run)
        except NotFound as error:
            raise _foreign(work) from error
        if run.id != work.run:  # the beginning of a name will do for a person, not for a notebook
            raise _foreign(work)
        return run

    def _segment(self, run: Run, work: _Work, name: str, handle: str) -> Segment | None:
        """The run's next one, written down as begun there; None when that work has nothing new."""
        segments, folder = self._means.runs.segments(run.id), RunFolder(self._means.folders / run.id)
        begun = [segment for segment in segments if not segment.state.is_final]
        if begun and begun[0].handle != handle:
            raise Refused(f"a segment of {run.id} is under way", fix=f"elias run resume {run.id}")
        if begun:  # by this very call, before a crash
            return begun[0]
        known = newest_checkpoint(segments)
        if not work.is_beyond(known):
            return None
        job, inputs = self._job(folder, work)
        _refuse_another_start(run, job, known)
        work.verify()
        segment = Segment(run=run.id, number=len(segments) + 1, backend=name, start=known, handle=handle)
        paths = [job.corpus.path, "trainer.pyz", *([job.checkpoint.path] if job.checkpoint else [])]
        with disk_errors(folder.root):
            shutil.rmtree(folder.outputs(segment.number), ignore_errors=True)
            folder.prepare(segment.number, job, {path: inputs / path for path in paths})
            self._means.share.keep_inputs(run, folder, segment.number)
        self._means.runs.put_segment(segment)
        return segment

    def _job(self, folder: RunFolder, work: _Work) -> tuple[Job, Path]:
        for job, inputs in laid_out(folder):
            if (job.run, job.segment) == (work.run, work.segment):
                return job, inputs
        raise InputError(
            f"this node has laid out no job {work.segment}, which that work says it did",
            fix=f"elias run show {work.run}; start anew with: elias kaggle by-hand {work.run}",
        )

    def _end(self, run: Run, number: int) -> Run:
        segment = self._means.runs.segments(run.id)[number - 1]
        if segment.state is SegmentState.DONE:
            self._coordinator.finish(run.id, number)
            run = self._means.runs.get(run.id)
            if run.state is RunState.FAILED:
                raise error_of(run, self._means.runs.segments(run.id))
            return run
        step = f"step {segment.end.step}" if segment.end else "nothing"
        why = f"; that work had failed: {segment.failure.message}" if segment.failure else ""
        return self._means.runs.update(run.id, reason=f"adopted {step}{why}; elias run resume goes on from there")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Work:
    """What was done there, in its own words."""

    home: Path
    run: str
    segment: str
    result: Result | None
    """None where the session ended before the trainer did; then there is a checkpoint."""
    checkpoint: Path | None
    """The newest one."""

    @property
    def is_done(self) -> bool:
        return self.result is not None and self.result.outcome is Outcome.DONE

    def is_beyond(self, known: Checkpoint | None) -> bool:
        return self.is_done or (self.checkpoint is not None and _step(self.checkpoint) > (known.step if known else 0))

    def verify(self) -> None:
        """Raises DigestMismatch naming what is not what its result says."""
        if self.result is None:
            return
        if self.is_done:
            RunFolder.verify_adapter_in(self.home, self.result)
        said = self.result.checkpoint
        if said and not (self.checkpoint and tree_digest(self.checkpoint) == said.digest):
            raise DigestMismatch(
                f"the checkpoint {said.path} that came home is not the one that its result names",
                fix="type this again; if it stays so, begin the notebook anew",
            )


def _work_in(home: Path, address: str) -> _Work:
    newest = max((home / "checkpoint").glob("step-*"), default=None)
    try:
        result = from_json(Result, (home / "result.json").read_bytes())
    except FileNotFoundError:
        if newest is None:
            raise InputError(f"{address} left neither a result nor a checkpoint", fix=_TO_ITS_END) from None
        run, segment = _maker(newest, address)
        return _Work(home=home, run=run, segment=segment, result=None, checkpoint=newest)
    except ValueError as error:
        raise InputError(f"{address} left no result of a training: {error}", fix=_TO_ITS_END) from error
    if result.outcome is Outcome.FAILED and newest is None and result.failure:
        raise InputError(f"{address} failed: {result.failure.message}", fix=result.failure.fix)
    return _Work(home=home, run=result.run, segment=result.segment, result=result, checkpoint=newest)


def _maker(checkpoint: Path, address: str) -> tuple[str, str]:
    """The run and the segment that a checkpoint says it is of."""
    try:
        run = json.loads((checkpoint / "manifest.json").read_bytes())["run"]
        return str(run), str(json.loads((checkpoint / "state.json").read_bytes())["segment"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{address} left no result, and its checkpoint does not say whose it is: {error}", fix=_TO_ITS_END
        ) from error


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def _foreign(work: _Work) -> NotFound:
    return NotFound(
        f"that work belongs to {work.run}, which is no run of this node",
        fix="type this on the node whose notebook it was",
    )


def _refuse_another_start(run: Run, job: Job, known: Checkpoint | None) -> None:
    """A receipt tells a chain: each segment begins where those before it had come to."""
    if (job.checkpoint.digest if job.checkpoint else None) == (known.digest if known else None):
        return
    began = Path(job.checkpoint.path).name if job.checkpoint else "the base"
    raise Refused(
        f"that work began from {began}, and {run.id} has reached step {known.step if known else 0} since",
        fix=f"elias run resume {run.id} goes on from there; or start anew with: elias kaggle by-hand {run.id}",
    )
