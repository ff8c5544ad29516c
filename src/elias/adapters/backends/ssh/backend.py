"""The Backend port on a machine that the user can log into.

`submit` packs a segment and writes it down; `poll` sends it, begins it, looks after it and brings it home, with one
short call over ssh at a time. The trainer there needs no connection; while there is none, the segment is as it was.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from elias.adapters.backends.bundle import refuse_by_label, verify_bundle
from elias.adapters.backends.carried import Ended, status_of
from elias.adapters.backends.outcome import RESUME
from elias.adapters.backends.output import bring_home, disk_error, events_so_far, keep_all_events, read_json
from elias.adapters.backends.printed import other_lines
from elias.adapters.backends.ssh.connection import Connection
from elias.adapters.backends.ssh.machine import Machine
from elias.adapters.backends.ssh.settings import SshSettings
from elias.adapters.backends.ssh.transfer import Carrier, objects_of
from elias.domain.offer import Need, Offer
from elias.domain.run import SegmentState
from elias.errors import BackendError, DigestMismatch, EliasError, VerificationError
from elias.ports.backend import BackendContext, Bundle, Status
from elias.units import instant, rfc3339
from elias_trainer.contract import FailureKind, canonical_json, digest_bytes, write_whole

CANCEL_GRACE_S = 120.0
"""For the last checkpoint; then SIGKILL."""
OPEN_TRIES = 3
"""How often outputs that did not come whole are fetched before the segment counts as failed."""


class SshBackend:
    """Keeps all it knows in files, one folder a segment, so that any process of this node can go on with it.

    In it: parcel/, segment.key, order.json; `arrived`, `tried` (to begin it), `cancel`, `pause`; live/events.jsonl,
    outbox/, out/, log.txt; ended.json; `unneeded` until the machine has forgotten it too.
    """

    def __init__(self, context: BackendContext) -> None:
        self.name = context.name
        self.settings = SshSettings.read(context.settings, context.name)
        self._clock = context.clock
        self._segments = context.home / "segments"
        self._node = _folder_name(context.node)
        self._connection = Connection(context.name, self.settings, context.environment)
        self._machine = Machine(context, self.settings, self._connection)
        self._carrier = Carrier(context, self.settings, self._connection, self._node)
        self._locks: dict[str, threading.RLock] = {}
        self._renewals: set[str] = set()
        self._last: dict[str, tuple[float, Status]] = {}
        self._trouble: dict[str, datetime] = {}

    def close(self) -> None:
        """End the connection that is kept open between calls."""
        self._connection.close()

    def offers(self, need: Need) -> Sequence[Offer]:
        return [self._machine.offer(need)]

    def submit(self, key: str, bundle: Bundle, offer: Offer) -> str:
        refuse_by_label(bundle.label, offer, encrypted=True)
        folder = self._folder(key)
        with self._lock(key):
            if not (folder / "order.json").exists():
                verify_bundle(bundle)
                self._carrier.prepare(folder, bundle, offer)
        return key

    def find(self, key: str) -> str | None:
        """Nothing is sent before it was written down."""
        return key if (self._folder(key) / "order.json").exists() else None

    def poll(self, handle: str) -> Status:
        folder = self._folder(handle)
        if ended := read_json(folder / "ended.json"):
            return Status.from_record(ended)
        if not (folder / "order.json").exists():
            return Status.failed(FailureKind.INFRASTRUCTURE, f"{self.name} was sent no segment {handle!r}", RESUME)
        asked, known = self._last.get(handle, (0.0, None))
        if known is not None and time.monotonic() - asked < self.settings.poll_every.total_seconds():
            return known
        with self._lock(handle):
            if ended := read_json(folder / "ended.json"):
                return Status.from_record(ended)
            try:
                status = self._look(handle, folder)
                self._trouble.pop(handle, None)
            except EliasError as error:
                status = self._in_trouble(handle, folder, error)
            except OSError as error:
                status = self._in_trouble(handle, folder, disk_error(error))
        self._last[handle] = (time.monotonic(), status)
        return status

    def renew(self, handle: str) -> None:
        """With the next look: a trainer there may be alone for an hour before it minds."""
        self._renewals.add(handle)

    def events(self, handle: str, after: int) -> Iterator[Mapping[str, Any]]:
        """As of the last look."""
        yield from events_so_far(self._folder(handle), after)

    def fetch(self, handle: str, into: Path) -> None:
        """While it runs it is looked at first, so that the newest checkpoint there comes home."""
        folder = self._folder(handle)
        into.mkdir(parents=True, exist_ok=True)
        if not (folder / "order.json").exists():
            return
        self.poll(handle)
        with self._lock(handle):
            try:
                if not (folder / "ended.json").exists() and (folder / "arrived").exists():
                    self._carrier.bring(folder)
                    keep_all_events(folder)
                if (folder / "out").exists():
                    bring_home(folder / "out", into)
            except OSError as error:
                raise disk_error(error) from error

    def cancel(self, handle: str) -> None:
        """SIGTERM with the next look, which is now where the machine answers: it saves a checkpoint first."""
        self._wish(handle, "cancel")

    def pause(self, handle: str) -> None:
        self._wish(handle, "pause")

    def log(self, handle: str) -> Iterator[str]:
        folder = self._folder(handle)
        path = folder / "log.txt"
        if path.exists():
            text = path.read_text(encoding="utf-8", errors="replace")
        elif (folder / "arrived").exists():
            text = self._connection.ask("log", node=self._node, segment=handle)["log"]
        else:
            return
        yield from other_lines(text.splitlines())

    def forget(self, handle: str) -> None:
        """Here at once; there now, or with the next segment that is forgotten when the machine is out of reach."""
        folder = self._folder(handle)
        if not (folder / "ended.json").exists():
            return
        (folder / "unneeded").touch()
        for name in ("out", "outbox", "live", "arriving"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for path in sorted(self._segments.glob("*/unneeded")):
            try:
                self._forget_there(path.parent)
            except EliasError:
                return  # its mark stays

    # Looking after one

    def _look(self, key: str, folder: Path) -> Status:
        is_cancelled, is_paused = (folder / "cancel").exists(), (folder / "pause").exists()
        if not (folder / "arrived").exists():
            if is_cancelled or is_paused:
                return self._end(folder, Status(state=SegmentState.CANCELLED))
            self._carrier.send(folder)
            (folder / "arrived").touch()
        (folder / "tried").touch()
        live = folder / "live" / "events.jsonl"
        answer = self._connection.ask(
            "look",
            node=self._node,
            segment=key,
            cancel=is_cancelled,
            pause=is_paused,
            renew=key in self._renewals,
            grace_s=CANCEL_GRACE_S,
            events_from=live.stat().st_size if live.exists() else 0,
        )
        self._renewals.discard(key)
        if answer["state"] == "waiting":
            return Status(state=SegmentState.PENDING, note=f"waits: another segment trains on {self.settings.host}")
        if answer["state"] == "never":
            return self._end(folder, Status(state=SegmentState.CANCELLED))
        if answer["state"] == "unknown":
            what = f"{self.settings.host} does not know the segment any more"
            return self._end(folder, Status.failed(FailureKind.INFRASTRUCTURE, what, RESUME))
        if answer["events"]:
            live.parent.mkdir(exist_ok=True)
            with live.open("ab") as stream:
                stream.write(answer["events"].encode())
        started = self._clock.now() - timedelta(seconds=answer["age_s"])
        if not (folder / "started").exists():
            write_whole(folder / "started", rfc3339(started).encode())
        if answer["state"] == "running":
            return Status(
                state=SegmentState.RUNNING, started_at=_started(folder), accelerator=self._machine.accelerator
            )
        return self._collect(folder, answer)

    def _collect(self, folder: Path, answer: Mapping[str, Any]) -> Status:
        problem = None
        for number in range(OPEN_TRIES):
            try:
                self._carrier.bring(folder)
                problem = None
                break
            except (DigestMismatch, VerificationError) as error:
                problem = f"{error.what} ({number + 1} tries)"
        log = self._connection.ask("log", node=self._node, segment=folder.name)["log"]
        write_whole(folder / "log.txt", log.encode())
        keep_all_events(folder)
        status = status_of(
            Ended(
                key=folder.name,
                out=folder / "out",
                log=folder / "log.txt",
                code=answer["code"],
                is_unwanted=(folder / "cancel").exists(),
                was_paused=(folder / "pause").exists(),
                problem=problem,
            )
        )
        ended = self._clock.now() - timedelta(seconds=answer["ended_ago_s"] or 0.0)
        return self._end(folder, replace(status, started_at=_started(folder), ended_at=ended))

    def _end(self, folder: Path, status: Status) -> Status:
        """Write down the end; from now on it stays."""
        record = status.to_record(self._clock.now())
        if (folder / "parcel" / "parcel.json").exists():
            write_whole(folder / "objects.json", canonical_json(list(objects_of(folder / "parcel"))))
        write_whole(folder / "ended.json", canonical_json(record))
        for name in ("parcel", "arriving"):
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / "segment.key").unlink(missing_ok=True)
        self._renewals.discard(folder.name)
        return Status.from_record(record)

    def _in_trouble(self, key: str, folder: Path, error: EliasError) -> Status:
        """Out of reach: the segment is as it was, for a bounded time. What a person has to mend is said at once,
        unless it was begun, or may have been: then it is brought home when that is mended."""
        was_tried = (folder / "tried").exists()
        since = self._trouble.setdefault(key, self._clock.now())
        patience = self.settings.patience if was_tried else self.settings.start_patience
        if (not was_tried and not error.is_worth_retry) or self._clock.now() - since > patience:
            kind = FailureKind.INFRASTRUCTURE if isinstance(error, BackendError) else FailureKind.USER
            return self._end(folder, Status.failed(kind, error.what, error.fix))
        known = self._last.get(key, (0.0, Status(state=SegmentState.PENDING)))[1]
        started = _started(folder)
        state = SegmentState.RUNNING if started else known.state
        return replace(
            known, state=state, started_at=started, note=f"{error.what}, since {rfc3339(since)}: {error.fix}"
        )

    def _wish(self, handle: str, name: str) -> None:
        folder = self._folder(handle)
        if (folder / "order.json").exists() and not (folder / "ended.json").exists():
            (folder / name).touch()
            self._last.pop(handle, None)
            self.poll(handle)

    def _forget_there(self, folder: Path) -> None:
        order, objects = read_json(folder / "order.json"), folder / "objects.json"
        sealed = json.loads(objects.read_bytes()) if order and order["sealed"] and objects.exists() else []
        if (folder / "arrived").exists():
            self._connection.ask("forget", node=self._node, segment=folder.name, sealed_objects=sealed)
        (folder / "unneeded").unlink(missing_ok=True)

    def _folder(self, key: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", key):
            raise BackendError(f"{key!r} is no segment of {self.name}", fix="elias run list")
        return self._segments / key

    def _lock(self, key: str) -> threading.RLock:
        return self._locks.setdefault(key, threading.RLock())


def _folder_name(node: str) -> str:
    """Readable, and never that of another node."""
    return f"{re.sub(r'[^A-Za-z0-9-]', '-', node)[:32]}-{digest_bytes(node.encode()).hex[:8]}"


def _started(folder: Path) -> datetime | None:
    path = folder / "started"
    return instant(path.read_text(encoding="utf-8")) if path.exists() else None
