"""How a segment gets to Kaggle: its parcel as a dataset version, then the kernel, once quota and a session are free."""

from __future__ import annotations

import os
import re
import shutil
import time
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

from elias.adapters.backends.kaggle.client import KaggleClient, UnknownSources
from elias.adapters.backends.kaggle.ledger import Entry, Ledger, when
from elias.adapters.backends.kaggle.notebook import Filling, write_kernel
from elias.adapters.backends.kaggle.settings import KaggleSettings
from elias.adapters.backends.outcome import failed_by
from elias.adapters.backends.parcels import Destination, make_parcel
from elias.domain.footprint import KNOWN_SHAPES, footprint
from elias.domain.label import Label
from elias.domain.run import SegmentState
from elias.errors import NotFound, QuotaExhausted, Refused
from elias.ports.backend import BackendContext, Bundle, Quota, Status
from elias.units import rfc3339
from elias_trainer.contract import Digest, FailureKind, Precision
from elias_trainer.parcel import PARCEL_FILE, Parcel

T4_BYTES = 15 * 10**9
"""Usable on one of the two cards."""
CARDS = 2
MOST_UPLOADS = 3
SHORTEST = timedelta(minutes=10)
"""Less of the quota than this, where more was planned, is not worth a session: loading a large base takes minutes."""


