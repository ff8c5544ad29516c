"""The Backend port on Kaggle. Each segment is pushed once its parcel is ready, quota is there and a session is free."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from elias.adapters.backends.bundle import refuse_by_label, verify_bundle
from elias.adapters.backends.kaggle.client import KaggleClient, Session
from elias.adapters.backends.kaggle.ledger import Entry, Ledger
from elias.adapters.backends.kaggle.sender import CARDS, T4_BYTES, Sender
from elias.adapters.backends.kaggle.settings import KaggleSettings
from elias.adapters.backends.output import bring_home, checkpoints, read_events, read_result
from elias.adapters.backends.parcels import open_outbox
from elias.domain.footprint import KNOWN_SHAPES, footprint
from elias.domain.offer import Need, Offer
from elias.domain.run import SegmentFailure, SegmentState
from elias.domain.tier import GIB
from elias.errors import DigestMismatch, NotFound
from elias.ports.backend import BackendContext, Bundle, Quota, Status
from elias.units import FREE, instant, rfc3339
from elias_trainer.contract import EVENT_PREFIX, FailureKind, Outcome, Precision, Result

T4_TFLOPS = 65.0
"""Dense, float16; a T4 has no bfloat16."""
START_DELAY = timedelta(minutes=3)
QUIET_S = 2.0
NOTE_PREFIX = "ELIAS-CARRY "
STALE_EXIT = 75
FIX = "elias run resume goes on from the newest checkpoint"


class KaggleBackend:
    """Keeps what it did in files, one folder a segment, so that any process of this node goes on with it."""

    def __init__(self, context: BackendContext) -> None:
        self.name = context.name
        self.settings = KaggleSettings.read(context.settings)
        self._context = context
        self._clock = context.clock
        self._ledger = Ledger(context.home)
        self._client = KaggleClient(self.settings, context.clock, context.home / "uploads")
        self._sender = Sender(context, self.settings, self._client, self._ledger)
        self._looked: dict[str, float] = {}

    # What is on offer

    def quota(self) -> Quota:
        return self._sender.quota()

    def offers(self, need: Need) -> Sequence[Offer]:
        quota = self.quota() if self.settings.accelerator else None
        left = max(quota.allowed - quota.used - quota.reserved, timedelta(0)) if quota else None
        usable = left - self.settings.margin if left is not None else None
        return [
            Offer(
                backend=self.name,
                accelerator=self.settings.accelerator or "cpu",
                accelerator_count=CARDS if self.settings.accelerator else 1,
                memory_bytes=T4_BYTES if self.settings.accelerator else 31 * GIB,
                tflops=T4_TFLOPS if self.settings.accelerator else None,
                hourly=FREE,
                longest=self.settings.session_limit - self.settings.margin,
                left=max(usable, timedelta(0)) if usable is not None else None,
                refreshes_at=quota.refreshes_at if quota else None,
                concurrency=self.settings.sessions_at_once,
                start_delay=START_DELAY,
                needs_encryption=True,
                seals_private=True,
                refused=self._does_not_fit(need),
            )
        ]

    def _does_not_fit(self, need: Need) -> str | None:
        shape = KNOWN_SHAPES.get(need.base.reference)
        if shape is None or not self.settings.accelerator:
            return None
        total = footprint(shape, need.recipe, Precision.FP16).total
        if total <= CARDS * T4_BYTES:
            return None
        return (
            f"needs {total / GIB:.0f} GiB and two T4s have {CARDS * T4_BYTES / GIB:.0f}: "
            "use --method qlora, a smaller batch, or gradient checkpointing"
        )

    # A segment's life

    def submit(self, key: str, bundle: Bundle, offer: Offer) -> str:
        refuse_by_label(bundle.label, offer, encrypted=offer.seals_private)
        if self._ledger.get(key) is None:
            verify_bundle(bundle)
            self._sender.prepare(key, bundle)
        self._sender.push_if_free(key)
        return key

    def poll(self, handle: str) -> Status:
        entry = self._ledger.get(handle)
        if entry is None:
            return _failed(FailureKind.INFRASTRUCTURE, f"this node sent no segment {handle!r} to Kaggle", FIX)
        if entry.ended is not None:
            return _status(entry.ended)
        if not entry.has_run:
            return self._sender.push_if_free(handle)
        try:
            session = self._client.session(entry.kernel)
        except NotFound:
            return self._after_a_missing_kernel(entry)
        if not session.has_ended:
            state = SegmentState.PENDING if session.status in ("QUEUED", "NEW_SCRIPT") else SegmentState.RUNNING
            return Status(state=state, accelerator=self.settings.accelerator, note=_note(entry, session))
        return self._collect(entry, session)

    def fetch(self, handle: str, into: Path) -> None:
        """Kaggle hands outputs out only after a session's end; until then there is nothing to bring."""
        into.mkdir(parents=True, exist_ok=True)
        out = self._ledger.folder(handle) / "out"
        if out.exists():
            bring_home(out, into)

    def cancel(self, handle: str) -> None:
        """A session cannot be stopped through the API without losing its output: it ends by its own deadline."""
        entry = self._ledger.get(handle)
        if entry is None or entry.ended is not None:
            return
        if not entry.has_run:
            self._end(entry, Status(state=SegmentState.CANCELLED))
        else:
            self._ledger.change(handle, unwanted=True)

    def events(self, handle: str, after: int) -> Iterator[Mapping[str, Any]]:
        entry = self._ledger.get(handle)
        if entry is None or not entry.has_run:
            return
        out = self._ledger.folder(handle) / "out"
        found = [event for _, event in read_events(out)] if out.exists() else self._live_events(entry)
        yield from (event for event in found if int(event["seq"]) > after)

    # Coming home

    def _collect(self, entry: Entry, session: Session) -> Status:
        folder = self._ledger.folder(entry.key)
        self._client.output(entry.kernel, folder / "outbox")
        self._drop_key(entry)
        if self._found_another_version(folder / "outbox" / f"{entry.kernel}.log"):
            return self._try_again(entry)
        try:
            open_outbox(folder / "outbox", folder / "out", self._context.node_key)
        except DigestMismatch as broken:
            return self._end(entry, _failed(FailureKind.VERIFICATION, broken.what, broken.fix))
        return self._end(entry, self._how_it_ended(entry, session, read_result(folder / "out")))

    def _how_it_ended(self, entry: Entry, session: Session, result: Result | None) -> Status:
        if entry.unwanted and (result is None or result.outcome is not Outcome.DONE):
            return Status(state=SegmentState.CANCELLED, ended_at=self._clock.now())
        if result is None:
            kind = FailureKind.PREEMPTED if session.status == "CANCEL_ACKNOWLEDGED" else FailureKind.INFRASTRUCTURE
            kept = checkpoints(self._ledger.folder(entry.key) / "out")
            message = f"the session ended {session.status} ({session.failure or 'no reason given'})"
            return _failed(
                kind, f"{message}; {f'{kept[0].name} came home' if kept else 'no checkpoint came home'}", FIX
            )
        if result.failure is not None:
            return _failed(result.failure.kind, result.failure.message, result.failure.fix)
        state = SegmentState.DONE if result.outcome is Outcome.DONE else SegmentState.PAUSED
        return Status(state=state, accelerator=result.accelerator, ended_at=self._clock.now())

    def _found_another_version(self, log: Path) -> bool:
        """Whether the job refused to train because another dataset version was mounted than the one it was made for."""
        return any(note.get("kind") == "stale" for note in _notes(_log_text(log)))

    def _try_again(self, entry: Entry) -> Status:
        if entry.stale_tries + 1 >= self.settings.stale_tries:
            message = f"Kaggle mounted another dataset version {self.settings.stale_tries} times"
            return self._end(entry, _failed(FailureKind.INFRASTRUCTURE, message, FIX))
        self._ledger.change(entry.key, has_run=False, stale_tries=entry.stale_tries + 1)
        return Status(state=SegmentState.PENDING, note="Kaggle mounted an older dataset version; it is sent again")

    def _after_a_missing_kernel(self, entry: Entry) -> Status:
        self._drop_key(entry)
        if entry.unwanted:
            return self._end(entry, Status(state=SegmentState.CANCELLED))
        message = f"the kernel {entry.kernel} is not on Kaggle any more"
        return self._end(entry, _failed(FailureKind.INFRASTRUCTURE, message, FIX))

    def _live_events(self, entry: Entry) -> list[Mapping[str, Any]]:
        """From the log stream, which begins anew each time it is opened; not more often than is set."""
        now = self._clock.now().timestamp()
        if now - self._looked.get(entry.key, 0.0) < self.settings.events_every.total_seconds():
            return []
        self._looked[entry.key] = now
        lines = list(self._client.log_lines(entry.kernel, QUIET_S))
        if any(note.get("kind") == "opened" for note in _notes(lines)):
            self._drop_key(entry)
        return [json.loads(line.removeprefix(EVENT_PREFIX)) for line in lines if line.startswith(EVENT_PREFIX)]

    def _drop_key(self, entry: Entry) -> None:
        """The key's dataset lives until the job has read it, and no longer."""
        key_dataset = self._sender.key_dataset(entry)
        if key_dataset and not entry.key_read:
            self._client.delete_dataset(key_dataset)
            self._ledger.change(entry.key, key_read=True)

    def _end(self, entry: Entry, status: Status) -> Status:
        ended = asdict(status) | {
            "cost": 0,
            "started_at": None,
            "ended_at": rfc3339(status.ended_at or self._clock.now()),
        }
        self._ledger.change(entry.key, ended=ended)
        return _status(ended)


def _status(ended: Mapping[str, Any]) -> Status:
    failure = ended["failure"]
    return Status(
        state=SegmentState(ended["state"]),
        accelerator=ended["accelerator"],
        ended_at=instant(ended["ended_at"]),
        failure=SegmentFailure(**{**failure, "kind": FailureKind(failure["kind"])}) if failure else None,
        note=ended["note"],
    )


def _failed(kind: FailureKind, message: str, fix: str) -> Status:
    return Status(state=SegmentState.FAILED, failure=SegmentFailure(kind=kind, message=message, fix=fix))


def _note(entry: Entry, session: Session) -> str:
    if entry.unwanted:
        return f"cancelled: Kaggle cannot stop a session and keep its output; it ends {entry.seconds} s after its start"
    return f"Kaggle says {session.status}"


def _log_text(log: Path) -> list[str]:
    if not log.exists():
        return []
    entries = json.loads(log.read_text(encoding="utf-8"))
    return "".join(str(entry.get("data", "")) for entry in entries).splitlines()


def _notes(lines: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        if line.startswith(NOTE_PREFIX):
            yield json.loads(line.removeprefix(NOTE_PREFIX))
