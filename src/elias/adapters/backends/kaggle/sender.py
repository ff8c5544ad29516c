"""How a segment gets to Kaggle: its parcel as a dataset version, then the kernel, once quota and a session are free."""

from __future__ import annotations

import re
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

from elias.adapters.backends.kaggle.client import KaggleClient
from elias.adapters.backends.kaggle.ledger import Entry, Ledger
from elias.adapters.backends.kaggle.notebook import Filling, write_kernel
from elias.adapters.backends.kaggle.settings import KaggleSettings
from elias.adapters.backends.parcels import Destination, make_parcel
from elias.domain.footprint import KNOWN_SHAPES, footprint
from elias.domain.label import Label
from elias.domain.run import SegmentState
from elias.errors import BackendError, NotFound, QuotaExhausted
from elias.ports.backend import BackendContext, Bundle, Quota, Status
from elias.units import instant, rfc3339
from elias_trainer.contract import Digest, Precision

T4_BYTES = 15 * 10**9
"""Usable on one of the two cards."""
CARDS = 2


class Sender:
    def __init__(self, context: BackendContext, settings: KaggleSettings, client: KaggleClient, ledger: Ledger) -> None:
        self.settings = settings
        self._context = context
        self._clock = context.clock
        self._client = client
        self._ledger = ledger

    def quota(self) -> Quota:
        live = self._client.quota()
        allowed = min(live["allowed"], self.settings.weekly_cap)
        return Quota(
            used=live["used"],
            reserved=live["reserved"],
            allowed=allowed,
            refreshes_at=live["refreshes_at"],
            running=len(self._running()),
            concurrency=self.settings.sessions_at_once,
        )

    def prepare(self, key: str, bundle: Bundle) -> None:
        folder = self._ledger.folder(key)
        destination = Destination(
            accelerator="T4" if self.settings.accelerator == "NvidiaTeslaT4" else None,
            accelerator_count=CARDS,
            wheels=sorted(Path(self.settings.wheels).glob("*.whl")) if self.settings.wheels else (),
            node_key=self._context.node_key,
            secret_recipient=self.settings.secret_recipient if self.settings.key_by == "secret" else None,
        )
        parcel = make_parcel(bundle, folder / "parcel", destination)
        longest = self.settings.session_limit - self.settings.margin
        seconds = min(bundle.job.limits.seconds or longest.total_seconds(), longest.total_seconds())
        run = key.rsplit("-", 1)[0]
        self._ledger.put(
            Entry(
                key=key,
                dataset=_slug(self._context.node, run),
                kernel=_slug(self._context.node, key),
                seconds=max(1, round(seconds)),
                gpus=self._processes(bundle),
                parcel=parcel.digest,
                sealed=bundle.label is Label.PRIVATE,
            )
        )

    def _processes(self, bundle: Bundle) -> int:
        """Two where the model fits in one card and a step has a micro-batch for each; else one, that may use both."""
        shape, recipe = KNOWN_SHAPES.get(bundle.job.base.reference), bundle.job.recipe
        if not self.settings.accelerator or shape is None or recipe.accumulation < 2:
            return 1
        return 2 if footprint(shape, recipe, Precision.FP16).total <= T4_BYTES else 1

    def push_if_free(self, key: str) -> Status:
        """Push once everything is there; else pending, with what it waits for."""
        entry = self._ledger.change(key)
        if entry.has_run or entry.ended is not None:
            return Status(state=SegmentState.PENDING, note="sent")
        waiting = self._upload(entry) or self._waits_for_quota(entry)
        if waiting:
            return Status(state=SegmentState.PENDING, note=waiting)
        if entry.stale_tries == 0 and self._is_there(entry.kernel):
            self._ledger.change(key, has_run=True)  # pushed before a crash, its answer lost
            return Status(state=SegmentState.PENDING, note="found again on Kaggle")
        try:
            self._client.push(self._write_kernel(entry), self._session_seconds(entry))
        except QuotaExhausted as refused:
            return Status(state=SegmentState.PENDING, note=refused.what)
        self._ledger.change(key, has_run=True)
        return Status(state=SegmentState.PENDING, note="pushed")

    def _upload(self, entry: Entry) -> str | None:
        """The parcel as the dataset's newest version, and the key's dataset; what is waited for, None when ready.

        Raises BackendError when Kaggle does not get a version ready in time.
        """
        folder = self._ledger.folder(entry.key)
        if entry.uploaded_at is None:
            if self._client.dataset_description(entry.dataset) != entry.parcel:  # else sent before a crash
                self._client.put_dataset(
                    entry.dataset, folder / "parcel", entry.parcel, self.settings.keep_versions == 1
                )
            entry = self._ledger.change(entry.key, uploaded_at=rfc3339(self._clock.now()))
        key_dataset = self.key_dataset(entry)
        if key_dataset and self._client.dataset_state(key_dataset) is None:
            (folder / "key").mkdir(mode=0o700, exist_ok=True)
            (folder / "key" / "segment.key").write_bytes((folder / "segment.key").read_bytes())
            self._client.put_dataset(key_dataset, folder / "key", "key", replace=True)
        waiting = [
            name for name in (entry.dataset, key_dataset) if name and self._client.dataset_state(name) != "ready"
        ]
        if not waiting:
            return None
        if self._clock.now() - instant(str(entry.uploaded_at)) > self.settings.processing_limit:
            self._ledger.change(entry.key, uploaded_at=None)
            raise BackendError(
                f"Kaggle did not get the dataset {waiting[0]} ready in {self.settings.processing_limit}",
                fix=f"look at kaggle.com/datasets/{self._client.owner}/{waiting[0]}; the run sends it again by itself",
                kept="every checkpoint that came home",
            )
        return f"Kaggle is processing the uploaded files of {waiting[0]}"

    def _waits_for_quota(self, entry: Entry) -> str | None:
        if len(self._running()) >= self.settings.sessions_at_once:
            return f"{self.settings.sessions_at_once} sessions of this node run on Kaggle; it starts when one ends"
        if not self.settings.accelerator:
            return None
        quota = self.quota()
        left = quota.allowed - quota.used - quota.reserved
        if left >= timedelta(seconds=entry.seconds):
            return None
        wants = timedelta(seconds=entry.seconds)
        return f"{left} of GPU time is left and this segment wants {wants}; waits until {rfc3339(quota.refreshes_at)}"

    def _write_kernel(self, entry: Entry) -> Path:
        folder = self._ledger.folder(entry.key) / "kernel"
        key_dataset = self.key_dataset(entry)
        sources = [entry.dataset, *([key_dataset] if key_dataset else [])]
        metadata: dict[str, object] = {
            "enable_gpu": bool(self.settings.accelerator),
            "enable_internet": self.settings.internet,
            "dataset_sources": [f"{self._client.owner}/{slug}" for slug in sources],
        }
        filling = Filling(
            segment=entry.key,
            dataset=entry.dataset,
            parcel=Digest(entry.parcel),
            key_dataset=key_dataset or "",
            seconds=entry.seconds + round(self.settings.margin.total_seconds() / 2),
            gpus=entry.gpus,
        )
        write_kernel(folder, f"{self._client.owner}/{entry.kernel}", filling, metadata, self.settings.template)
        return folder

    def _session_seconds(self, entry: Entry) -> int:
        """Kaggle's own limit, so that a trainer that does not stop is stopped."""
        longest = self.settings.session_limit.total_seconds()
        return int(min(longest, entry.seconds + self.settings.margin.total_seconds()))

    def key_dataset(self, entry: Entry) -> str | None:
        return (
            _slug(self._context.node, f"key {entry.key}")
            if entry.sealed and self.settings.key_by == "dataset"
            else None
        )

    def _is_there(self, kernel: str) -> bool:
        try:
            self._client.session(kernel)
        except NotFound:
            return False
        return True

    def _running(self) -> list[Entry]:
        return [entry for entry in self._ledger.entries() if entry.has_run and entry.ended is None]


def _slug(node: str, name: str) -> str:
    """6 to 50 characters of a-z, 0-9 and -, the same for the same names, another for others."""
    plain = re.sub(r"[^a-z0-9]+", "-", f"elias {node} {name}".lower()).strip("-")
    return f"{plain[:37].rstrip('-')}-{sha256(f'{node}/{name}'.encode()).hexdigest()[:12]}"
