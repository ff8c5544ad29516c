"""What result.json will say, as far as it is known: also a failure tells how far it came. Standard library only."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from elias_trainer.checkpoint import State
from elias_trainer.contract import CheckpointRef, Digest, Failure, Job, Outcome, Result, file_digests

UNKNOWN = "unknown"


@dataclass(kw_only=True, slots=True)
class Ledger:
    job: Job | None = None
    """None while job.json has not been read."""
    state: State = field(default_factory=State)
    step_total: int = 0
    accelerator: str = UNKNOWN
    accelerator_count: int = 0
    precision: str = UNKNOWN
    base_digest: Digest | None = None
    versions: Mapping[str, str] = field(default_factory=lambda: {"python": platform.python_version()})
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("load", "train", "checkpoint", "export"), 0.0)
    )
    checkpoint: CheckpointRef | None = None
    """The newest whole one in `out/`."""

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[phase] += time.monotonic() - started

    def result(self, outcome: Outcome, reason: str, *, out: Path, total_s: float, failure: Failure | None) -> Result:
        return Result(
            run=self.job.run if self.job else UNKNOWN,
            segment=self.job.segment if self.job else UNKNOWN,
            outcome=outcome,
            reason=reason,
            step=self.state.step,
            step_total=self.step_total,
            started_at_step=self.state.started_at_step,
            tokens=self.state.tokens,
            first_loss=self.state.first_loss,
            last_loss=self.state.last_loss,
            accelerator=self.accelerator,
            accelerator_count=self.accelerator_count,
            precision=self.precision,
            base_digest=self.base_digest,
            versions=self.versions,
            seconds={phase: round(spent, 3) for phase, spent in (self.seconds | {"total": total_s}).items()},
            outputs=self._outputs(out, outcome),
            checkpoint=self.checkpoint,
            failure=failure,
        )

    def _outputs(self, out: Path, outcome: Outcome) -> dict[str, Digest]:
        folders = [out / "adapter"] if outcome is Outcome.DONE else []
        if self.checkpoint is not None:
            folders.append(out / self.checkpoint.path)
        return {
            f"{folder.relative_to(out).as_posix()}/{name}": digest
            for folder in folders
            for name, digest in file_digests(folder).items()
        }
