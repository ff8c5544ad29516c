"""Work that somebody started by hand at a training place, brought into the run that it belongs to."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from elias.domain.run import Run, RunState, Segment, SegmentState
from elias.errors import DigestMismatch, InputError, NotFound, Refused
from elias.ports.backend import Adopts, Backend
from elias.ports.stores import RunStore
from elias.services.next_move import newest_checkpoint
from elias.services.run_folder import RunFolder
from elias.units import Clock
from elias_trainer.contract import Result, from_json


class Adoption:
    def __init__(self, runs: RunStore, folders: Path, clock: Clock) -> None:
        self._runs, self._folders, self._clock = runs, folders, clock

    def adopt(self, name: str, backend: Backend, address: str) -> Run:
        """The run, one segment longer, with that work's newest checkpoint; `resume` goes on from there, to the end.

        What it left goes through the same checks as any segment's. Of no effect when nothing there is newer than what
        the run has. Raises NotFound, Refused, InputError or DigestMismatch.
        """
        if not isinstance(backend, Adopts):
            raise InputError(f"{name} has no work that could be adopted", fix="elias run list shows this node's own")
        handle = backend.adopt(address)
        scratch = self._folders / ".adopted" / handle
        shutil.rmtree(scratch, ignore_errors=True)
        backend.fetch(handle, scratch)
        try:
            return self._keep(name, handle, scratch, _result(scratch, address))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _keep(self, name: str, handle: str, home: Path, result: Result) -> Run:
        run = self._open_run(result)
        segments = self._runs.segments(run.id)
        folder, number = RunFolder(self._folders / run.id), len(segments) + 1
        known = newest_checkpoint(segments)
        if result.checkpoint is None or (known and result.checkpoint.step <= known.step):
            return run
        target = folder.outputs(number)
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(home, target)
        end = folder.verified_checkpoint(number)
        if end is None or end.digest != result.checkpoint.digest:
            shutil.rmtree(target)
            raise DigestMismatch(
                "the checkpoint that came home is not the one that its result names", fix="fetch it again"
            )
        now = self._clock.now()
        segment = Segment(
            run=run.id, number=number, backend=name, state=SegmentState.PAUSED, start=known, handle=handle
        )
        self._runs.put_segment(replace(segment, end=end, started_at=now, ended_at=now))
        return self._runs.update(run.id, reason=f"adopted step {end.step}; elias run resume goes on from there")

    def _open_run(self, result: Result) -> Run:
        try:
            run = self._runs.get(result.run)
        except NotFound as error:
            raise NotFound(
                f"that work belongs to {result.run}, which is no run of this node",
                fix="type this on the node whose notebook it was",
            ) from error
        segments = self._runs.segments(run.id)
        if run.state not in (RunState.PAUSED, RunState.FAILED):
            raise Refused(
                f"{run.id} is {run.state}",
                fix=f"only a run that stands takes work from outside: elias run pause {run.id}",
            )
        if any(not segment.state.is_final for segment in segments):
            raise Refused(f"a segment of {run.id} is under way", fix=f"elias run watch {run.id}")
        return run


def _result(home: Path, address: str) -> Result:
    try:
        return from_json(Result, (home / "result.json").read_bytes())
    except (FileNotFoundError, ValueError) as error:
        raise InputError(
            f"{address} left no result of a training: {error}", fix="run the notebook to its end, then type this again"
        ) from error
