"""The Backend port for any machine that can only reach out: a notebook, a desktop behind a router, a borrowed server.

`submit` packs a segment and writes it down; a worker that calls at the door takes it, and brings home what it makes.
All of it is in files (`inbox`), so that the door and whoever carries the run may be different processes of this node.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from elias.adapters.backends.bundle import refuse_by_label, verify_bundle
from elias.adapters.backends.carried import Ended, status_of
from elias.adapters.backends.found_machine import accelerator_of, is_too_small, offer_of
from elias.adapters.backends.outcome import RESUME, what_came_home
from elias.adapters.backends.output import bring_home, disk_error, events_so_far, keep_all_events, read_json
from elias.adapters.backends.parcels import Destination, make_parcel
from elias.adapters.backends.printed import other_lines
from elias.adapters.backends.worker.door import Door
from elias.adapters.backends.worker.fitness import lacks
from elias.adapters.backends.worker.inbox import Inbox
from elias.adapters.backends.worker.register import Known, Register
from elias.adapters.backends.worker.settings import WorkerSettings
from elias.domain.label import Label
from elias.domain.offer import Need, Offer
from elias.domain.run import SegmentState
from elias.errors import ConfigError, DigestMismatch, EliasError, VerificationError
from elias.ports.backend import BackendContext, Bundle, Status
from elias.units import instant, rfc3339
from elias_trainer.contract import FailureKind, canonical_json, write_whole
from elias_trainer.parcel import PARCEL_FILE

CANCEL_GRACE_S = 120.0
"""For the last checkpoint; then SIGKILL."""
OPEN_DOOR_EVERY_S = 2.0


class WorkerBackend:
    def __init__(self, context: BackendContext) -> None:
        self.name = context.name
        self.settings = WorkerSettings.read(context.settings, context.name)
        self.register = Register(context.home, context.clock)
        self._context = context
        self._clock = context.clock
        self._inbox = Inbox(context.home, context.clock, self.settings.most_gib << 30)
        self._door = Door(context, self.settings, self._inbox, self.register)
        self._tried_door = float("-inf")

    # The door

    def listen(self) -> None:
        """Keep the door open where there is anybody to come in, unless another process of this node does."""
        if self.has_credentials() or self._inbox.under_way():
            self._door.open()

    def close(self) -> None:
        self._door.close()

    def has_credentials(self) -> bool:
        """Whether a worker has joined, or may."""
        return bool(self.register.known()) or self.register.has_open_token()

    def segment_of(self, worker: str) -> str | None:
        folder = self._inbox.of_worker(worker)
        return folder.name if folder else None

    # The port

    def offers(self, need: Need) -> Sequence[Offer]:
        """One for each kind of machine that called lately; refused ones of machines that called before."""
        known = self.register.known()
        if not known:
            raise ConfigError(
                "no worker has joined" + (": a token waits for one" if self.register.has_open_token() else ""),
                fix="elias worker token, and what it says on the other machine; docs/other-gpus.md",
            )
        kinds: dict[str, list[Known]] = {}
        for one in known:
            kinds.setdefault(_kind(one), []).append(one)
        return [self._offer(need, variant, ones) for variant, ones in sorted(kinds.items())]

    def submit(self, key: str, bundle: Bundle, offer: Offer) -> str:
        refuse_by_label(bundle.label, offer, encrypted=True)
        with self._inbox.locked(key) as folder:
            if not (folder / "order.json").exists():
                verify_bundle(bundle)
                write_whole(folder / "order.json", canonical_json(self._order(folder, bundle, offer)))
        return key

    def find(self, key: str) -> str | None:
        """Nothing waits for a worker before it was written down."""
        return key if (self._inbox.folder(key) / "order.json").exists() else None

    def poll(self, handle: str) -> Status:
        folder = self._inbox.folder(handle)
        if ended := read_json(folder / "ended.json"):
            return Status.from_record(ended)
        if not (folder / "order.json").exists():
            return Status.failed(FailureKind.INFRASTRUCTURE, f"{self.name} was sent no segment {handle!r}", RESUME)
        trouble = self._keep_door_open()
        try:
            with self._inbox.locked(handle):
                if ended := read_json(folder / "ended.json"):
                    return Status.from_record(ended)
                return self._look(folder, trouble)
        except OSError as error:
            raise disk_error(error) from error

    def renew(self, handle: str) -> None:
        """Told to the worker with its next report, and heeded there for as long as `alone` allows."""
        folder = self._inbox.folder(handle)
        if (folder / "order.json").exists() and not (folder / "ended.json").exists():
            (folder / "renewed").touch()

    def events(self, handle: str, after: int) -> Iterator[Mapping[str, Any]]:
        yield from events_so_far(self._inbox.folder(handle), after)

    def fetch(self, handle: str, into: Path) -> None:
        folder = self._inbox.folder(handle)
        into.mkdir(parents=True, exist_ok=True)
        if not (folder / "order.json").exists():
            return
        try:
            with self._inbox.locked(handle):
                if not (folder / "ended.json").exists():
                    self._inbox.open_newest(folder, self._context.node_key)
                    keep_all_events(folder)
                if (folder / "out").exists():
                    bring_home(folder / "out", into)
        except OSError as error:
            raise disk_error(error) from error

    def cancel(self, handle: str) -> None:
        self._wish(handle, "cancel")

    def pause(self, handle: str) -> None:
        self._wish(handle, "pause")

    def log(self, handle: str) -> Iterator[str]:
        path = self._inbox.folder(handle) / "live" / "log.txt"
        if path.exists():
            yield from other_lines(path.read_text(encoding="utf-8", errors="replace").splitlines())

    def forget(self, handle: str) -> None:
        folder = self._inbox.folder(handle)
        if (folder / "ended.json").exists():
            for name in ("out", "outbox", "live"):
                shutil.rmtree(folder / name, ignore_errors=True)

    # Looking after one

    def _look(self, folder: Path, trouble: str | None) -> Status:
        claim, wish, now = read_json(folder / "claim.json"), self._inbox.wish(folder), self._clock.now()
        if (last := read_json(folder / "reported.json")) is not None:
            return self._collect(folder, last)
        if claim is None:
            if wish != "go":
                return self._end(folder, Status(state=SegmentState.CANCELLED))
            return self._waiting(folder, now, trouble)
        started = _started(folder)
        worker, note = f"worker {claim['worker']} ({claim['machine']['name']})", trouble
        silent = self._silent_for(folder, now)
        is_forgotten = not self.register.machine(claim["worker"])
        if silent > self.settings.patience or is_forgotten:
            return self._give_up(folder, f"{worker} was forgotten" if is_forgotten else f"{worker} has been silent")
        if silent > self.settings.report_every * 10:
            note = f"{worker} has been silent for {silent.total_seconds():.0f} s"
        return Status(
            state=SegmentState.RUNNING if started else SegmentState.PENDING,
            started_at=started,
            accelerator=accelerator_of(claim["machine"]) if started else None,
            note=note or (None if started else f"{worker} fetches it"),
        )

    def _waiting(self, folder: Path, now: datetime, trouble: str | None) -> Status:
        order = read_json(folder / "order.json") or {}
        since = max(instant(order["submitted_at"]), self._door.open_since() or now)
        if trouble is None and now - since > self.settings.start_patience:
            what = f"no worker with {order['accelerator']} took it in {self.settings.start_patience}"
            fix = f"start one again (elias worker join there), or train elsewhere; {RESUME}"
            return self._end(folder, Status.failed(FailureKind.CAPACITY, what, fix))
        return Status(
            state=SegmentState.PENDING, note=trouble or f"waits for a worker with {order['accelerator']} to call"
        )

    def _silent_for(self, folder: Path, now: datetime) -> timedelta:
        """While the door was open: a worker cannot call where nobody answers."""
        since, heard = self._door.open_since(), self._inbox.heard_at(folder)
        return now - max(since, heard or since) if since else timedelta(0)

    def _give_up(self, folder: Path, why: str) -> Status:
        """Its worker hears with its next call that it is not wanted, and ends it."""
        problem = self._opened(folder)
        what = f"{why}; {what_came_home(folder / 'out')}" + (f"; {problem}" if problem else "")
        status = Status.failed(FailureKind.INFRASTRUCTURE, what, RESUME)
        if self._inbox.wish(folder) == "cancel":
            status = Status(state=SegmentState.CANCELLED)
        return self._end(folder, replace(status, started_at=_started(folder)))

    def _collect(self, folder: Path, last: Mapping[str, Any]) -> Status:
        problem = self._opened(folder) or last["problem"]
        wish = self._inbox.wish(folder)
        if last["code"] == "never" and wish != "go":
            status = Status(state=SegmentState.CANCELLED)
        elif last["code"] == "never":
            what = f"its worker did not begin it: {problem or 'it was stopped there'}"
            status = Status.failed(FailureKind.INFRASTRUCTURE, what, RESUME)
        else:
            status = status_of(
                Ended(
                    key=folder.name,
                    out=folder / "out",
                    log=folder / "live" / "log.txt",
                    code=last["code"],
                    is_unwanted=wish == "cancel",
                    was_paused=wish == "pause",
                    problem=problem,
                    vanished="was left alone when its worker died,",
                    lacks_fix="install it there for the interpreter that the worker runs with",
                )
            )
        return self._end(folder, replace(status, started_at=_started(folder), ended_at=instant(last["at"])))

    def _opened(self, folder: Path) -> str | None:
        """What kept it from being opened whole."""
        try:
            self._inbox.open_newest(folder, self._context.node_key)
            return None
        except (DigestMismatch, VerificationError) as error:
            return error.what
        finally:
            keep_all_events(folder)

    def _end(self, folder: Path, status: Status) -> Status:
        record = status.to_record(self._clock.now())
        self._inbox.end(folder, record)
        return Status.from_record(record)

    def _wish(self, handle: str, name: str) -> None:
        folder = self._inbox.folder(handle)
        if (folder / "order.json").exists() and not (folder / "ended.json").exists():
            with self._inbox.locked(handle):
                (folder / name).touch()

    def _keep_door_open(self) -> str | None:
        """Why no worker can come in."""
        if time.monotonic() - self._tried_door > OPEN_DOOR_EVERY_S:
            self._tried_door = time.monotonic()
            try:
                self._door.open()
            except EliasError as error:
                return f"{error.what} ({error.fix})"
        return None if self._door.open_since() else "the door for workers is shut"

    # What goes out

    def _order(self, folder: Path, bundle: Bundle, offer: Offer) -> dict[str, Any]:
        is_sealed = bundle.label is Label.PRIVATE
        travels = bundle if is_sealed else replace(bundle, label=Label.SHARED)
        parcel = make_parcel(travels, folder / "parcel", Destination(node_key=self._context.node_key))
        digests = {**parcel.files, PARCEL_FILE: parcel.digest}
        return {
            "expect": parcel.digest,
            "files": {
                name: {"digest": digest.hex, "size": (folder / "parcel" / name).stat().st_size}
                for name, digest in digests.items()
            },
            "sealed": is_sealed,
            "accelerator": offer.accelerator,
            "gpus": 0 if offer.accelerator == "cpu" else offer.accelerator_count,
            "lease": bundle.job.lease.path if bundle.job.lease else None,
            "alone_s": self.settings.alone.total_seconds(),
            "report_s": self.settings.report_every.total_seconds(),
            "grace_s": CANCEL_GRACE_S,
            "submitted_at": rfc3339(self._clock.now()),
        }

    def _offer(self, need: Need, variant: str, ones: Sequence[Known]) -> Offer:
        here = [one for one in ones if self._clock.now() - one.seen_at < self.settings.seen_within]
        wanted = [one for one in here if not one.is_dismissed]
        why = [self._why_not(need, one) for one in wanted]
        last = max(ones, key=lambda one: one.seen_at)
        refused = None if None in why else next(iter(why), f"no such worker has called since {rfc3339(last.seen_at)}")
        found = offer_of(self.name, (wanted or [last])[0].machine, refused, variant=variant)
        return replace(found, concurrency=max(1, why.count(None)))

    def _why_not(self, need: Need, one: Known) -> str | None:
        is_sealed = need.label is Label.PRIVATE
        return lacks(one.machine, is_sealed=is_sealed) or is_too_small(need, one.machine, one.machine["name"])


def _kind(one: Known) -> str:
    """Workers of one kind are as good as each other."""
    count = len(one.machine["gpus"])
    return f"{count}x {accelerator_of(one.machine)}" if count > 1 else accelerator_of(one.machine)


def _started(folder: Path) -> datetime | None:
    path = folder / "started"
    return instant(path.read_text(encoding="utf-8")) if path.exists() else None
