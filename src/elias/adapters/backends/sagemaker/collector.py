"""The end of a segment: what its job left comes home, the end is written down, and what nobody needs goes from S3."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from elias.adapters.backends.outcome import RESUME, own_result
from elias.adapters.backends.sagemaker.bucket import Bucket
from elias.adapters.backends.sagemaker.client import Clients
from elias.adapters.backends.sagemaker.inbox import GB, MODEL_FILE, Inbox, steps_home
from elias.adapters.backends.sagemaker.jobs import ARTIFACTS, Described, artifact_key
from elias.adapters.backends.sagemaker.ledger import Entry, Ledger, adopted, when
from elias.adapters.backends.sagemaker.logs import JobLog
from elias.adapters.backends.sagemaker.outcome import Ended, cost_of, final_state
from elias.adapters.backends.sagemaker.sender import Sender
from elias.adapters.backends.sagemaker.spot import History
from elias.domain.run import SegmentState
from elias.errors import EliasError, InputError, NotFound, VerificationError
from elias.ports.backend import BackendContext, Status
from elias_trainer.contract import Outcome, digest_bytes, write_whole

log = logging.getLogger("elias.sagemaker")


class Collector:
    def __init__(self, context: BackendContext, clients: Clients, ledger: Ledger, sender: Sender) -> None:
        self.settings = clients.settings
        self._context = context
        self._clock = context.clock
        self._clients = clients
        self._ledger = ledger
        self._sender = sender

    def collect(self, entry: Entry, described: Described) -> Status:
        """Raises what makes it worth another look: AWS out of reach, a full disk, an adapter not whole so far."""
        folder, problem = self._ledger.folder(entry.key), None
        out = folder / "out"
        try:
            self.inbox(entry).bring()
        except VerificationError as broken:
            problem = broken.what
        result = own_result(out, entry.key)
        if problem is None and result is not None and result.outcome is Outcome.DONE:
            try:
                entry = self._bring_model(entry, described)
            except (VerificationError, NotFound) as broken:
                problem = broken.what
        if problem is not None and entry.fetch_tries + 1 < self.settings.fetch_tries:
            self._ledger.change(entry.key, fetch_tries=entry.fetch_tries + 1)
            return Status(
                state=SegmentState.RUNNING,
                started_at=when(entry.started_at),
                cost=cost_of(entry, described, self._clock.now()),
                note=f"{problem}; fetched again",
            )
        self._keep_log(entry)
        status = final_state(Ended(entry=entry, described=described, out=out, problem=problem))
        ended_at = described.get("TrainingEndTime") or described.get("LastModifiedTime") or self._clock.now()
        return self.end(
            entry,
            described,
            replace(status, ended_at=ended_at, cost=cost_of(entry, described, self._clock.now())),
        )

    def _bring_model(self, entry: Entry, described: Described) -> Entry:
        artifacts = described.get("ModelArtifacts", {}).get("S3ModelArtifacts", "")
        bucket, layout = self._sender.bucket(entry), self._sender.layout(entry)
        expected = f"{layout.of_job}output/{MODEL_FILE}"
        if artifacts != layout.uri(expected):
            raise NotFound(f"the job {entry.job} left no {MODEL_FILE}", fix=RESUME)
        digest = self.inbox(entry).bring_model(expected)
        if not self.settings.keep_artifacts:
            return entry
        kept = artifact_key(self.settings, self._context.node, digest)
        try:
            if bucket.head(kept) is None:
                bucket.copy(expected, kept, self._sender.sent(entry))
        except EliasError as error:  # the adapter itself is home: the run need not wait for its copy
            log.warning("sagemaker.no_copy segment=%s what=%s", entry.key, error.what)
            return entry
        return self._ledger.change(entry.key, artifact=layout.uri(kept))

    def adopt(self, address: str) -> str:
        """The handle under which a finished adapter in S3 is kept here from now on."""
        name, _, key = address.removeprefix("s3://").partition("/")
        if not address.startswith("s3://") or not key.endswith(f"/{MODEL_FILE}"):
            raise InputError(
                f"{address!r} is no finished adapter in S3", fix=f"write it like s3://bucket/…/{MODEL_FILE}"
            )
        handle = f"adopted-{digest_bytes(address.encode()).short}"
        folder = self._ledger.folder(handle)
        shutil.rmtree(folder, ignore_errors=True)
        inbox = Inbox(
            bucket=Bucket(self._clients, name, folder / "uploads"),
            prefix="",
            folder=folder / "inbox",
            out=folder / "out",
            node_key=self._context.node_key,
            largest=self.settings.largest_output_gb * GB,
        )
        try:
            inbox.bring_model(key, named_by_digest=f"/{ARTIFACTS}/" in address)
        except EliasError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        ended = Status(state=SegmentState.PAUSED).to_record(self._clock.now())
        self._ledger.put(adopted(handle, address, ended))
        return handle

    def inbox(self, entry: Entry) -> Inbox:
        folder = self._ledger.folder(entry.key)
        return Inbox(
            bucket=self._sender.bucket(entry),
            prefix=self._sender.layout(entry).checkpoints,
            folder=folder / "inbox",
            out=folder / "out",
            node_key=self._context.node_key,
            largest=self.settings.largest_output_gb * GB,
        )

    def _keep_log(self, entry: Entry) -> None:
        """For `log` after the end. A log that cannot be read now is no reason to keep the segment from ending."""
        try:
            lines = JobLog(self._clients, entry.job, 0).lines()
        except EliasError as error:
            log.warning("sagemaker.no_log segment=%s what=%s", entry.key, error.what)
            return
        write_whole(self._ledger.folder(entry.key) / "log.txt", "\n".join(lines).encode())

    def end(self, entry: Entry, described: Described | None, status: Status) -> Status:
        """Write down the end; from now on it stays. What was only needed on the way goes."""
        folder = self._ledger.folder(entry.key)
        newest = max(steps_home(folder / "out"), default=0)
        status = replace(status, started_at=when(entry.started_at))
        entry = self._ledger.change(
            entry.key,
            ended=status.to_record(self._clock.now()),
            gained=newest > entry.start_step or status.state is SegmentState.DONE,
        )
        if entry.is_spot and described is not None and entry.started_at:
            hours = timedelta(seconds=int(described.get("TrainingTimeInSeconds") or 0)) / timedelta(hours=1)
            History(self._context.home).record(entry.key, hours, entry.interruptions)
        for name in ("parcel", "inbox", "uploads"):
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / "segment.key").unlink(missing_ok=True)
        self.clean_up()
        return Status.from_record(entry.ended or {})

    # What is left in S3

    def clean_up(self) -> None:
        """What is left in S3 of segments that have ended: keys at once, the rest when nobody needs it any more."""
        entries = list(self._ledger.entries())
        for entry in entries:
            if entry.ended is None or entry.forgotten or not (entry.has_key or entry.unneeded):
                continue
            try:
                self._drop_key(entry)
                if entry.unneeded:
                    self._remove(entry, entries)
            except EliasError as error:  # nothing depends on it: the next segment's start tries again
                log.warning("sagemaker.left_behind segment=%s what=%s", entry.key, error.what)

    def _drop_key(self, entry: Entry) -> None:
        if entry.has_key and entry.bucket is not None:
            self._sender.bucket(entry).delete_under(self._sender.layout(entry).key)
            self._ledger.change(entry.key, has_key=False)

    def _remove(self, entry: Entry, entries: Sequence[Entry]) -> None:
        if entry.bucket is not None:
            bucket, layout = self._sender.bucket(entry), self._sender.layout(entry)
            bucket.delete_under(layout.of_job)
            if all(other.unneeded for other in entries if other.run == entry.run):
                bucket.delete_under(f"{layout.run}/")
        self._ledger.change(entry.key, forgotten=True)