class Sender:
    def __init__(self, context: BackendContext, settings: KaggleSettings, client: KaggleClient, ledger: Ledger) -> None:
        self.settings = settings
        self._context = context
        self._clock = context.clock
        self._client = client
        self._ledger = ledger
        self._absent: set[str] = set()
        """Kernels that Kaggle did not have when this process began with them."""
        self._quota: tuple[float, Quota] | None = None
        """When it was read, on the monotonic clock."""

    def quota(self) -> Quota:
        """Read live."""
        live = self._client.quota()
        quota = Quota(
            used=live["used"],
            reserved=live["reserved"],
            allowed=min(live["allowed"], self.settings.weekly_cap),
            refreshes_at=live["refreshes_at"],
            running=self._sessions(),
            concurrency=self.settings.sessions_at_once,
        )
        self._quota = (time.monotonic(), quota)
        return quota

    def prepare(self, key: str, bundle: Bundle) -> Entry:
        """Pack it, and write it down. Asks nothing of Kaggle. Raises MissingPackage, StoreError."""
        folder = self._ledger.folder(key)
        sealed = bundle.label is Label.PRIVATE
        parcel = make_parcel(bundle, folder / "parcel", destination_of(self.settings, self._context.node_key))
        longest = (self.settings.session_limit - self.settings.margin).total_seconds()
        return self._ledger.put(
            Entry(
                key=key,
                dataset=self._slug(key.rsplit("-", 1)[0]),
                kernel=self._slug(key),
                seconds=max(1, round(min(bundle.job.limits.seconds or longest, longest))),
                gpus=processes_for(self.settings, bundle),
                parcel=parcel.digest,
                sealed=sealed,
                key_dataset=self._slug(f"key {key}") if sealed and self.settings.key_by == "dataset" else None,
            )
        )

    def again(self, entry: Entry) -> Entry:
        """Made ready for another push, under new names."""
        tries = entry.stale_tries + 1
        by_dataset = entry.sealed and self.settings.key_by == "dataset"
        return self._ledger.change(
            entry.key,
            kernel=self._slug(f"{entry.key} try {tries}"),
            in_vain=(*entry.in_vain, entry.kernel),
            key_dataset=self._slug(f"key {entry.key} try {tries}") if by_dataset else None,
            push_sent_at=None,
            pushed_at=None,
            stale_tries=tries,
            not_before=rfc3339(self._clock.now() + self.settings.stale_wait),
        )

    def push_if_free(self, entry: Entry) -> Status:
        """Push once everything is there; else pending with what it waits for, or failed when that is in vain.

        While it waits for a session or for quota, Kaggle is asked nothing for this segment alone, and holds no key.
        """
        now = self._clock.now()
        if (not_before := when(entry.not_before)) and now < not_before:
            return _pending(f"Kaggle mounted an older dataset version; pushed again at {entry.not_before}")
        if entry.uploaded_at is None:
            entry = self._send_parcel(entry)
        if entry.push_sent_at or entry.kernel not in self._absent:
            if self._is_there(entry.kernel):  # pushed before a crash, or its answer was lost
                self._ledger.change(entry.key, pushed_at=entry.push_sent_at or rfc3339(now))
                return _pending("found again on Kaggle")
            self._absent.add(entry.kernel)
        if (sent := when(entry.push_sent_at)) and now < sent + self.settings.settle:
            return _pending("the answer to the push was lost; looking whether it arrived")
        if why := self._no_session(entry) or self._no_quota(entry, self._known_quota()):
            return _pending(why)
        entry, waiting = self._make_ready(entry)
        return waiting or self._push(entry)

    def _push(self, entry: Entry) -> Status:
        seconds = entry.seconds
        if self.settings.accelerator:  # read anew: the account may be used for other things too
            quota = self.quota()
            if why := self._no_quota(entry, quota):
                return _pending(why)
            seconds = int(min(timedelta(seconds=seconds), self._left(quota)).total_seconds())
        folder = self._write_kernel(entry, seconds)
        with self._ledger.counting():
            if why := self._no_session(entry):
                return _pending(why)
            if (newest := self._ledger.get(entry.key)) and newest.unwanted:
                return _pending("cancelled before it was pushed")
            self._ledger.change(entry.key, push_sent_at=rfc3339(self._clock.now()))
        try:
            self._client.push(folder, self._session_seconds(seconds))
        except QuotaExhausted as refused:
            self._ledger.change(entry.key, push_sent_at=None)
            return _pending(refused.what)
        except UnknownSources as refused:
            self._ledger.change(entry.key, push_sent_at=None, refusals=entry.refusals + 1)
            return failed_by(refused) if entry.refusals + 1 >= self.settings.http_tries else _pending(refused.what)
        except Refused as refused:
            self._ledger.change(entry.key, push_sent_at=None)
            return Status.failed(FailureKind.USER, refused.what, refused.fix)
        self._ledger.change(entry.key, pushed_at=rfc3339(self._clock.now()), seconds=seconds)
        return _pending("pushed")

    def _send_parcel(self, entry: Entry) -> Entry:
        """As the dataset's newest version, unless it was sent before a crash."""
        if entry.uploads or not self._client.dataset_holds(entry.dataset, entry.parcel):
            replace = self.settings.keep_versions == 1
            self._client.put_dataset(entry.dataset, self._luggage(entry.key), entry.parcel, replace=replace)
        return self._ledger.change(entry.key, uploaded_at=rfc3339(self._clock.now()), uploads=entry.uploads + 1)

    def _make_ready(self, entry: Entry) -> tuple[Entry, Status | None]:
        """The key's dataset, where there is one, and Kaggle ready with both; what is waited for, None when ready."""
        slugs = [entry.dataset, *([entry.key_dataset] if entry.key_dataset else [])]
        states = {slug: self._client.dataset_state(slug) for slug in slugs}
        if entry.key_dataset and states[entry.key_dataset] is None:
            self._send_key(entry.key, entry.key_dataset)
            entry = self._ledger.change(entry.key, key_sent_at=rfc3339(self._clock.now()))
            states[slugs[-1]] = self._client.dataset_state(slugs[-1])
        late = [slug for slug, state in states.items() if state != "ready"]
        if not late:
            return entry, None
        sent = [moment for moment in (when(entry.uploaded_at), when(entry.key_sent_at)) if moment]
        is_over = self._clock.now() - max(sent) > self.settings.processing_limit
        if not is_over and "failed" not in states.values():
            return entry, _pending(f"Kaggle is processing the uploaded files of {late[0]}")
        where = f"kaggle.com/datasets/{self._client.owner}/{late[0]}"
        message = f"Kaggle did not get the dataset {late[0]} ready in {self.settings.processing_limit}"
        if entry.uploads >= MOST_UPLOADS:
            fix = f"look at {where}; then: elias run resume"
            return entry, Status.failed(FailureKind.INFRASTRUCTURE, f"{message}, {entry.uploads} times", fix)
        return self._ledger.change(entry.key, uploaded_at=None), _pending(f"{message}; it is sent again")

    def _luggage(self, key: str) -> Path:
        """A folder with what the parcel names and nothing else: whatever is in it goes to Kaggle."""
        parcel_folder, luggage = self._ledger.folder(key) / "parcel", self._ledger.folder(key) / "luggage"
        shutil.rmtree(luggage, ignore_errors=True)
        luggage.mkdir(parents=True)
        for name in (PARCEL_FILE, *Parcel.read(parcel_folder).files):
            os.link(parcel_folder / name, luggage / name)
        return luggage

    def _send_key(self, key: str, dataset: str) -> None:
        folder = self._ledger.folder(key) / "key"
        folder.mkdir(mode=0o700, exist_ok=True)
        target = folder / "segment.key"
        target.touch(mode=0o600)
        target.write_bytes((self._ledger.folder(key) / "segment.key").read_bytes())
        self._client.put_dataset(dataset, folder, "key", replace=True)

    def _no_session(self, entry: Entry) -> str | None:
        """Why it has to wait for another segment of this node."""
        at_once = self.settings.sessions_at_once
        if self._sessions(beside=entry.key) < at_once:
            return None
        return f"{at_once} sessions of this node run on Kaggle; it starts when one ends"

    def _no_quota(self, entry: Entry, quota: Quota | None) -> str | None:
        """Why it has to wait for the account's hours."""
        if quota is None:
            return None
        left, wants = self._left(quota), timedelta(seconds=entry.seconds)
        if left >= min(wants, SHORTEST):  # another use of the account may have left less than was planned with
            return None
        until = rfc3339(quota.refreshes_at)
        return f"{max(left, timedelta(0))} of GPU time is left and this segment wants {wants}; waits until {until}"

    def _left(self, quota: Quota) -> timedelta:
        return quota.allowed - quota.used - quota.reserved - self.settings.margin

    def _known_quota(self) -> Quota | None:
        """One answer for all segments that wait for it; None where no GPU is asked for."""
        if not self.settings.accelerator:
            return None
        if self._quota and time.monotonic() - self._quota[0] < self.settings.poll_every.total_seconds():
            return self._quota[1]
        return self.quota()

    def _write_kernel(self, entry: Entry, seconds: int) -> Path:
        folder = self._ledger.folder(entry.key) / "kernel"
        sources = [f"{self._client.owner}/{slug}" for slug in (entry.dataset, entry.key_dataset) if slug]
        if self.settings.base_source:
            sources.append(self.settings.base_source)
        metadata: dict[str, object] = {
            "enable_gpu": bool(self.settings.accelerator),
            "enable_internet": self.settings.internet,
            "dataset_sources": sources,
        }
        filling = Filling(
            segment=entry.key,
            dataset=entry.dataset,
            parcel=Digest(entry.parcel),
            key_dataset=entry.key_dataset or "",
            base_dataset=(self.settings.base_source or "").rpartition("/")[2],
            seconds=seconds + round(self.settings.margin.total_seconds() / 2),
            gpus=entry.gpus,
        )
        write_kernel(folder, f"{self._client.owner}/{entry.kernel}", filling, metadata, self._template(entry.key))
        return folder

    def _template(self, key: str) -> str | None:
        """The run's own, where it was given one in `templates/`; else that of the settings."""
        own = sorted((self._context.home / "templates").glob(f"{key.rsplit('-', 1)[0]}.*"))
        return str(own[0]) if own else self.settings.template

    def _session_seconds(self, seconds: int) -> int:
        """Kaggle's own limit, so that a trainer that does not stop is stopped."""
        return int(min(self.settings.session_limit.total_seconds(), seconds + self.settings.margin.total_seconds()))

    def _is_there(self, kernel: str) -> bool:
        try:
            self._client.session(kernel)
        except NotFound:
            return False
        return True

    def _sessions(self, *, beside: str | None = None) -> int:
        return sum(1 for entry in self._ledger.entries() if entry.runs and entry.key != beside)

    def _slug(self, name: str) -> str:
        return slug_of(self._context.node, name)


