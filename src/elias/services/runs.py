"""What a person does with runs: begin one, pause it, cancel it, go on."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from elias.domain.corpus import Corpus
from elias.domain.run import Bounds, Run, RunState, Segment, SegmentState, Wish
from elias.errors import (
    BackendError,
    BudgetExhausted,
    EliasError,
    InputError,
    NotFound,
    QuotaExhausted,
    Refused,
    UserError,
    VerificationError,
)
from elias.ports.backend import Backend, CanPause, NeedsLease
from elias.ports.durable import CanAdopt, DurableEngine
from elias.ports.stores import RunStore
from elias.services.follow import OVERTIME
from elias.services.train import WORKFLOW
from elias.units import Clock
from elias_trainer.contract import BaseModel, FailureKind, Objective, Recipe

ITS_LAST_WORD = timedelta(minutes=1)
"""How long a run that is paused or has failed may take until its workflow is known to have ended: moments, but on a
busy machine. Were it not waited for, nobody would carry the run on."""
PERHAPS_ITS_LAST_WORD = timedelta(seconds=2)
"""The same for one that may be at work, and then goes on as it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A run as it was asked for."""

    strategy: str
    base: BaseModel
    recipe: Recipe
    bounds: Bounds = field(default_factory=Bounds)
    checkpoint_every: timedelta | None = None
    instance: str | None = None


def new_run(wanted: Wanted, corpus: Corpus, clock: Clock) -> Run:
    """Raises InputError when the corpus cannot teach what is asked."""
    if wanted.recipe.objective is Objective.DPO and corpus.preference_pairs == 0:
        raise InputError(
            f"the corpus {corpus.digest.short} has no preference pairs to train on, which dpo learns from",
            fix="train with --objective sft, or capture chats with chosen and rejected answers (some are held out)",
        )
    if corpus.train_examples == 0:
        raise InputError(
            f"the corpus {corpus.digest.short} has no training examples",
            fix="capture more sessions, then: elias corpus build",
        )
    now = clock.now()
    return Run(
        id=f"run-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}",
        created_at=now,
        strategy=wanted.strategy,
        base=wanted.base,
        recipe=wanted.recipe,
        corpus=corpus.digest,
        label=corpus.label,
        bounds=wanted.bounds,
        checkpoint_every=wanted.checkpoint_every,
        instance=wanted.instance,
    )


def error_of(run: Run, segments: Sequence[Segment]) -> EliasError:
    """Why a failed run failed, as the error to end with."""
    kinds: dict[FailureKind, type[EliasError]] = {
        FailureKind.USER: UserError,
        FailureKind.QUOTA: QuotaExhausted,
        FailureKind.BUDGET: BudgetExhausted,
        FailureKind.VERIFICATION: VerificationError,
    }
    last = segments[-1] if segments else None
    failure = last.failure if last else None
    what, _, fix = (run.reason or "the run failed").partition(" (fix: ")
    kind = kinds.get(run.failure or (failure.kind if failure else FailureKind.USER), BackendError)
    kept = f"the checkpoint at step {last.end.step}" if last and last.end else None
    fix = fix.removesuffix(")") or (failure.fix if failure else f"elias run show {run.id}")
    return kind(what, fix=f"{fix}; then: elias run resume {run.id}, or begin another one: elias train", kept=kept)


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Wishes go to the store, where whoever carries the run finds them, and straight to the place that trains."""

    store: RunStore
    engine: DurableEngine
    """Need not be launched in this process."""
    backends: Callable[[str], Mapping[str, Backend]]
    clock: Clock | None = None
    """Needed to take over."""
    node: str | None = None
    """This node's name."""

    def begin(self, run: Run) -> None:
        self.store.add(run)
        self.engine.start(WORKFLOW, run.id)

    def resume(self, run_id: str) -> Run:
        """Go on from the newest checkpoint. Raises NotFound, or Refused for a run that is over."""
        run = self._open_run(run_id)
        if run.state in (RunState.PAUSED, RunState.FAILED):
            run = self.store.update(run.id, wish=Wish.GO, state=RunState.QUEUED, reason=None, failure=None)
            self.engine.restart(WORKFLOW, run.id, ITS_LAST_WORD)
        else:
            run = self.store.update(run.id, wish=Wish.GO)
            self.engine.restart(WORKFLOW, run.id, PERHAPS_ITS_LAST_WORD)
        return run

    def elsewhere(self, run: Run) -> str | None:
        """One line when another node carries it, or died with it."""
        if run.state.is_standing or run.state is RunState.QUEUED or run.node in (None, self.node):
            return None
        return f"on {run.node}, which began it; where that is dead for good: elias run resume {run.id} --take-over"

    def take_over(self, run_id: str) -> Run:
        """Carry on here what a node that is dead for good has begun, from its newest checkpoint in the shared store.

        Only a person knows that a silent node will not come back, so nothing does this by itself. Raises NotFound, or
        Refused while that node lives, or while what it sent elsewhere may still train, and cost, unseen from here.
        """
        run = self._open_run(run_id)
        if run.state.is_standing:
            return self.resume(run_id)
        if not isinstance(self.engine, CanAdopt):
            raise Refused("this engine cannot take a run over", fix=f"start the node {run.node!r} again")
        self._refuse_unseen(run)
        try:
            self.engine.adopt(run.id)
        except NotFound:
            self.engine.start(WORKFLOW, run.id)  # killed before it was put in the queue
        return self.store.update(run.id, node=self.node)

    def pause(self, run_id: str) -> Run:
        """It ends its step, writes a checkpoint and waits for `resume`."""
        run = self._open_run(run_id)
        if run.state in (RunState.PAUSED, RunState.FAILED):
            return run
        run = self.store.update(run.id, wish=Wish.PAUSE)
        if active := self._active(run):
            backend = self.backends(run.strategy)[active.backend]
            if active.handle and isinstance(backend, CanPause):
                backend.pause(active.handle)
        return run

    def cancel(self, run_id: str) -> Run:
        """The trainer is ended within seconds; its newest checkpoint stays."""
        run = self._open_run(run_id)
        if run.state in (RunState.PAUSED, RunState.FAILED):
            return self.store.update(run.id, wish=Wish.CANCEL, state=RunState.CANCELLED, reason="cancelled")
        run = self.store.update(run.id, wish=Wish.CANCEL)
        if (active := self._active(run)) and active.handle:
            self.backends(run.strategy)[active.backend].cancel(active.handle)
        return run

    def _open_run(self, run_id: str) -> Run:
        run = self.store.get(run_id)
        if run.state.is_final:
            raise Refused(f"{run.id} is {run.state}: there is nothing left to do", fix="begin another one: elias train")
        return run

    def _refuse_unseen(self, run: Run) -> None:
        active = self._active(run)
        if active is None or active.handle is None or run.node == self.node:
            return
        backend = self.backends(run.strategy)[active.backend]
        if isinstance(backend, NeedsLease):  # its trainer ends by itself when nobody renews its lease
            return
        is_seen = backend.poll(active.handle).state is not SegmentState.FAILED
        until = active.started_at + active.planned_for + OVERTIME if active.started_at and active.planned_for else None
        if is_seen or (until and self.clock and self.clock.now() > until):
            return
        when = f"wait until {until:%Y-%m-%d %H:%M} UTC, when its time is over" if until else "end it there by hand"
        raise Refused(
            f"segment {active.number} of {run.id} was sent to {active.backend} by {run.node}, and cannot be seen from "
            "here: it may still train, and cost",
            fix=f"{when}, or start {run.node} again",
        )

    def _active(self, run: Run) -> Segment | None:
        last = next(iter(self.store.segments(run.id)[-1:]), None)
        return last if last and not last.state.is_final else None
