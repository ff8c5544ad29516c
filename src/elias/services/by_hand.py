"""A segment that a person starts at a training place: its files are laid out here, and nothing is sent."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from elias.domain.run import Checkpoint, Run, RunState
from elias.errors import Refused, StoreError
from elias.ports.backend import Bundle
from elias.services.next_move import newest_checkpoint
from elias.services.run_folder import CORPUS, TRAINER, RunFolder, disk_errors, file_input
from elias.services.train import Means, Pace
from elias_trainer.contract import Input, Job, Limits

FOLDER = "by-hand"
"""Below the run's own: a run folder whose segments are those laid out for a person."""


class ByHand:
    def __init__(self, means: Means, pace: Pace) -> None:
        self._means, self._pace = means, pace

    def lay_out(self, run_id: str, place: str, span: timedelta | None) -> Bundle:
        """What the run's next segment takes along, from its newest checkpoint, under a name of its own.

        `span` bounds the training; None leaves that to the place. Of a run that stands: two must not do the same
        steps. Raises NotFound, Refused, DigestMismatch or StoreError.
        """
        run = standing(self._means.runs.get(run_id), place, self._means)
        segments = self._means.runs.segments(run.id)
        if any(not segment.state.is_final for segment in segments):
            raise Refused(f"a segment of {run.id} is under way", fix=f"elias run watch {run.id}")
        home = self._means.folders / run.id
        with disk_errors(home):
            return self._bundle(run, RunFolder(home), newest_checkpoint(segments), span)

    def _bundle(self, run: Run, folder: RunFolder, start: Checkpoint | None, span: timedelta | None) -> Bundle:
        hand = RunFolder(folder.root / FOLDER)
        number = 1 + len(list(hand.root.glob("segments/*")))
        trainer, corpus = folder.trainer() or self._archive(folder), self._means.corpora.get(run.corpus).train
        sources = {CORPUS: self._means.blobs.path(corpus), TRAINER: trainer}
        checkpoint = None
        if start:
            path = f"checkpoint/{Path(start.path).name}"
            sources[path] = folder.checkpoint_folder(start)
            checkpoint = Input(path=path, digest=start.digest)
        job = Job(
            run=run.id,
            segment=f"{run.id}-{FOLDER}-{number}",
            base=run.base,
            corpus=Input(path=CORPUS, digest=corpus),
            recipe=run.recipe,
            limits=self._limits(run, start, span),
            checkpoint=checkpoint,
            trainer=file_input(TRAINER, trainer).digest,
        )
        hand.prepare(number, job, sources)
        return Bundle(job=job, folder=hand.inputs(number), label=run.label)

    def _limits(self, run: Run, start: Checkpoint | None, span: timedelta | None) -> Limits:
        every = self._pace.checkpoint_every if run.checkpoint_every is None else run.checkpoint_every
        steps = run.bounds.segment_steps
        return Limits(
            seconds=span.total_seconds() if span else None,
            checkpoint_every_s=every.total_seconds(),
            stop_at_step=(start.step if start else 0) + steps if steps else None,
        )

    def _archive(self, folder: RunFolder) -> Path:
        path = folder.root / TRAINER
        self._means.archive(path)
        return path


def standing(run: Run, place: str, means: Means) -> Run:
    """The run, where what is done outside, at `place`, may become a part of it. Raises Refused."""
    if run.state.is_final:
        raise Refused(f"{run.id} is {run.state}", fix="begin another one: elias train")
    if run.state not in (RunState.PAUSED, RunState.FAILED):
        fix = f"only a run that stands takes work from outside: elias run pause {run.id}"
        raise Refused(f"{run.id} is {run.state}", fix=fix)
    if place not in means.backends(run.strategy):
        raise Refused(
            f"{run.id} trains with --strategy {run.strategy}, which {place} has no part in",
            fix=f"begin another one: elias train --strategy {place}",
        )
    return run


def laid_out(folder: RunFolder) -> Iterator[tuple[Job, Path]]:
    """Every job that this node has laid out for the run, by hand or not, with the folder that holds it."""
    for home in (RunFolder(folder.root / FOLDER), folder):
        for path in sorted(home.root.glob("segments/*/in/job.json")):
            try:
                yield home.job(int(path.parents[1].name)), path.parent
            except StoreError:  # damaged: what belongs to it will be refused, as of a job that nobody laid out
                continue
