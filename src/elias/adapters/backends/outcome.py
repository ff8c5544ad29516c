"""What any place that is not this process makes of a segment's end: its result, what came home, an error on the way."""

from __future__ import annotations

from pathlib import Path

from elias.adapters.backends.output import checkpoints, read_result
from elias.domain.run import SegmentState
from elias.errors import (
    BackendError,
    BudgetExhausted,
    EliasError,
    NotFound,
    QuotaExhausted,
    StoreError,
    VerificationError,
)
from elias.ports.backend import Status
from elias_trainer.contract import FailureKind, Outcome, Result

RESUME = "elias run resume goes on from the newest checkpoint"


def own_result(out: Path, key: str) -> Result | None:
    """None also where it is another segment's."""
    result = read_result(out)
    return result if result is not None and result.segment == key else None


def status_of_result(result: Result, accelerator: str | None, note: str | None = None) -> Status:
    if result.failure is not None:
        return Status.failed(result.failure.kind, result.failure.message, result.failure.fix)
    state = SegmentState.DONE if result.outcome is Outcome.DONE else SegmentState.PAUSED
    return Status(state=state, accelerator=accelerator, note=note)


def failed_by(error: EliasError) -> Status:
    kinds: tuple[tuple[type[EliasError] | tuple[type[EliasError], ...], FailureKind], ...] = (
        (QuotaExhausted, FailureKind.QUOTA),
        (BudgetExhausted, FailureKind.BUDGET),
        (VerificationError, FailureKind.VERIFICATION),
        ((BackendError, NotFound, StoreError), FailureKind.INFRASTRUCTURE),
    )
    kind = next((kind for types, kind in kinds if isinstance(error, types)), FailureKind.USER)
    return Status.failed(kind, error.what, error.fix)


def what_came_home(out: Path) -> str:
    kept = checkpoints(out)
    return f"{kept[0].name} came home" if kept else "no checkpoint came home"
