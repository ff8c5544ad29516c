"""This machine as a training place: the trainer in a process of its own, one segment at a time."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from elias.adapters.backends import making_way
from elias.adapters.backends.bundle import refuse_by_label, verify_bundle
from elias.adapters.backends.last_words import last_words
from elias.adapters.backends.launching import Launching, LocalSettings, touch
from elias.adapters.backends.output import bring_home, checkpoints, read_events, read_json, read_result
from elias.adapters.backends.process import ProcessIdentity
from elias.adapters.hardware import probe
from elias.domain.accelerators import CPU_TFLOPS_A_CORE
from elias.domain.footprint import KNOWN_SHAPES, footprint
from elias.domain.offer import Need, Offer
from elias.domain.run import SegmentFailure, SegmentState
from elias.domain.tier import GIB, Machine
from elias.errors import BackendError, DiskFull
from elias.ports.backend import BackendContext, Bundle, Status
from elias.units import FREE
from elias_trainer.contract import EVENT_PREFIX, FailureKind, Job, Outcome, Precision, Result, write_whole

CANCEL_GRACE_S = 4.0


class LocalBackend:
    """Keeps all it knows in files, one folder a segment, so that any process of this node can go on with it."""

    def __init__(self, context: BackendContext) -> None:
        self.name = context.name
        self.home = context.home
        self.clock = context.clock
        self.settings = LocalSettings.read(context.settings)
        environment = dict(context.environment) or dict(os.environ)
        self.launching = Launching(self.home, self.settings, environment)
        self.positions: dict[str, tuple[int, int]] = {}
        """Handle -> the `seq` read last and the byte that follows it: only to read no event twice."""

    def offers(self, need: Need) -> Sequence[Offer]:
        machine, hours = probe(self.home), self.settings.hours
        card = machine.gpus[0] if machine.gpus else None
        lacks = self._lacks(need, machine)
        return [
            Offer(
                backend=self.name,
                accelerator=card.name if card else "cpu",
                accelerator_count=len(machine.gpus) or 1,
                memory_bytes=card.memory_bytes if card else machine.memory_bytes,
                tflops=None if card else machine.cores * CPU_TFLOPS_A_CORE,
                hourly=FREE,
                longest=None,
                left=None,
                hours=hours,
                refused=lacks or self._closed(),
                refused_until=hours.closed_until(self.clock.now()) if hours and not lacks else None,
            )
        ]

    def submit(self, key: str, bundle: Bundle, offer: Offer) -> str:
        refuse_by_label(bundle.label, offer)
        segment = self._segment(key)
        if (segment / "order.json").exists():
            return key
        verify_bundle(bundle)
        self._check_room(bundle)
        order = {"job": str((bundle.folder / "job.json").absolute()), "lease": _lease_path(bundle)}
        write_whole(segment / "order.json", json.dumps(order).encode())
        if self._closed() is None:
            self.launching.launch_if_free(segment)
        return key

    def poll(self, handle: str) -> Status:
        segment = self._segment(handle)
        if ended := read_json(segment / "ended.json"):
            return Status.from_record(ended)
        if not (segment / "order.json").exists():
            message = f"this machine knows no segment {handle!r}"
            return Status.failed(FailureKind.INFRASTRUCTURE, message, "elias run resume")
        identity, closed = self._identity(handle), self._closed()
        if identity is None and (closed or not self.launching.launch_if_free(segment)):
            if (segment / "unwanted").exists():
                return self._how_it_ended(handle)
            return Status(
                state=SegmentState.PENDING, note=f"waits: {closed or 'another segment trains on this machine'}"
            )
        identity = self._identity(handle)
        if identity is None or identity.is_alive():
            return Status(state=SegmentState.RUNNING, started_at=self._started_at(handle), accelerator=self._device())
        return self._how_it_ended(handle)

    def fetch(self, handle: str, into: Path) -> None:
        out = self._segment(handle) / "out"
        try:
            bring_home(out, into)
        except OSError as error:
            raise BackendError(
                f"could not bring {handle} home: {error}", fix="free some disk space, then: elias run resume"
            ) from error

    def cancel(self, handle: str) -> None:
        segment = self._segment(handle)
        if not (segment / "order.json").exists() or self.poll(handle).state.is_final:
            return
        write_whole(segment / "unwanted", b"")
        identity = self._identity(handle)
        if identity is not None:
            identity.end(CANCEL_GRACE_S)
        self.poll(handle)

    def pause(self, handle: str) -> None:
        """SIGTERM: the trainer ends with a checkpoint. One that waits for its turn is taken out of the queue."""
        identity = self._identity(handle)
        if identity is not None:
            identity.signal_group(signal.SIGTERM)
            self.come_back(handle)
        elif (self._segment(handle) / "order.json").exists():
            self.cancel(handle)

    def make_way(self, handle: str, why: str) -> None:
        segment = self._segment(handle)
        if (segment / "order.json").exists() and not self.poll(handle).state.is_final:
            making_way.ask(segment, self._identity(handle), why)

    def come_back(self, handle: str) -> None:
        making_way.thaw(self._segment(handle), self._identity(handle))

    def renew(self, handle: str) -> None:
        order = read_json(self._segment(handle) / "order.json")
        if order and order["lease"]:
            touch(Path(order["lease"]))

    def events(self, handle: str, after: int) -> Iterator[Mapping[str, Any]]:
        last, offset = self.positions.get(handle, (-1, 0))
        if last > after:
            offset = 0
        for position, event in read_events(self._segment(handle) / "out", offset):
            self.positions[handle] = (int(event["seq"]), position)
            if event["seq"] > after:
                yield event

    def log(self, handle: str) -> Iterator[str]:
        path = self._segment(handle) / "log.txt"
        if path.exists():
            with path.open(encoding="utf-8", errors="replace") as lines:
                yield from (line.rstrip("\n") for line in lines if not line.startswith(EVENT_PREFIX))

    def forget(self, handle: str) -> None:
        if self.poll(handle).state.is_final:
            shutil.rmtree(self._segment(handle) / "out", ignore_errors=True)

    # What it checks first

    def _check_room(self, bundle: Bundle) -> None:
        """A segment needs its newest checkpoints and one being written; without one yet, only the margin is known."""
        job = bundle.job
        checkpoint = _size(bundle.folder / job.checkpoint.path) if job.checkpoint else 0
        needed = checkpoint * (job.limits.keep_checkpoints + 1) + self.settings.min_free_bytes
        free = probe(self.home).disk_free_bytes
        if free < needed:
            raise DiskFull(
                f"{self.home} has {free / GIB:.1f} GiB free; this segment needs about {needed / GIB:.1f} GiB",
                fix="free some space, or move the node: set ELIAS_HOME to a folder on a larger disk",
                kept="the run and all its checkpoints",
            )

    def _lacks(self, need: Need, machine: Machine) -> str | None:
        shape = KNOWN_SHAPES.get(need.base.reference)
        if shape is None:
            return None
        precision = Precision.BF16 if machine.gpus else Precision.FP32
        needs = footprint(shape, need.recipe, precision).total
        has = max((gpu.memory_bytes for gpu in machine.gpus), default=machine.memory_bytes)
        if needs <= has:
            return None
        return (
            f"needs about {needs / GIB:.0f} GiB of memory and this machine has {has / GIB:.0f}; "
            "a smaller --base, --method qlora, --batch-size or --sequence-length would fit"
        )

    def _closed(self) -> str | None:
        """Why nothing begins here at this time of the day."""
        hours = self.settings.hours
        return f"it trains here {hours} only" if hours and hours.closed_until(self.clock.now()) else None

    # What became of it

    def _segment(self, key: str) -> Path:
        if not key or "/" in key or key.startswith("."):
            raise BackendError(f"{key!r} is no segment of this machine", fix="elias run list")
        return self.home / "segments" / key

    def _identity(self, key: str) -> ProcessIdentity | None:
        who = read_json(self._segment(key) / "who.json")
        return ProcessIdentity(pid=who["pid"], born=who["born"]) if who else None

    def _started_at(self, key: str) -> datetime | None:
        who = read_json(self._segment(key) / "who.json")
        return datetime.fromtimestamp(who["at"], UTC) if who else None

    def _device(self) -> str:
        return next((gpu.name for gpu in probe(self.home).gpus), "cpu")

    def _how_it_ended(self, key: str) -> Status:
        segment = self._segment(key)
        result, unwanted = read_result(segment / "out"), (segment / "unwanted").exists()
        if result and result.outcome is Outcome.DONE:
            return self._end(key, SegmentState.DONE, result)
        if self._made_way(segment, result) and (why := making_way.why_it_made_way(segment)):
            return self._end(key, SegmentState.PAUSED, result, why)
        if unwanted:
            return self._end(key, SegmentState.CANCELLED, result)
        if result and result.outcome is Outcome.PAUSED:
            return self._end(key, SegmentState.PAUSED, result)
        return self._end(key, SegmentState.FAILED, result, self._why_it_failed(segment, result))

    def _made_way(self, segment: Path, result: Result | None) -> bool:
        """Whether it ended as one does that was asked to pause, perhaps before it could listen."""
        if result is not None:
            return result.outcome is Outcome.PAUSED
        ended = read_json(segment / "exit.json")
        return (segment / "unwanted").exists() or ended is None or ended["code"] == -signal.SIGTERM

    def _why_it_failed(self, segment: Path, result: Result | None) -> SegmentFailure:
        if result and result.failure:
            return SegmentFailure(kind=result.failure.kind, message=result.failure.message, fix=result.failure.fix)
        ended = read_json(segment / "exit.json")
        how = _manner(ended["code"]) if ended else "vanished"
        kept = "its newest checkpoint is kept" if checkpoints(segment / "out") else "it had written no checkpoint yet"
        last = last_words(segment / "log.txt")
        message = f"the trainer {how} without a result; {kept}" + (f"; its last words: {last}" if last else "")
        return SegmentFailure(kind=FailureKind.INFRASTRUCTURE, message=message, fix=f"see {segment / 'log.txt'}")

    def _end(
        self, key: str, state: SegmentState, result: Result | None = None, failure: SegmentFailure | None = None
    ) -> Status:
        """Write down the end; from now on it stays."""
        segment, started = self._segment(key), self._started_at(key)
        left = read_json(segment / "exit.json")
        ended = datetime.fromtimestamp(left["at"], UTC) if left else self.clock.now()
        accelerator = result.accelerator if result else None
        status = Status(state=state, accelerator=accelerator, started_at=started, ended_at=ended, failure=failure)
        record = status.to_record()
        write_whole(segment / "ended.json", json.dumps(record).encode())
        return Status.from_record(record)


def _manner(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _lease_path(bundle: Bundle) -> str | None:
    job: Job = bundle.job
    return str((bundle.folder / job.lease.path).absolute()) if job.lease else None


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
