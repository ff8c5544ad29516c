"""A simulated session of training: arithmetic over steps, and the files that such a session would leave.

The bytes of a checkpoint follow from the run and the step alone, so that a lost, repeated or mixed-up step shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

from elias.domain.run import SegmentFailure, SegmentState
from elias.units import FREE, Money, rfc3339
from elias_trainer.contract import (
    AtDeadline,
    CheckpointRef,
    Digest,
    EventKind,
    FailureKind,
    Job,
    Outcome,
    Result,
    canonical_json,
    digest_bytes,
    to_json,
)

SAVE_S = 5.0
"""Of writing a checkpoint."""
STEP_EVENTS = 40
"""In a whole run; the real trainer says more."""
ADAPTER = "adapter/adapter_model.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """What a place and the truth make of a job."""

    step_s: float
    load_s: float
    precision: str
    accelerator: str
    count: int
    hourly: Money = FREE
    taken_at: datetime | None = None
    """When the place takes its machine away."""
    yields_at: datetime | None = None
    """When it has to pause, with a checkpoint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    key: str
    job: Job
    variant: str
    start_step: int
    submitted_at: datetime
    slot: int | None = None
    begins_at: datetime | None = None
    """None while it waits for its turn."""
    terms: Terms | None = None
    cancelled_at: datetime | None = None
    made_way: bool = False
    """Handed back before its turn, because inference came."""

    @property
    def total(self) -> int:
        assert self.job.recipe.max_steps is not None
        return self.job.recipe.max_steps

    @property
    def ends_at(self) -> datetime | None:
        if self.begins_at is None:
            return self.cancelled_at
        ends = min(self._own_end(), self._taken())
        return ends if self.cancelled_at is None else min(ends, max(self.cancelled_at, self.begins_at))

    def state(self, now: datetime) -> SegmentState:
        if self.made_way:
            return SegmentState.PAUSED
        if self.begins_at is None or (self.ends_at is not None and now < self.begins_at):
            return SegmentState.CANCELLED if self.cancelled_at is not None else SegmentState.PENDING
        assert self.ends_at is not None
        if now < self.ends_at:
            return SegmentState.RUNNING
        if self.cancelled_at is not None and self.cancelled_at <= min(self._own_end(), self._taken()):
            return SegmentState.CANCELLED
        if self._taken() < self._own_end():
            return SegmentState.FAILED
        return SegmentState.DONE if self._finishes else SegmentState.PAUSED

    def failure(self, now: datetime) -> SegmentFailure | None:
        if self.made_way or (self.state(now) is SegmentState.PAUSED and self._yields):
            message = "it made way: inference needs this machine"
            return SegmentFailure(kind=FailureKind.PREEMPTED, message=message, fix="nothing: it goes on by itself")
        if self.state(now) is not SegmentState.FAILED:
            return None
        return SegmentFailure(kind=FailureKind.PREEMPTED, message="its machine was taken away", fix="elias run resume")

    def kept_step(self, now: datetime) -> int:
        """Of the newest whole checkpoint."""
        if self.begins_at is None or now < self.begins_at:
            return self.start_step
        if self.state(now) in (SegmentState.DONE, SegmentState.PAUSED):
            return self._last_step
        assert self.ends_at is not None
        made = [step for at, step in self._checkpoints() if at <= min(now, self.ends_at)]
        return made[-1] if made else self.start_step

    def hours(self, now: datetime) -> float:
        """Of the machine, begun to ended."""
        if self.begins_at is None or self.ends_at is None or now <= self.begins_at:
            return 0.0
        return (min(now, self.ends_at) - self.begins_at) / timedelta(hours=1)

    def cost(self, now: datetime) -> Money:
        if self.terms is None:
            return FREE
        return self.terms.hourly.for_hours(timedelta(hours=self.hours(now)))

    def events(self, now: datetime) -> Iterator[Mapping[str, Any]]:
        """Those that were said by now, numbered; the same ones at every look."""
        if self.begins_at is None or self.ends_at is None:
            return
        for seq, (at, kind, fields) in enumerate(self._story()):
            if at > min(now, self.ends_at):
                return
            yield {"seq": seq, "at": rfc3339(at), "kind": str(kind), **fields}

    def write(self, now: datetime, into: Path) -> None:
        """`out/` as it is now."""
        into.mkdir(parents=True, exist_ok=True)
        kept = self.kept_step(now)
        lines = b"".join(canonical_json(event) + b"\n" for event in self.events(now))
        _write(into / "events.jsonl", lines)
        if kept > self.start_step:
            write_checkpoint(into / _path(kept), self.job.run, kept)
        if self.state(now) in (SegmentState.DONE, SegmentState.PAUSED) and not self.made_way:
            if self.state(now) is SegmentState.DONE:
                _write(into / ADAPTER, _adapter(self.job.run, kept))
            _write(into / "result.json", to_json(self._result(kept)))

    # Of its own course, were nothing to come between

    @property
    def _trains_s(self) -> float:
        """From its first step to its end, at the most."""
        assert self.terms is not None and self.begins_at is not None
        limits = self.job.limits
        spans = [] if limits.seconds is None else [limits.seconds - SAVE_S]
        if self.terms.yields_at is not None:
            spans.append((self.terms.yields_at - self.begins_at).total_seconds() - SAVE_S)
        return max(0.0, min(spans, default=1e12) - self.terms.load_s)

    @property
    def _last_step(self) -> int:
        wanted = self.total - self.start_step
        if (stop := self.job.limits.stop_at_step) is not None:
            wanted = min(wanted, max(0, stop - self.start_step))
        return self.start_step + min(wanted, self._steps_in(self._trains_s))

    @property
    def _finishes(self) -> bool:
        last_word = self.job.limits.at_deadline is AtDeadline.FINISH and not self._yields
        stop = self.job.limits.stop_at_step
        return self._last_step >= self.total or (last_word and (stop is None or self._last_step < stop))

    @property
    def _yields(self) -> bool:
        """Whether inference comes before its time is over."""
        assert self.terms is not None and self.begins_at is not None
        if self.terms.yields_at is None:
            return False
        limit = self.job.limits.seconds
        return limit is None or self.terms.yields_at < self.begins_at + timedelta(seconds=limit)

    def _own_end(self) -> datetime:
        assert self.terms is not None and self.begins_at is not None
        took = self._seconds_for(self._last_step - self.start_step)
        ends = self.begins_at + timedelta(seconds=round(self.terms.load_s + took + SAVE_S, 3))
        return min(ends, self.terms.yields_at) if self._yields and self.terms.yields_at else ends

    def _taken(self) -> datetime:
        assert self.terms is not None
        return self.terms.taken_at or datetime.max.replace(tzinfo=self.submitted_at.tzinfo)

    def _steps_in(self, seconds: float) -> int:
        """So many fit, checkpoints between them."""
        assert self.terms is not None
        every = self._between
        rounds, rest = divmod(seconds, every * self.terms.step_s + SAVE_S)
        return int(rounds) * every + min(every, int(rest / self.terms.step_s + 1e-9))

    def _seconds_for(self, steps: int) -> float:
        assert self.terms is not None
        return steps * self.terms.step_s + (max(0, steps - 1) // self._between) * SAVE_S

    @property
    def _between(self) -> int:
        """Steps from checkpoint to checkpoint."""
        assert self.terms is not None
        return max(1, int(self.job.limits.checkpoint_every_s / self.terms.step_s))

    def _at(self, steps: int) -> datetime:
        """When so many are done."""
        assert self.terms is not None and self.begins_at is not None
        return self.begins_at + timedelta(seconds=round(self.terms.load_s + self._seconds_for(steps), 3))

    def _checkpoints(self) -> Sequence[tuple[datetime, int]]:
        count = self._last_step - self.start_step
        own = [
            (self._at(done) + timedelta(seconds=SAVE_S), self.start_step + done)
            for done in range(self._between, count, self._between)
        ]
        return [*own, *([(self._own_end(), self._last_step)] if count else [])]

    def _story(self) -> Sequence[tuple[datetime, EventKind, dict[str, Any]]]:
        assert self.terms is not None and self.begins_at is not None and self.ends_at is not None
        terms, start = self.terms, self.begins_at
        loaded = start + timedelta(seconds=round(terms.load_s, 3))
        found: list[tuple[datetime, EventKind, dict[str, Any]]] = [
            (start, EventKind.STARTED, _machine(terms)),
            (loaded, EventKind.LOADED, {"phase": "base", "seconds": terms.load_s}),
            (loaded, EventKind.LOADED, _corpus(self.job)),
        ]
        count, stride = self._last_step - self.start_step, max(1, self.total // STEP_EVENTS)
        said = sorted({1, *range(stride, count + 1, stride), count} - {0}) if count else []
        found += [(self._at(done), EventKind.STEP, self._step(self.start_step + done)) for done in said]
        found += [(at, EventKind.CHECKPOINT, _checkpoint(self.job.run, step)) for at, step in self._checkpoints()]
        return sorted(found, key=lambda said: said[0])

    def _step(self, step: int) -> dict[str, Any]:
        return {"step": step, "step_total": self.total, "loss": round(2.0 / (1 + step / 100), 4)}

    def _result(self, kept: int) -> Result:
        assert self.terms is not None
        finishes = self._finishes
        outputs = {ADAPTER: digest_bytes(_adapter(self.job.run, kept))} if finishes else {}
        reference = None
        if kept > self.start_step:
            reference = CheckpointRef(step=kept, path=_path(kept), digest=checkpoint_digest(self.job.run, kept))
        return Result(
            run=self.job.run,
            segment=self.job.segment,
            outcome=Outcome.DONE if finishes else Outcome.PAUSED,
            reason="steps" if kept == self.total else "deadline",
            step=kept,
            step_total=self.total,
            started_at_step=self.start_step,
            tokens=0,
            first_loss=None,
            last_loss=None,
            accelerator=self.terms.accelerator,
            accelerator_count=self.terms.count,
            precision=self.terms.precision,
            base_digest=None,
            versions={},
            seconds={},
            outputs=outputs,
            checkpoint=reference,
        )


def begun(session: Session, at: datetime, slot: int, terms: Terms) -> Session:
    return replace(session, begins_at=at, slot=slot, terms=terms)


def write_checkpoint(folder: Path, run: str, step: int) -> None:
    _write(folder / "state.json", _state(run, step))
    _write(folder / "manifest.json", _manifest(run, step))


def checkpoint_step(folder: Path, run: str) -> int:
    """Raises ValueError for one of another run, or whose bytes do not belong together."""
    step = int(json.loads((folder / "state.json").read_bytes())["step"])
    files = {name: (folder / name).read_bytes() for name in ("state.json", "manifest.json")}
    if files != {"state.json": _state(run, step), "manifest.json": _manifest(run, step)}:
        raise ValueError(f"{folder} is no checkpoint of {run}")
    return step


@lru_cache(maxsize=4096)
def checkpoint_digest(run: str, step: int) -> Digest:
    files = {"manifest.json": _manifest(run, step), "state.json": _state(run, step)}
    return digest_bytes(canonical_json({name: digest_bytes(data) for name, data in files.items()}))


def _state(run: str, step: int) -> bytes:
    return canonical_json({"run": run, "step": step})


def _manifest(run: str, step: int) -> bytes:
    return canonical_json({"files": {"state.json": digest_bytes(_state(run, step))}})


def _adapter(run: str, step: int) -> bytes:
    return canonical_json({"adapter": run, "step": step})


def _path(step: int) -> str:
    return f"checkpoint/step-{step:08d}"


def _checkpoint(run: str, step: int) -> dict[str, Any]:
    return {"step": step, "path": _path(step), "digest": checkpoint_digest(run, step), "seconds": SAVE_S}


def _machine(terms: Terms) -> dict[str, Any]:
    return {"accelerator": terms.accelerator, "accelerator_count": terms.count, "precision": terms.precision}


def _corpus(job: Job) -> dict[str, Any]:
    examples, width = 1000, job.recipe.sequence_length
    found = {"phase": "corpus", "seconds": 1.0, "examples": examples, "tokens": examples * width}
    return {**found, "step_total": job.recipe.max_steps}


def _write(path: Path, data: bytes) -> None:
    """Whole, but not safe from a power cut: there is none here, and this is done a hundred thousand times."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.part")
    scratch.write_bytes(data)
    scratch.replace(path)
