"""How a segment gets to SageMaker: its files to S3, then the order for the job, exactly once."""

from __future__ import annotations

import json
import math
import shutil
from typing import Any

from elias.adapters.backends.bundle import LOCAL_BASES
from elias.adapters.backends.parcels import Destination, make_parcel
from elias.adapters.backends.sagemaker.bucket import Bucket, Sent
from elias.adapters.backends.sagemaker.client import Clients, NameTaken, NoCapacity
from elias.adapters.backends.sagemaker.instances import instance, training_image
from elias.adapters.backends.sagemaker.jobs import (
    Described,
    Jobs,
    Layout,
    Order,
    fingerprint,
    job_name,
    layout_of,
    request_of,
)
from elias.adapters.backends.sagemaker.ledger import Entry, Ledger
from elias.adapters.backends.sagemaker.names import job_tags
from elias.adapters.backends.sagemaker.settings import SageMakerSettings
from elias.adapters.backends.sagemaker.wheels import wheels_of
from elias.domain.label import Label
from elias.domain.offer import Need, Offer
from elias.errors import BackendError, BudgetExhausted, Refused, UserError
from elias.ports.backend import BackendContext, Bundle
from elias.units import rfc3339
from elias_trainer.contract import Digest, canonical_json, digest_bytes, write_whole
from elias_trainer.parcel import PARCEL_FILE, TRAINER_FILE, Parcel

SPOT = " spot"
"""Ends the variant of an offer of spot capacity."""
VOLUME_FACTOR = 4
"""A volume's room over the files that travel: packed, opened, and two checkpoints of the job's own."""


