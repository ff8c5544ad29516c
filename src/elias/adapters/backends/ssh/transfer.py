"""A segment's files on their way: its parcel there, its outbox home. Each goes on where it broke off."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from elias.adapters.backends.parcels import Destination, make_parcel, open_as_it_comes, read_box
from elias.adapters.backends.ssh.connection import LONG_CALL_S, Connection, Transfer
from elias.adapters.backends.ssh.settings import SshSettings
from elias.domain.label import Label
from elias.domain.offer import Offer
from elias.errors import BackendError, DigestMismatch
from elias.ports.backend import BackendContext, Bundle
from elias_trainer.contract import CheckpointRef, Digest, canonical_json, digest_file, write_whole
from elias_trainer.parcel import OUTBOX_FILE, PARCEL_FILE, TRAINER_FILE, Outbox, Parcel

BOX_TRIES = 5
"""An older checkpoint is dropped there while it is fetched: then there is a newer one."""
_AGAIN = "it is tried again by itself"


class Carrier:
    """Packs, sends and brings home; all it knows is in the segment's folder."""

    def __init__(self, context: BackendContext, settings: SshSettings, connection: Connection, node: str) -> None:
        self._context = context
        self._settings = settings
        self._connection = connection
        self._node = node
        """The node's folder on the machine."""

    def prepare(self, folder: Path, bundle: Bundle, offer: Offer) -> None:
        """Pack it and write it down; asks nothing of the machine. Raises MissingPackage, ConfigError."""
        is_sealed = bundle.label is Label.PRIVATE and not self._settings.trusted
        travels = bundle if is_sealed else replace(bundle, label=Label.SHARED)
        parcel = make_parcel(travels, folder / "parcel", Destination(node_key=self._context.node_key))
        order = {
            "expect": parcel.digest,
            "trainer": f"{parcel.files[TRAINER_FILE].hex}/{TRAINER_FILE}",
            "sealed": is_sealed,
            "gpus": 0 if offer.accelerator == "cpu" else offer.accelerator_count,
            "lease": bundle.job.lease.path if bundle.job.lease else None,
            "alone_s": self._settings.alone.total_seconds(),
        }
        write_whole(folder / "order.json", canonical_json(order))

    def send(self, folder: Path) -> None:
        """All that is not there yet, then the order; of no effect when it is all there."""
        key, order = folder.name, json.loads((folder / "order.json").read_bytes())
        objects = objects_of(folder / "parcel")
        have = self._connection.ask("have", node=self._node, segment=key, objects=list(objects))["have"]
        incoming = f"{self._settings.there}/nodes/{self._node}/{key}/incoming"
        transfers = []
        for digest, name in objects.items():
            size, there = (folder / "parcel" / name).stat().st_size, have[digest]
            if there is not None and (there < size or size == 0):
                transfers.append(Transfer(here=name, there=f"{incoming}/{digest}", done=there))
        self._connection.send(folder / "parcel", transfers)
        secret = folder / "segment.key"
        answer = self._connection.ask(
            "place",
            within_s=LONG_CALL_S,
            node=self._node,
            segment=key,
            objects=objects,
            key=secret.read_text(encoding="utf-8") if order["sealed"] else None,
            job=order,
        )
        if answer["missing"]:
            name = objects[answer["missing"][0]]
            raise BackendError(f"{name} did not arrive whole at {self._settings.host}", fix=_AGAIN, kept="the rest")

    def bring(self, folder: Path) -> None:
        """What is whole there, into `folder/out`: events, result, adapter, the newest checkpoint.

        Raises BackendError, and DigestMismatch when what is there is not what it says; an older checkpoint was then
        brought where there is one.
        """
        for _ in range(BOX_TRIES):
            answer = self._connection.ask("outbox", node=self._node, segment=folder.name)
            if answer["outbox"] is None:
                return
            try:
                self._bring_box(folder, read_box(folder / "arriving" / OUTBOX_FILE, answer["outbox"]), answer["sizes"])
                return
            except _Gone:
                continue
        raise BackendError(f"checkpoints on {self._settings.host} are dropped faster than they come", fix=_AGAIN)

    def _bring_box(self, folder: Path, box: Outbox, sizes: Mapping[str, int]) -> None:
        """The newest checkpoint that comes whole, and all the rest."""
        checkpoints = {ref.path for ref in box.checkpoints}
        wanted = {name: digest for name, digest in box.files.items() if name not in checkpoints}
        problem: DigestMismatch | None = None
        brought: dict[str, Digest] = {}
        kept: tuple[CheckpointRef, ...] = ()
        for ref in reversed(box.checkpoints):
            try:
                self._bring_files(folder, {ref.path: box.files[ref.path]}, sizes)
                kept, brought = (ref,), {ref.path: box.files[ref.path]}
                break
            except DigestMismatch as error:
                problem = error
        try:
            self._bring_files(folder, wanted, sizes)
            brought |= wanted
        except DigestMismatch as error:
            problem = error
        open_as_it_comes(folder, Outbox(checkpoints=kept, files=brought, sealed=box.sealed), self._context.node_key)
        if problem is not None:
            raise problem

    def _bring_files(self, folder: Path, files: Mapping[str, Digest], sizes: Mapping[str, int]) -> None:
        parts = folder / "arriving"
        parts.mkdir(exist_ok=True)
        missing = {n: d for n, d in files.items() if not _is_whole(folder / "outbox" / n, d)}
        if gone := [name for name in missing if name not in sizes]:
            raise _Gone(gone[0])
        transfers = []
        for name, digest in missing.items():
            part = parts / f"{digest.hex}.part"
            if part.exists() and part.stat().st_size > sizes[name]:
                part.unlink()
            done = part.stat().st_size if part.exists() else 0
            if done < sizes[name] or sizes[name] == 0:
                there = f"{self._settings.there}/nodes/{self._node}/{folder.name}/outbox/{name}"
                transfers.append(Transfer(here=part.name, there=there, done=done))
        try:
            self._connection.bring(parts, transfers)
        except BackendError as error:
            if "not found" in error.what or "No such file" in error.what:
                raise _Gone(error.what) from error
            raise
        for name, digest in missing.items():
            self._take(parts / f"{digest.hex}.part", folder / "outbox" / name, digest)

    def _take(self, part: Path, target: Path, digest: Digest) -> None:
        if not _is_whole(part, digest):
            part.unlink(missing_ok=True)
            raise DigestMismatch(
                f"{target.name} on {self._settings.host} is not the {digest} that its outbox names", fix=_AGAIN
            )
        target.parent.mkdir(exist_ok=True)
        part.replace(target)


class _Gone(Exception):
    """A file was dropped there since the list was read."""


def objects_of(parcel: Path) -> dict[str, str]:
    """Hex digest -> name, of all that travels."""
    found = Parcel.read(parcel)
    return {digest.hex: name for name, digest in found.files.items()} | {found.digest.hex: PARCEL_FILE}


def _is_whole(path: Path, digest: Digest) -> bool:
    return path.is_file() and digest_file(path) == digest
