"""What a person does with runs: begin one, pause it, cancel it, go on."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from elias.domain.corpus import Corpus
from elias.domain.run import Bounds, Run, RunState, Segment, Wish
from elias.errors import (
    BackendError,
    BudgetExhausted,
    EliasError,
    InputError,
    QuotaExhausted,
    Refused,
    UserError,
    VerificationError,
)
from elias.ports.backend import Backend, CanPause
from elias.ports.durable import DurableEngine
from elias.ports.stores import RunStore
from elias.services.train import WORKFLOW
from elias.units import Clock
from elias_trainer.contract import BaseModel, FailureKind, Objective, Recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A run as it was asked for."""

    strategy: str
    base: BaseModel
    recipe: Recipe
    bounds: Bounds = field(default_factory=Bounds)
    checkpoint_every: timedelta | None = None


def new_run(wanted: Wanted, corpus: Corpus, clock: Clock) -> Run:
    """Raises InputError when the corpus cannot teach what is asked."""
    if wanted.recipe.objective is Objective.DPO and corpus.preference_pairs == 0:
        raise InputError(
            f"the corpus {corpus.digest.short} holds no preference pairs, which dpo learns from",
            fix="train with --objective sft, or capture chats with chosen and rejected answers",
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

    def begin(self, run: Run) -> None:
        self.store.add(run)
        self.engine.start(WORKFLOW, run.id)

    def resume(self, run_id: str) -> Run:
        """Go on from the newest checkpoint. Raises NotFound, or Refused for a run that is over."""
        run = self._open_run(run_id)
        if run.state in (RunState.PAUSED, RunState.FAILED):
            run = self.store.update(run.id, wish=Wish.GO, state=RunState.QUEUED, reason=None, failure=None)
        else:
            run = self.store.update(run.id, wish=Wish.GO)
        self.engine.restart(WORKFLOW, run.id)
        return run

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

    def _active(self, run: Run) -> Segment | None:
        last = next(iter(self.store.segments(run.id)[-1:]), None)
        return last if last and not last.state.is_final else None
