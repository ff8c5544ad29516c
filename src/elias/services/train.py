"""The coordinator: carries a run from segment to segment until its adapter is an artifact.

Every step below may be cut off anywhere and called again: a segment's number is fixed before anything is launched, a
backend takes one key once, and a segment is written down as ended only when what it left has come home and was checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from elias.domain.corpus import Corpus
from elias.domain.offer import Offer
from elias.domain.plan import Plan, PlannedSegment
from elias.domain.run import Run, RunState, Segment, SegmentState, Wish
from elias.errors import BackendError, DiskFull, EliasError, OverBudget
from elias.ports.backend import Backend, Bundle, NeedsLease, Status
from elias.ports.durable import Steps
from elias.ports.stores import BlobStore, CorpusStore, RunStore
from elias.services.follow import Follower, failure_of
from elias.services.foresee import Foresight
from elias.services.forget import leave_places
from elias.services.next_move import (
    Begin,
    End,
    Finish,
    GoOn,
    counts_as_failure,
    limits,
    matching_offer,
    newest_checkpoint,
    next_move,
    one_line,
    why_it_ended,
)
from elias.services.plan import begins_elsewhere
from elias.services.planning import Planning
from elias.services.run_folder import CORPUS, TRAINER, RunFolder, belonging, disk_errors, file_input, with_base_digest
from elias.services.run_share import ALONE, RunShare
from elias.services.sending import ASK_AGAIN, Sender
from elias.services.sightings import Seen
from elias.services.spend import EMPTY, LOOK_AGAIN, AtCap, Purse
from elias.units import Clock, Money, instant, rfc3339
from elias_trainer.contract import Digest, Input, Job, Lease

WORKFLOW = "train/1"
"""Raise the number when work begun under the old steps can no longer go on under the new."""
LEASE_FILE = "lease"


@dataclass(frozen=True, kw_only=True, slots=True)
class Means:
    """What the coordinator works with."""

    runs: RunStore
    corpora: CorpusStore
    blobs: BlobStore
    backends: Callable[[str], Mapping[str, Backend]]
    """Strategy -> the places it allows, by name."""
    archive: Callable[[Path], object]
    """Writes the trainer's archive."""
    finish: Callable[[Run, Sequence[Segment], Path], Digest]
    """Makes the artifact of a finished run out of its last `out/` folder; safe to repeat."""
    folders: Path
    """Holds a folder for each run."""
    clock: Clock
    node: str
    purse: Purse = EMPTY
    """This one is empty: nothing that costs money is begun."""
    seen: Callable[[], Seen] = Seen
    """What this node has seen of its places: speeds, failures."""
    share: RunShare = ALONE
    """With the other nodes of the store."""
    keeps_free_hours: bool = True
    """Whether runs with money leave hours of a quota to runs without."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    poll_every: timedelta = timedelta(milliseconds=500)
    lease: timedelta = timedelta(seconds=30)
    checkpoint_every: timedelta = timedelta(minutes=5)


class Coordinator:
    def __init__(self, means: Means, pace: Pace | None = None) -> None:
        self.means = means
        self.pace = pace or Pace()
        self.follower = Follower(runs=means.runs, clock=means.clock, poll_every=self.pace.poll_every, node=means.node)
        every = self.pace.checkpoint_every
        foresight = Foresight(
            runs=means.runs, blobs=means.blobs, clock=means.clock, checkpoint_every=every, seen=means.seen
        )
        self.planning = Planning(
            foresight=foresight,
            corpora=means.corpora,
            backends=means.backends,
            purse=means.purse,
            keeps_free_hours=means.keeps_free_hours,
        )
        self.sender = Sender(runs=means.runs, purse=means.purse, clock=means.clock)

    def stop(self) -> None:
        """Let every step in flight end unfinished; the trainers pause by themselves unless somebody goes on."""
        self.follower.stopping.set()

    def carry(self, steps: Steps, run_id: str) -> None:
        """The workflow. Deterministic between its steps, which alone touch the world."""
        try:
            self._carry(steps, run_id)
        except Exception as error:
            # nobody else would ever say that the run has stopped; the engine logs the whole story
            steps.step("break off", self.break_off, run_id, f"{type(error).__name__}: {error}")
            raise

    def _carry(self, steps: Steps, run_id: str) -> None:
        failures = 0
        while True:
            move = steps.step("plan", self.plan_next, run_id, failures)
            if move["do"] == "end":
                return
            if move["do"] == "wait":
                steps.step("wait", self.wait, run_id, move["until"])
                continue
            if move["do"] == "finish":
                steps.step("finish", self.finish, run_id, move["segment"])
                return
            number = move["segment"]
            ended = steps.step("submit", self.submit, run_id, number)
            if not ended or "ask_again" not in ended:
                status = ended or steps.step("follow", self.follow, run_id, number)
                ended = steps.step("collect", self.collect, run_id, number, status)
            if isinstance(ended, dict):  # nobody knows yet, or there is no room here for what it left
                steps.step("wait", self.wait_out, run_id, ended["ask_again"])
                continue
            failures = failures + 1 if ended else 0

    def plan_next(self, run_id: str, failures: int) -> dict[str, Any]:
        run, segments = self.means.runs.get(run_id), self.means.runs.segments(run_id)
        for settled in self.means.purse.settle_late(run, segments, lambda: self.means.backends(run.strategy)):
            self.means.runs.put_segment(settled)
        move = self._next(run, failures)
        if move["do"] != "segment":
            self.means.purse.let_go_next(run, segments)
        if move["do"] in ("end", "finish"):
            self.planning.drop(run_id)
        return move

    def _next(self, run: Run, failures: int) -> dict[str, Any]:
        runs, run_id, segments = self.means.runs, run.id, self.means.runs.segments(run.id)
        self.means.share.bring(run, self._folder(run), segments)
        match next_move(run, segments, failures):
            case GoOn(segment):
                runs.update(run_id, state=RunState.RUNNING, reason=None, node=self.means.node)
                return {"do": "segment", "segment": segment.number}
            case Finish(segment) if self._folder(run).is_whole(segment):
                return {"do": "finish", "segment": segment.number}
            case Finish(segment):
                return self._begin(run, segments, segment.number + 1)
            case End(state, reason):
                runs.update(run_id, state=state, reason=reason)
                if state is RunState.CANCELLED:  # it never goes on, and its checkpoint is at home
                    leave_places(segments, self.means.backends(run.strategy))
                return {"do": "end"}
            case Begin(_, _, wait) if wait and segments and not self._has_waited(segments[-1], wait):
                until = (segments[-1].ended_at or self.means.clock.now()) + wait
                return self._wait(run, until, f"trying again; {why_it_ended(segments[-1])}")
            case Begin(number, _, _):
                return self._begin(run, segments, number)

    def wait(self, run_id: str, until: str) -> None:
        """Until that instant, or until the user wants something else."""
        self.follower.wait(run_id, instant(until))

    def wait_out(self, run_id: str, until: str) -> None:
        """Until that instant, whatever the user wants: a place is not asked without a pause."""
        self.follower.wait(run_id, instant(until), heeds=tuple(Wish))

    def submit(self, run_id: str, number: int) -> dict[str, Any] | None:
        """None once the place has it; else how it was refused, or when to ask again what became of it."""
        run, segment = self._run_and_segment(run_id, number)
        if segment.state.is_final or segment.handle:
            return None
        folder = self._folder(run)
        try:
            backend = self._backend(run, segment)
        except EliasError as error:
            return self.sender.not_sent(run, segment, error)

        def load() -> tuple[Bundle, Offer]:
            bundle = Bundle(job=folder.job(number), folder=folder.inputs(number), label=run.label)
            return bundle, self._offer(backend, run, segment)

        return self.sender.send(run, segment, backend, load)

    def follow(self, run_id: str, number: int) -> dict[str, Any]:
        run, segment = self._run_and_segment(run_id, number)
        try:
            held, in_vain = self.means.purse.held(segment.key), lambda: self._is_in_vain(run, segment)
            return self.follower.follow(self._backend(run, segment), segment, held, in_vain).to_record()
        except EliasError as error:
            failure, is_final = failure_of(error), segment.sent_at is None
            return Status(state=SegmentState.FAILED, failure=failure, cost_is_final=is_final).to_record()

    def collect(self, run_id: str, number: int, answer: dict[str, Any]) -> bool | dict[str, Any]:
        """Bring home and check what the segment left, write down its end; whether it counts as a failure.

        On a full disk it stays where it is and the segment stays open, to be asked for again.
        """
        run, segment = self._run_and_segment(run_id, number)
        if segment.state.is_final:
            return counts_as_failure(segment)
        status = Status.from_record(answer)
        try:
            with disk_errors(self._folder(run).root):
                if segment.handle:
                    self._bring_home(run, segment)
                ended = self._ended(run, segment, status)
        except DiskFull as error:
            return {"ask_again": self._wait(run, self.means.clock.now() + ASK_AGAIN, one_line(error))["until"]}
        except EliasError as error:
            ended = replace(segment, state=SegmentState.FAILED, failure=failure_of(error), cost=status.cost)
        ended = replace(ended, ended_at=status.ended_at or self.means.clock.now())
        earlier = [s for s in self.means.runs.segments(run_id) if s.number < number]
        self.means.share.keep_outputs(run, self._folder(run), [*earlier, ended])
        self.means.purse.close(segment, status)
        self.means.runs.put_segment(ended)
        return counts_as_failure(ended)

    def finish(self, run_id: str, number: int) -> None:
        run, segments = self.means.runs.get(run_id), self.means.runs.segments(run_id)
        folder = self._folder(run)
        try:
            with disk_errors(folder.root):
                self.means.share.bring(run, folder, segments)
                artifact = self.means.finish(run, segments, folder.outputs(number))
        except EliasError as error:
            self._fail(run_id, error)
            return
        self.means.runs.update(run_id, state=RunState.DONE, reason=None, artifact=artifact)
        folder.drop_old_checkpoints(segments, newest_checkpoint(segments))
        leave_places(segments, self.means.backends(run.strategy))

    def break_off(self, run_id: str, why: str) -> None:
        self.planning.drop(run_id)
        self.means.runs.update(run_id, state=RunState.FAILED, reason=f"{why} (fix: see the node's log)")

    # What the steps are made of

    def _plan(self, run: Run, segments: Sequence[Segment], corpus: Corpus, budget: Money | None) -> Plan:
        return self.planning.plan(run, segments, corpus, budget)

    def _begin(self, run: Run, segments: Sequence[Segment], number: int) -> dict[str, Any]:
        now, purse = self.means.clock.now(), self.means.purse
        key = Segment(run=run.id, number=number, backend="").key
        try:
            corpus = self.means.corpora.get(run.corpus)
            plan, capped = purse.choose(run, key, lambda budget: self._plan(run, segments, corpus, budget))
            if self.planning.make_room(run, plan):
                plan, capped = purse.choose(run, key, lambda budget: self._plan(run, segments, corpus, budget))
            self.planning.keep(run, plan)
            if capped or not plan.segments or plan.wait_until is not None:
                return self._nowhere(run, plan, capped)
            planned = purse.secure(run, key, plan.segments[0])
            with disk_errors(self._folder(run).root):
                self._prepare(run, segments, corpus, number, planned)
        except (OverBudget, BackendError) as error:  # another run was quicker to reserve, or a place does not answer
            return self._wait(run, now + ASK_AGAIN, one_line(error))
        except EliasError as error:
            self._fail(run.id, error)
            return {"do": "end"}
        return {"do": "segment", "segment": number}

    def _prepare(
        self, run: Run, segments: Sequence[Segment], corpus: Corpus, number: int, planned: PlannedSegment
    ) -> None:
        """Lay out the segment's files, then write it down: from here on it has this number and this job."""
        folder, start = self._folder(run), newest_checkpoint(segments)
        trainer = folder.trainer() or folder.archived(self.means.archive)
        sources = {CORPUS: self.means.blobs.path(corpus.train), TRAINER: trainer}
        checkpoint = None
        if start:
            path = f"checkpoint/{Path(start.path).name}"
            sources[path] = folder.checkpoint_folder(start)
            checkpoint = Input(path=path, digest=start.digest)
        segment = Segment(
            run=run.id,
            number=number,
            backend=planned.offer.backend,
            offer=planned.offer.variant,
            planned_for=planned.span,
            start=start,
        )
        leased = isinstance(self.means.backends(run.strategy)[planned.offer.backend], NeedsLease)
        job = Job(
            run=run.id,
            segment=segment.key,
            base=run.base,
            corpus=Input(path=CORPUS, digest=corpus.train),
            recipe=run.recipe,
            limits=limits(self._paced(run), segments, planned.span, self.means.clock.now()),
            checkpoint=checkpoint,
            trainer=file_input(TRAINER, trainer).digest,
            lease=Lease(path=LEASE_FILE, seconds=self.pace.lease.total_seconds()) if leased else None,
            expected_accelerator=planned.offer.accelerator,
        )
        earlier = [result for s in segments if (result := folder.result(s.number))]
        job = with_base_digest(job, earlier[-1].base_digest if earlier else None)
        folder.prepare(number, job, sources)
        self.means.share.keep_inputs(run, folder, number)
        self.means.runs.put_segment(segment)
        self.means.runs.update(run.id, state=RunState.RUNNING, reason=None, node=self.means.node)

    def _paced(self, run: Run) -> Run:
        return run if run.checkpoint_every is not None else replace(run, checkpoint_every=self.pace.checkpoint_every)

    def _bring_home(self, run: Run, segment: Segment) -> None:
        folder = self._folder(run)
        self._backend(run, segment).fetch(segment.handle or "", folder.outputs(segment.number))
        self.means.runs.append_events(segment.key, folder.events(segment.number))

    def _ended(self, run: Run, segment: Segment, status: Status) -> Segment:
        """The segment's end as the files show it. Raises VerificationError when they are not what was written."""
        folder = self._folder(run)
        result = folder.result(segment.number)
        ended = replace(
            segment,
            state=status.state,
            started_at=status.started_at or segment.started_at,
            cost=status.cost,
            failure=status.failure,
            end=folder.verified_checkpoint(segment.number) if segment.handle else None,
        )
        if status.state is SegmentState.DONE:
            folder.verify_adapter(segment.number, belonging(result, segment, folder))
        return ended

    def _is_in_vain(self, run: Run, segment: Segment) -> bool:
        """Whether a segment that waits for its turn would begin elsewhere, had it not been sent there."""
        earlier = [s for s in self.means.runs.segments(run.id) if s.number < segment.number]
        try:
            plan = self._plan(run, earlier, self.means.corpora.get(run.corpus), self.means.purse.left(run))
        except EliasError:  # a place does not answer: it keeps its turn
            return False
        return begins_elsewhere(plan, segment)

    def _nowhere(self, run: Run, plan: Plan, capped: AtCap | None) -> dict[str, Any]:
        """Wait where a cap or a quota will change by itself; at a cap that stays, pause until somebody raises it."""
        reason = capped.reason if capped else plan.reason
        moments = [moment for moment in (capped.until if capped else None, plan.wait_until) if moment is not None]
        if moments:
            soon = [self.means.clock.now() + LOOK_AGAIN] if capped else []
            return self._wait(run, min([*moments, *soon]), reason)
        self.means.runs.update(run.id, state=RunState.PAUSED if capped else RunState.FAILED, reason=reason)
        return {"do": "end"}

    def _fail(self, run_id: str, error: EliasError) -> None:
        self.means.runs.update(run_id, state=RunState.FAILED, reason=one_line(error), failure=failure_of(error).kind)

    def _wait(self, run: Run, until: datetime, reason: str | None) -> dict[str, Any]:
        """Until then. A place whose clock is behind ours may name what has passed: as long again as it has, within
        bounds."""
        now = self.means.clock.now()
        until = until if until > now else now + min(max(now - until, ASK_AGAIN), LOOK_AGAIN)
        self.means.runs.update(run.id, state=RunState.WAITING, reason=reason)
        return {"do": "wait", "until": rfc3339(until)}

    def _has_waited(self, last: Segment, wait: timedelta) -> bool:
        return last.ended_at is None or self.means.clock.now() >= last.ended_at + wait

    def _offer(self, backend: Backend, run: Run, segment: Segment) -> Offer:
        offers = backend.offers(self.planning.foresight.need(run, self.means.corpora.get(run.corpus)))
        if not offers:
            raise BackendError(f"{segment.backend} offers nothing any more", fix=f"elias run resume {run.id}")
        offer, planned = matching_offer(offers, segment), segment.planned_for or timedelta(0)
        # all that was reserved may be used: of a run whose time is over, the trainer has less than its start takes
        return replace(offer, shortest=max(offer.shortest, planned))

    def _backend(self, run: Run, segment: Segment) -> Backend:
        return self.means.backends(run.strategy)[segment.backend]

    def _folder(self, run: Run) -> RunFolder:
        return RunFolder(self.means.folders / run.id)

    def _run_and_segment(self, run_id: str, number: int) -> tuple[Run, Segment]:
        run, segments = self.means.runs.get(run_id), self.means.runs.segments(run_id)
        self.means.share.bring(run, self._folder(run), segments)
        return run, next(s for s in segments if s.number == number)