class Sender:
    def __init__(self, context: BackendContext, settings: SageMakerSettings, clients: Clients, ledger: Ledger) -> None:
        self.settings = settings
        self._context = context
        self._clock = context.clock
        self._clients = clients
        self._ledger = ledger

    @property
    def jobs(self) -> Jobs:
        return Jobs(self._clients)

    def bucket(self, entry: Entry) -> Bucket:
        name = entry.bucket or self._clients.bucket()
        return Bucket(self._clients, name, self._ledger.folder(entry.key) / "uploads")

    def layout(self, entry: Entry) -> Layout:
        bucket = entry.bucket or self._clients.bucket()
        return layout_of(self.settings, bucket, self._context.node, entry.run, entry.job)

    def sent(self, entry: Entry) -> Sent:
        return Sent(kms_key=self._clients.kms_key(), tags=job_tags(self._context.node, entry.run, entry.key))

    def prepare(self, key: str, bundle: Bundle, offer: Offer) -> Entry:
        """Pack it, and write it down. Asks nothing of AWS.

        Raises BudgetExhausted when what was reserved buys no job, MissingPackage, ConfigError, StoreError.
        """
        folder, job = self._ledger.folder(key), bundle.job
        seconds = self._seconds(job.limits.seconds, offer)
        kind = instance(offer.variant.removesuffix(SPOT))
        destination = Destination(
            accelerator=kind.gpu,
            accelerator_count=kind.gpus,
            wheels=wheels_of(self.settings, bundle.label, self._context.home),
            node_key=self._context.node_key,
        )
        parcel = make_parcel(bundle, folder / "parcel", destination)
        corpus_bytes = (bundle.folder / job.corpus.path).stat().st_size
        need = Need(base=job.base, recipe=job.recipe, label=bundle.label, corpus_bytes=corpus_bytes)
        write_whole(folder / "base.json", canonical_json(job.base.reference))
        return self._ledger.put(
            Entry(
                key=key,
                run=job.run,
                need=need_id(need),
                job=job_name(self._context.node, key),
                instance=kind.name,
                is_spot=offer.variant.endswith(SPOT),
                gpus=kind.gpus,
                hourly=offer.hourly.micro_usd,
                seconds=seconds,
                start_step=int(job.checkpoint.path.rpartition("step-")[2]) if job.checkpoint else 0,
                parcel=parcel.digest,
                sealed=bundle.label is Label.PRIVATE,
            )
        )

    def send(self, entry: Entry) -> tuple[Entry, Described | None]:
        """The job as SageMaker has it, ordered now or found again; None where an earlier order is still on its way.

        Raises StrangersJob for a name that another program has taken, QuotaExhausted, NoCapacity, LoggedOut, …
        """
        if entry.sent_at is not None and (described := self.jobs.find(entry.job)):
            return self._ours(entry, described), described
        entry = self._upload(entry)
        request = self._request(entry)
        entry = self._ledger.change(entry.key, fingerprint=fingerprint(request), sent_at=rfc3339(self._clock.now()))
        try:
            self.jobs.create(request)
        except (
            NameTaken,
            NoCapacity,
            Refused,
            UserError,
        ):  # perhaps of a second try, whose first one's answer was lost
            described = self.jobs.find(entry.job)
            if described is None:
                self._ledger.change(entry.key, sent_at=None)
                raise
            return self._ours(entry, described), described
        entry = self._ledger.change(entry.key, created_at=rfc3339(self._clock.now()))
        return entry, self.jobs.find(entry.job)

    def request(self, entry: Entry) -> dict[str, Any]:
        """What was ordered, as it was written down."""
        request: dict[str, Any] = json.loads((self._ledger.folder(entry.key) / "request.json").read_bytes())
        return request

    def _ours(self, entry: Entry, described: Described) -> Entry:
        """Raises StrangersJob."""
        if self.jobs.fingerprint_of(described) != entry.fingerprint:
            raise StrangersJob(
                f"there is a job {entry.job} that this node did not order; it was left alone",
                fix="look at it in the SageMaker console; elias run resume tries under another name",
            )
        return self._ledger.change(entry.key, created_at=entry.created_at or rfc3339(self._clock.now()))

    def _upload(self, entry: Entry) -> Entry:
        """All that the job reads, then its manifest; what is there already is not sent again."""
        if entry.bucket is None:
            entry = self._ledger.change(entry.key, bucket=self._clients.bucket())
        if entry.uploaded_at is not None:
            return entry
        folder = self._ledger.folder(entry.key)
        bucket, layout, sent = self.bucket(entry), self.layout(entry), self.sent(entry)
        parcel = Parcel.read(folder / "parcel")
        files = {**parcel.files, PARCEL_FILE: parcel.digest}
        for name, digest in files.items():
            bucket.send(folder / "parcel" / name, layout.object(digest, name), sent)
        listed = [{"prefix": layout.uri(f"{layout.run}/objects/")}, *(f"{d.hex}/{n}" for n, d in sorted(files.items()))]
        bucket.put(layout.manifest, json.dumps(listed).encode(), sent)
        if entry.sealed:
            self._ledger.change(entry.key, has_key=True)
            bucket.put(layout.key, (folder / "segment.key").read_bytes(), sent)
        shutil.rmtree(folder / "uploads", ignore_errors=True)
        return self._ledger.change(entry.key, uploaded_at=rfc3339(self._clock.now()))

    def _request(self, entry: Entry) -> dict[str, Any]:
        """Written down once: a second order of the same segment is the same order."""
        folder = self._ledger.folder(entry.key)
        if (folder / "request.json").exists():
            return self.request(entry)
        parcel, kind = Parcel.read(folder / "parcel"), instance(entry.instance)
        travels = sum((folder / "parcel" / name).stat().st_size for name in parcel.files)
        order = Order(
            name=entry.job,
            kind=kind,
            is_spot=entry.is_spot,
            gpus=entry.gpus,
            seconds=entry.seconds,
            parcel=Digest(entry.parcel),
            trainer=parcel.files[TRAINER_FILE],
            volume_gb=max(self.settings.volume_gb, math.ceil(VOLUME_FACTOR * travels / 10**9)),
            is_isolated=self._is_isolated(json.loads((folder / "base.json").read_bytes())),
            image=self.settings.image or training_image(self._clients.region, kind),
            has_key=entry.sealed,
            has_wheels=any(name.endswith(".whl.bin") for name in parcel.files),
            tags=job_tags(self._context.node, entry.run, entry.key),
        )
        request = request_of(order, self.layout(entry), self.settings, self._clients)
        write_whole(folder / "request.json", canonical_json(request))
        return request

    def _is_isolated(self, reference: str) -> bool:
        """Whether the container holds all that it needs, and so gets no network."""
        if self.settings.network_isolation != "auto":
            return self.settings.network_isolation == "always"
        is_there = self.settings.base_source is not None or self.settings.image_holds_base
        return is_there or reference.startswith(LOCAL_BASES)

    def _seconds(self, limit: float | None, offer: Offer) -> int:
        """MaxRuntimeInSeconds: with grace and upload after it, the job stays within what was reserved.

        Where those are reserved on top of the hours (`Offer.once`), the job may take all of them. `limit` is what the
        trainer has; no less than `Offer.shortest` is ever reserved.
        """
        longest, after = self.settings.longest.total_seconds(), self.settings.grace + self.settings.upload
        reserved = min(limit if limit is not None else longest, longest)
        reserved = max(reserved, offer.shortest.total_seconds())
        is_on_top = offer.once >= offer.hourly.for_hours(after)
        seconds = math.floor(reserved - (0.0 if is_on_top else after.total_seconds()))
        shortest = max(1, math.ceil(self.settings.shortest.total_seconds()))
        if seconds < shortest:
            raise BudgetExhausted(
                f"of what is reserved for the segment {max(0, seconds)} s are left for a job, and one is not begun "
                f"for less than {shortest} s",
                fix="raise --budget or --max-minutes; or lower shortest under [backends.sagemaker]",
            )
        return seconds


class StrangersJob(BackendError):
    """The name is taken by a job that is not this node's."""


def need_id(need: Need) -> str:
    """The same for all segments of a run: their base's digest is known only after the first."""
    recipe = {name: str(getattr(need.recipe, name)) for name in need.recipe.__dataclass_fields__}
    told = [need.base.reference, need.base.revision, recipe, str(need.label), need.corpus_bytes]
    return digest_bytes(canonical_json(told)).hex