def destination_of(settings: KaggleSettings, node_key: str | None) -> Destination:
    """What a parcel is packed for."""
    return Destination(
        accelerator="T4" if settings.accelerator == "NvidiaTeslaT4" else None,
        accelerator_count=CARDS,
        wheels=sorted(Path(settings.wheels).expanduser().glob("*.whl")) if settings.wheels else (),
        node_key=node_key,
        secret_recipient=settings.secret_recipient if settings.key_by == "secret" else None,
    )


def processes_for(settings: KaggleSettings, bundle: Bundle) -> int:
    """Two where the model fits in one card and a step has a micro-batch for each; else one, that may use both."""
    shape, recipe = KNOWN_SHAPES.get(bundle.job.base.reference), bundle.job.recipe
    if not settings.accelerator or shape is None or recipe.accumulation < CARDS:
        return 1
    return CARDS if footprint(shape, recipe, Precision.FP16).total <= T4_BYTES else 1


def slug_of(node: str, name: str) -> str:
    """6 to 50 characters of a-z, 0-9 and -, the same for the same names, another for others."""
    plain = re.sub(r"[^a-z0-9]+", "-", f"elias {node} {name}".lower()).strip("-")
    return f"{plain[:37].rstrip('-')}-{sha256(f'{node}/{name}'.encode()).hexdigest()[:12]}"


def _pending(note: str) -> Status:
    return Status(state=SegmentState.PENDING, note=note)
