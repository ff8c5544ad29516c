"""The Backend port on SageMaker. `submit` packs a segment and writes it down; `poll` sends it, looks, brings it home.

A job that is there is waited for whatever goes wrong on the way: it is paid for, and its checkpoints lie in S3. Nothing
is ordered whose end could come after what was reserved.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from elias.adapters.backends.bundle import refuse_by_label, verify_bundle
from elias.adapters.backends.outcome import RESUME, failed_by
from elias.adapters.backends.output import bring_home, read_events
from elias.adapters.backends.printed import other_lines
from elias.adapters.backends.sagemaker.bills import Bills
from elias.adapters.backends.sagemaker.client import Clients, NoCapacity
from elias.adapters.backends.sagemaker.collector import Collector
from elias.adapters.backends.sagemaker.holdings import Holdings
from elias.adapters.backends.sagemaker.jobs import FINAL, Described, first_difference
from elias.adapters.backends.sagemaker.ledger import Entry, Ledger, StopFor, when
from elias.adapters.backends.sagemaker.logs import JobLog, events_in
from elias.adapters.backends.sagemaker.offers import instance_offers
from elias.adapters.backends.sagemaker.outcome import has_begun, interruptions_in, live_status, started_at
from elias.adapters.backends.sagemaker.pace import Pace
from elias.adapters.backends.sagemaker.reach import Reach
from elias.adapters.backends.sagemaker.sender import SPOT, Sender, StrangersJob, need_id
from elias.adapters.backends.sagemaker.settings import SageMakerSettings
from elias.domain.offer import Need, Offer
from elias.domain.run import SegmentState
from elias.errors import DiskFull, EliasError, NotFound, QuotaExhausted
from elias.ports.backend import BackendContext, Bundle, Status
from elias.units import Money, rfc3339
from elias_trainer.contract import FailureKind, canonical_json, write_whole

log = logging.getLogger("elias.sagemaker")
TIDY_EVERY_S = 600.0
COUNT_EVERY_S = 5.0


class SageMakerBackend(Holdings, Bills):
    """Keeps what it did in files, one folder a segment, so that any process of this node goes on with it."""

    def __init__(self, context: BackendContext) -> None:
        self.name = context.name
        self.settings = SageMakerSettings.read(context.settings)
        self._context = context
        self._clock = context.clock
        self._ledger = Ledger(context.home)
        self._clients = Clients(self.settings, context.environment)
        self._sender = Sender(context, self.settings, self._clients, self._ledger)
        self._offers = instance_offers(context, self._clients)
        self._collector = Collector(context, self._clients, self._ledger, self._sender)
        self._pace = Pace(self.settings)
        self._reach = Reach(lambda: self._clients.get("sagemaker"), self._clock)
        self._last: dict[str, Status] = {}
        self._logs: dict[str, JobLog] = {}
        self._tidied: dict[str, float] = {}
        self._count = (0, float("-inf"))
        """Jobs under way, and when they were counted."""

    def close(self) -> None:
        """Give the connections back."""
        self._clients.close()

    def has_credentials(self) -> bool:
        return self._clients.has_credentials()

    # What is on offer

    def offers(self, need: Need) -> Sequence[Offer]:
        """Raises OutOfReach: prices and quotas that are known by heart say nothing of a place that is not there."""
        self._reach.check()
        offers = self._offers.offers(need)
        interrupted = self._interrupted_in_vain(need)
        if interrupted < self.settings.interruptions:
            return offers
        why = (
            f"AWS took spot instances away {interrupted} times in a row and nothing was gained: "
            "it goes on with on-demand capacity"
        )
        return [
            replace(offer, refused=why) if offer.variant.endswith(SPOT) and offer.refused is None else offer
            for offer in offers
        ]

    def _interrupted_in_vain(self, need: Need) -> int:
        """Since a spot segment of such a run last gained anything."""
        wanted, count = need_id(need), 0
        ended = [entry for entry in self._ledger.entries() if entry.need == wanted and entry.ended is not None]
        for entry in sorted(ended, key=lambda entry: str((entry.ended or {})["ended_at"]), reverse=True):
            if entry.gained:
                break
            count += max(1, entry.interruptions) if entry.is_spot and _was_taken_away(entry) else 0
        return count

    # A segment's life

    def submit(self, key: str, bundle: Bundle, offer: Offer) -> str:
        """Packed and written down; `poll` sends it, so that no trouble on the way makes the segment another one."""
        refuse_by_label(bundle.label, offer, encrypted=offer.seals_private)
        if self._ledger.get(key) is None:
            verify_bundle(bundle)
            self._collector.clean_up()
            self._sender.prepare(key, bundle, offer)
        return key

    def find(self, key: str) -> str | None:
        """What was written down; a job is never ordered before that."""
        return key if self._ledger.get(key) else None

    def poll(self, handle: str) -> Status:
        entry = self._ledger.get(handle)
        if entry is None:
            what = f"this node sent no segment {handle!r} to SageMaker"
            return Status.failed(FailureKind.INFRASTRUCTURE, what, RESUME)
        if entry.ended is not None:
            return Status.from_record(entry.ended)
        is_urgent = entry.stop_for is not None and not entry.stop_sent
        known = self._last.get(handle)
        if not self._pace.may_ask(handle, running=self._running(), is_urgent=is_urgent):
            return known or self._as_last_known(entry, None)
        try:
            status = self._look(entry)
            if entry.trouble_since and not status.state.is_final:
                self._ledger.change(handle, trouble_since=None)
        except EliasError as error:
            status = self._in_trouble(self._ledger.get(handle) or entry, error)
        self._last[handle] = status
        if status.state.is_final:
            self._last.pop(handle)
            self._logs.pop(entry.job, None)
        return status

    def fetch(self, handle: str, into: Path) -> None:
        """While it runs, what SageMaker has copied to S3 by now, and the events of its log."""
        into.mkdir(parents=True, exist_ok=True)
        entry = self._ledger.get(handle)
        if entry is None:
            return
        out = self._ledger.folder(handle) / "out"
        if entry.ended is None and entry.created_at is not None:
            self._collector.inbox(entry).bring()
            self._write_events(entry)
        if out.exists():
            bring_home(out, into)

    def cancel(self, handle: str) -> None:
        """SIGTERM by SageMaker: the trainer saves a checkpoint, which comes home."""
        self._stop(handle, StopFor.CANCEL)

    def pause(self, handle: str) -> None:
        self._stop(handle, StopFor.PAUSE)

    def events(self, handle: str, after: int) -> Iterator[Mapping[str, Any]]:
        entry = self._ledger.get(handle)
        if entry is None:
            return
        if entry.ended is not None:
            found: Iterator[Mapping[str, Any]] = (e for _, e in read_events(self._ledger.folder(handle) / "out"))
        else:
            found = events_in(self._live_lines(entry))
        yield from (event for event in found if int(event["seq"]) > after)

    def log(self, handle: str) -> Iterator[str]:
        entry = self._ledger.get(handle)
        if entry is None:
            return
        kept = self._ledger.folder(handle) / "log.txt"
        lines = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else self._live_lines(entry)
        yield from other_lines(lines)

    def forget(self, handle: str) -> None:
        """Its files in S3, and its run's once no segment needs them; what fails now is tried again later."""
        entry = self._ledger.get(handle)
        if entry is None or entry.ended is None:
            return
        self._ledger.change(handle, unneeded=True)
        shutil.rmtree(self._ledger.folder(handle) / "out", ignore_errors=True)
        self._collector.clean_up()

    def monitor(self, name: str) -> Status:
        """How a job stands, by its own name, its segment's key or its run (the newest); changes nothing.

        Raises NotFound for what this node has not sent, BackendError.
        """
        found = [entry for entry in self._ledger.entries() if name in (entry.job, entry.key, entry.run)]
        if not name or not found:
            raise NotFound(
                f"this node has sent no job {name!r} to SageMaker", fix="elias run list shows this node's runs"
            )
        entry = found[-1]
        if entry.ended is not None:
            return Status.from_record(entry.ended)
        described = self._sender.jobs.find(entry.job) if entry.was_sent else None
        if described is None:
            return Status(state=SegmentState.PENDING, note="it is not ordered yet")
        return live_status(entry, described, self._clock.now())

    def adopt(self, address: str) -> str:
        """Bring a finished adapter home from where it stays in S3, `s3://bucket/…/model.tar.gz`; the handle to fetch it
        by.

        Raises InputError, NotFound, BackendError, or a VerificationError when it is not whole, not what its name says,
        or sealed for another node.
        """
        return self._collector.adopt(address)

    # Looking after one that has not ended

    def _look(self, entry: Entry) -> Status:
        described: Described | None
        if entry.created_at is None:
            if entry.stop_for and not (entry.sent_at and self._sender.jobs.find(entry.job)):
                return self._collector.end(entry, None, Status(state=SegmentState.CANCELLED))
            entry, described = self._sender.send(entry)
        else:
            described = self._sender.jobs.find(entry.job)
        if described is None:
            return self._missing(entry)
        if entry.missing_since:
            entry = self._ledger.change(entry.key, missing_since=None)
        entry = self._keep(entry, described)
        if described["TrainingJobStatus"] in FINAL:
            return self._collector.collect(entry, described)
        entry = self._stop_where_due(entry, described)
        self._tidy_now_and_then(entry)
        return live_status(entry, described, self._clock.now())

    def _keep(self, entry: Entry, described: Described) -> Entry:
        """What is news: that it is the job which was ordered, its start, its interruptions."""
        if not entry.is_checked:
            mismatch = first_difference(self._sender.request(entry), described)
            entry = self._ledger.change(
                entry.key,
                is_checked=True,
                mismatch=mismatch,
                stop_for=StopFor.MISMATCH if mismatch else entry.stop_for,
            )
        if entry.started_at is None and (begun := started_at(described)):
            entry = self._ledger.change(entry.key, started_at=rfc3339(begun))
        interruptions = interruptions_in(described)
        if interruptions > entry.interruptions:
            step = self._collector.inbox(entry).newest_step()
            is_in_vain = step <= max(entry.last_step, entry.start_step)
            vain = entry.vain + interruptions - entry.interruptions if is_in_vain else 0
            entry = self._ledger.change(entry.key, interruptions=interruptions, vain=vain, last_step=step)
        return entry

    def _stop_where_due(self, entry: Entry, described: Described) -> Entry:
        """Send the stop that is wanted, by a person or by a limit that nobody else keeps."""
        reason = entry.stop_for
        if reason is None and entry.is_spot and entry.vain >= self.settings.interruptions:
            reason = StopFor.IN_VAIN
        late = self._clock.now() - (when(entry.created_at) or self._clock.now()) > self.settings.start_limit
        if reason is None and late and not has_begun(described):
            reason = StopFor.NEVER_STARTED
        if reason is None or entry.stop_sent:
            return entry
        entry = self._ledger.change(entry.key, stop_for=reason)
        self._sender.jobs.stop(entry.job)
        return self._ledger.change(entry.key, stop_sent=True)

    def _tidy_now_and_then(self, entry: Entry) -> None:
        """Old checkpoints go from S3, where they cost and where another instance would have to fetch them."""
        now = time.monotonic()
        if now - self._tidied.setdefault(entry.key, now) < TIDY_EVERY_S:
            return
        self._tidied[entry.key] = now
        try:
            self._collector.inbox(entry).tidy()
        except EliasError as error:  # nothing depends on it: tried again later
            log.warning("sagemaker.left_behind segment=%s what=%s", entry.key, error.what)

    def _stop(self, handle: str, reason: StopFor) -> None:
        entry = self._ledger.get(handle)
        if entry is not None and entry.ended is None and entry.stop_for in (None, StopFor.PAUSE):
            self._ledger.change(handle, stop_for=reason)

    def _missing(self, entry: Entry) -> Status:
        now = self._clock.now()
        since = when(entry.missing_since) or now
        if now - since < self.settings.missing_limit:
            self._ledger.change(entry.key, missing_since=rfc3339(since))
            return Status(
                state=SegmentState.PENDING, note=f"SageMaker does not show {entry.job} since {rfc3339(since)}"
            )
        what = f"SageMaker does not know the job {entry.job} any more; it may have been billed"
        status = replace(Status.failed(FailureKind.INFRASTRUCTURE, what, RESUME), cost_is_final=False)
        return self._collector.end(entry, None, status)

    def _in_trouble(self, entry: Entry, error: EliasError) -> Status:
        """AWS, or the way there: asked again, for a bounded time. A refusal is said at once, unless the job is there
        already, or may be: it will be brought home when that is mended."""
        now = self._clock.now()
        since = when(entry.trouble_since) or now
        if isinstance(error, StrangersJob):
            return self._collector.end(entry, None, failed_by(error))
        if not entry.was_sent and isinstance(error, QuotaExhausted | NoCapacity):
            kind = FailureKind.QUOTA if isinstance(error, QuotaExhausted) else FailureKind.CAPACITY
            return self._collector.end(entry, None, Status.failed(kind, error.what, error.fix))
        if isinstance(error, NotFound) and not entry.was_sent:  # the bucket, the key: there is something to set up
            return self._collector.end(entry, None, Status.failed(FailureKind.USER, error.what, error.fix))
        is_refused = not error.is_worth_retry and not isinstance(error, DiskFull)
        if (is_refused and not entry.was_sent) or now - since > self.settings.patience:
            return self._collector.end(entry, None, replace(failed_by(error), cost_is_final=not entry.was_sent))
        self._ledger.change(entry.key, trouble_since=rfc3339(since))
        log.warning("sagemaker.trouble segment=%s what=%s", entry.key, error.what)
        return self._as_last_known(entry, f"{error.what}; asked again since {rfc3339(since)} (fix: {error.fix})")

    def _as_last_known(self, entry: Entry, note: str | None) -> Status:
        """Without asking; as if every second since its start were billed."""
        begun = when(entry.started_at)
        span = max(timedelta(0), self._clock.now() - begun) if begun else timedelta(0)
        return Status(
            state=SegmentState.RUNNING if begun else SegmentState.PENDING,
            accelerator=entry.instance,
            started_at=begun,
            cost=Money(entry.hourly).for_hours(span),
            note=note,
        )

    def _live_lines(self, entry: Entry) -> list[str]:
        """What its containers have said so far; nothing before its start and after its end."""
        if entry.created_at is None or entry.ended is not None:
            return []
        every_s = self._pace.every_s(self._running())
        reader = self._logs.setdefault(entry.job, JobLog(self._clients, entry.job, every_s))
        try:
            return reader.lines()
        except EliasError as error:  # a log out of reach says nothing about the job, which goes on and is paid for
            log.warning("sagemaker.no_log segment=%s what=%s", entry.key, error.what)
            return reader.known()

    def _write_events(self, entry: Entry) -> None:
        """The log is ahead of the checkpoints with which the events' own file comes."""
        out = self._ledger.folder(entry.key) / "out"
        known = sum(1 for _ in read_events(out))
        live = list(events_in(self._live_lines(entry)))
        if len(live) > known:
            write_whole(out / "events.jsonl", b"".join(canonical_json(event) + b"\n" for event in live))

    def _running(self) -> int:
        """Jobs under way, counted now and then: there may be many files."""
        counted, at = self._count
        if time.monotonic() - at > COUNT_EVERY_S:
            counted = sum(1 for entry in self._ledger.entries() if entry.runs)
            self._count = (counted, time.monotonic())
        return counted


def _was_taken_away(entry: Entry) -> bool:
    failure = (entry.ended or {}).get("failure")
    kind = failure[0] if isinstance(failure, list) else None
    return entry.interruptions > 0 or kind in (FailureKind.PREEMPTED, FailureKind.CAPACITY)
