"""The Backend port on Kaggle. Each segment is pushed once its parcel is ready, quota is there and a session is free.

Whatever goes wrong between here and Kaggle, a segment that is there is waited for: its output stays where it is, and a
segment given up in haste would be trained twice.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from elias.adapters.backends.bundle import LOCAL_BASES, refuse_by_label, verify_bundle
from elias.adapters.backends.kaggle.adopted import Adopter
from elias.adapters.backends.kaggle.client import KaggleClient, Session
from elias.adapters.backends.kaggle.ledger import Entry, Ledger, when
from elias.adapters.backends.kaggle.outcome import Ended, log_lines, mounted_another, status_of
from elias.adapters.backends.kaggle.sender import CARDS, T4_BYTES, Sender
from elias.adapters.backends.kaggle.settings import KaggleSettings
from elias.adapters.backends.kaggle.watch import Watch
from elias.adapters.backends.outcome import RESUME, failed_by
from elias.adapters.backends.output import bring_home, read_events
from elias.adapters.backends.parcels import open_outbox
from elias.adapters.backends.printed import notes_in, other_lines
from elias.domain.footprint import KNOWN_SHAPES, footprint
from elias.domain.offer import Need, Offer
from elias.domain.run import SegmentState
from elias.domain.tier import GIB
from elias.errors import DigestMismatch, EliasError, NotFound, VerificationError
from elias.ports.backend import BackendContext, Bundle, Quota, Status
from elias.units import FREE, rfc3339
from elias_trainer.contract import FailureKind, Precision

log = logging.getLogger("elias.kaggle")

T4_TFLOPS = 65.0
"""Dense, float16; a T4 has no bfloat16."""
START_DELAY = timedelta(minutes=3)


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
        read_s = self.settings.http_read.total_seconds()
        self._watch = Watch(self.settings, lambda kernel: self._client.log_lines(kernel, read_s))

    # What is on offer

    def quota(self) -> Quota:
        return self._sender.quota()

    def offers(self, need: Need) -> Sequence[Offer]:
        quota = self.quota() if self.settings.accelerator else None
        left = quota.allowed - quota.used - quota.reserved - self.settings.margin if quota else None
        return [
            Offer(
                backend=self.name,
                accelerator=self.settings.accelerator or "cpu",
                accelerator_count=CARDS if self.settings.accelerator else 1,
                memory_bytes=T4_BYTES if self.settings.accelerator else 31 * GIB,
                tflops=T4_TFLOPS if self.settings.accelerator else None,
                hourly=FREE,
                longest=self.settings.session_limit - self.settings.margin,
                left=max(left, timedelta(0)) if left is not None else None,
                refreshes_at=quota.refreshes_at if quota else None,
                concurrency=self.settings.sessions_at_once,
                start_delay=START_DELAY,
                needs_encryption=True,
                seals_private=True,
                refused=self._cannot(need),
            )
        ]

    def _cannot(self, need: Need) -> str | None:
        reference = need.base.reference
        if not reference.startswith(LOCAL_BASES) and not (self.settings.internet or self.settings.base_source):
            return (
                f"the notebook has no internet to fetch {reference} with: under [backends.kaggle] set internet = true, "
                "or base_source to a Kaggle dataset that holds its files"
            )
        shape = KNOWN_SHAPES.get(reference)
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
        """Packed and written down; `poll` sends it, so that no trouble on the way makes the segment another one."""
        refuse_by_label(bundle.label, offer, encrypted=offer.seals_private)
        if self._ledger.get(key) is None:
            verify_bundle(bundle)
            self._clean_up()
            self._sender.prepare(key, bundle)
        return key

    def poll(self, handle: str) -> Status:
        entry = self._ledger.get(handle)
        if entry is None:
            what = f"this node sent no segment {handle!r} to Kaggle"
            return Status.failed(FailureKind.INFRASTRUCTURE, what, RESUME)
        if entry.ended is not None:
            return Status.from_record(entry.ended)
        if known := self._watch.known(entry):
            return known
        news = self._watch.news(entry)
        try:
            status = self._look(entry)
            if entry.trouble_since and not status.state.is_final:
                self._ledger.change(handle, trouble_since=None)
        except EliasError as error:
            status = self._in_trouble(entry, error)
        if not status.state.is_final:
            self._watch.heard(entry, status, news)
        return status

    def fetch(self, handle: str, into: Path) -> None:
        """Kaggle hands outputs out only after a session's end; until then there is nothing to bring."""
        into.mkdir(parents=True, exist_ok=True)
        out = self._ledger.folder(handle) / "out"
        if self._ledger.get(handle) is not None and out.exists():
            bring_home(out, into)

    def cancel(self, handle: str) -> None:
        """A session cannot be stopped through the API without losing its output: unless the user chose that, it ends
        by its own deadline."""
        entry = self._ledger.get(handle)
        if entry is not None and entry.ended is None:
            self._ledger.change(handle, unwanted=True)

    def events(self, handle: str, after: int) -> Iterator[Mapping[str, Any]]:
        entry = self._ledger.get(handle)
        if entry is None:
            return
        if entry.ended is None:
            log = self._watch.log(entry) if self._watch.may_have_log(entry) else None
            yield from log.events(after) if log else ()
            return
        for _, event in read_events(self._ledger.folder(handle) / "out"):
            if int(event["seq"]) > after:
                yield event

    def log(self, handle: str) -> Iterator[str]:
        entry = self._ledger.get(handle)
        if entry is None:
            return
        live = self._watch.log(entry)
        yield from live.rest if live else other_lines(log_lines(self._ledger.folder(handle) / "log.json"))

    def forget(self, handle: str) -> None:
        """Its kernel on Kaggle, and its run's dataset once no segment needs it; what fails now is tried again later."""
        entry = self._ledger.get(handle)
        if entry is None or entry.ended is None:
            return
        self._ledger.change(handle, unneeded=True)
        shutil.rmtree(self._ledger.folder(handle) / "out", ignore_errors=True)
        self._clean_up()

    @property
    def owner(self) -> str:
        """Whose account it is."""
        return self._client.owner

    def adopt(self, address: str) -> str:
        """Bring home what a notebook started by hand left at `kaggle://owner/slug`; the handle to fetch it by."""
        return Adopter(self._client, self._ledger, self._context).adopt(address)

    # Looking after one that has not ended

    def _look(self, entry: Entry) -> Status:
        if entry.pushed_at is None:
            if entry.unwanted and entry.push_sent_at is None:
                return self._end(entry, Status(state=SegmentState.CANCELLED))
            status = self._sender.push_if_free(entry)
            return self._end(entry, status) if status.state is SegmentState.FAILED else status
        try:
            session = self._client.session(entry.kernel)
        except NotFound:
            return self._missing(entry)
        if entry.missing_since:
            entry = self._ledger.change(entry.key, missing_since=None)
        if session.has_ended:
            return self._collect(entry, session)
        if entry.unwanted and self.settings.cancel_by == "delete":
            self._client.delete_kernel(entry.kernel)
            return self._end(entry, Status(state=SegmentState.CANCELLED))
        if session.has_begun:
            entry = self._read_notes(entry)
        return Status(
            state=SegmentState.RUNNING if session.has_begun else SegmentState.PENDING,
            accelerator=entry.accelerator,
            started_at=when(entry.pushed_at),
            note=self._note(entry, session),
        )

    def _note(self, entry: Entry, session: Session) -> str:
        if entry.unwanted:
            return f"cancelled: Kaggle cannot stop it and keep its output; it ends {entry.seconds} s after its start"
        return entry.mismatch or f"Kaggle says {session.status}"

    def _read_notes(self, entry: Entry) -> Entry:
        """What the job has said about its machine: the key's dataset goes as soon as the job has read it."""
        log = self._watch.log(entry)
        if log is None:
            return entry
        for note in log.notes[log.notes_done :]:
            if note.get("kind") == "opened":
                entry = self._drop_key(entry)
            elif note.get("kind") == "accelerator":
                entry = self._write_accelerator(entry, note)
            log.notes_done += 1
        return entry

    def _write_accelerator(self, entry: Entry, note: Mapping[str, Any]) -> Entry:
        found = [str(name) for name in note.get("found") or []]
        name = f"{len(found)} x {found[0]}" if found else "no GPU"
        mismatch = None
        if not note.get("matches", True):
            mismatch = f"planned with {note.get('expected_count')} x {note.get('expected')}, found {name}"
        return self._ledger.change(entry.key, accelerator=found[0] if found else None, mismatch=mismatch)

    def _missing(self, entry: Entry) -> Status:
        now = self._clock.now()
        since = when(entry.missing_since) or now
        if now - since < self.settings.missing_limit:
            self._ledger.change(entry.key, missing_since=rfc3339(since))
            return Status(
                state=SegmentState.RUNNING,
                started_at=when(entry.pushed_at),
                note=f"Kaggle does not show the kernel {entry.kernel} since {rfc3339(since)}",
            )
        if entry.unwanted:
            return self._end(entry, Status(state=SegmentState.CANCELLED))
        what = f"the kernel {entry.kernel} is not on Kaggle any more, and its output with it"
        return self._end(entry, Status.failed(FailureKind.INFRASTRUCTURE, what, RESUME))

    def _in_trouble(self, entry: Entry, error: EliasError) -> Status:
        """Kaggle, or the way there: asked again, for a bounded time. A mistake of ours is said at once, unless the
        segment is there already: it will be brought home when that is mended."""
        now, is_there = self._clock.now(), entry.pushed_at is not None or entry.push_sent_at is not None
        since = when(entry.trouble_since) or now
        in_vain = now - since > self.settings.patience or not (error.is_worth_retry or is_there)
        if in_vain or isinstance(error, VerificationError):
            return self._end(entry, failed_by(error))
        self._ledger.change(entry.key, trouble_since=rfc3339(since))
        log.warning("kaggle.trouble segment=%s what=%s", entry.key, error.what)
        return Status(
            state=SegmentState.RUNNING if entry.pushed_at else SegmentState.PENDING,
            started_at=when(entry.pushed_at),
            note=f"{error.what}; asked again since {rfc3339(since)} (fix: {error.fix})",
        )

    # Coming home

    def _collect(self, entry: Entry, session: Session) -> Status:
        folder = self._ledger.folder(entry.key)
        shutil.rmtree(folder / "outbox", ignore_errors=True)
        self._client.output(entry.kernel, folder / "outbox")
        entry = self._drop_key(entry)
        lines = log_lines(folder / "outbox" / f"{entry.kernel}.log")
        for note in notes_in(lines):
            if note.get("kind") == "accelerator":
                entry = self._write_accelerator(entry, note)
        if why := mounted_another(lines):
            return self._push_again(entry, why)
        problem = None
        try:
            open_outbox(folder / "outbox", folder / "out", self._context.node_key)
        except DigestMismatch as broken:
            entry = self._ledger.change(entry.key, fetch_tries=entry.fetch_tries + 1)
            if entry.fetch_tries < self.settings.http_tries:
                again = f"{broken.what}; fetched again"
                return Status(state=SegmentState.RUNNING, started_at=when(entry.pushed_at), note=again)
            problem = broken.what
        if (found := folder / "outbox" / f"{entry.kernel}.log").exists():
            found.replace(folder / "log.json")
        (folder / "out").mkdir(exist_ok=True)
        ended = Ended(entry=entry, session=session, out=folder / "out", lines=lines, problem=problem)
        return self._end(entry, status_of(ended))

    def _push_again(self, entry: Entry, why: str) -> Status:
        if entry.unwanted:
            return self._end(entry, Status(state=SegmentState.CANCELLED))
        if entry.stale_tries + 1 >= self.settings.stale_tries:
            what = f"the job refused what was mounted, {self.settings.stale_tries} times: {why}"
            return self._end(entry, Status.failed(FailureKind.INFRASTRUCTURE, what, RESUME))
        self._watch.drop(entry)
        self._drop_in_vain(self._sender.again(entry))
        return Status(state=SegmentState.PENDING, note=f"{why}; it is pushed again")

    def _drop_key(self, entry: Entry) -> Entry:
        """The key's dataset lives until the job has read it, and no longer."""
        if entry.key_dataset is None:
            return entry
        self._client.delete_dataset(entry.key_dataset)
        return self._ledger.change(entry.key, key_dataset=None)

    def _drop_in_vain(self, entry: Entry) -> None:
        for kernel in entry.in_vain:
            self._client.delete_kernel(kernel)
        if entry.in_vain:
            self._ledger.change(entry.key, in_vain=())

    def _end(self, entry: Entry, status: Status) -> Status:
        """Write down the end; from now on it stays."""
        status = replace(status, started_at=when(entry.pushed_at))
        entry = self._ledger.change(entry.key, ended=status.to_record(self._clock.now()))
        self._watch.drop(entry)
        self._clean_up()
        return Status.from_record(entry.ended or {})

    def _clean_up(self) -> None:
        """What was only needed on the way, here and on Kaggle: keys at once, the rest when nobody needs it."""
        entries = list(self._ledger.entries())
        for entry in entries:
            try:
                self._drop_in_vain(entry)
                if entry.ended is not None:
                    self._tidy(self._ledger.folder(entry.key))
                    self._drop_key(entry)
                if entry.ended is not None and entry.unneeded and not entry.forgotten:
                    self._remove(entry, entries)
            except EliasError as error:  # nothing depends on it: the next segment's start tries again
                log.warning("kaggle.left_behind segment=%s what=%s", entry.key, error.what)

    def _tidy(self, folder: Path) -> None:
        for name in ("parcel", "luggage", "key", "kernel", "outbox"):
            if (folder / name).exists():
                shutil.rmtree(folder / name, ignore_errors=True)
        (folder / "segment.key").unlink(missing_ok=True)

    def _remove(self, entry: Entry, entries: Sequence[Entry]) -> None:
        self._client.delete_kernel(entry.kernel)
        if all(other.unneeded or other.forgotten for other in entries if other.dataset == entry.dataset):
            self._client.delete_dataset(entry.dataset)
        self._ledger.change(entry.key, forgotten=True)
