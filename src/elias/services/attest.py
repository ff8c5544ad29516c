"""Room 5. Takes a finished adapter in: checked, copied whole, signed, with its receipt; and hands it out verified.

The same bytes are the same artifact. When a later run gives bytes that are here already, the first artifact stays
as it is, and the later run's receipt is laid beside it: two trainings vouch for one model.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from elias.domain.artifact import Artifact
from elias.domain.label import Label
from elias.domain.receipt import ADAPTER, MODEL_SIGNATURE, Link, Receipt, check_chain
from elias.domain.run import Run, Segment
from elias.errors import BadReceipt, DiskFull, InputError, NotFound, StoreError
from elias.ports.attestation import Signer
from elias.ports.stores import FolderStore, ModelStore
from elias.services.base_shape import base_shape
from elias.services.run_folder import RunFolder
from elias.services.structure import check_structure
from elias.services.verify import RECEIPT, Verified, receipt_name, seal, verify_artifact
from elias.units import Clock
from elias_trainer.contract import Digest, Result, digest_file, file_digests, sync_folder, write_whole


@dataclass(frozen=True, kw_only=True, slots=True)
class Attest:
    artifacts: Path
    """`<home>/artifacts`."""
    signer: Signer
    models: ModelStore
    clock: Clock
    folders: FolderStore | None = None
    """Where other nodes of the same store find artifacts; None shares none."""

    def admit(self, run: Run, segments: Sequence[Segment], out: Path) -> Artifact:
        """Make an artifact of the `out/` of the run's last segment; safe to repeat.

        Raises DigestMismatch, BadStructure or BadReceipt when it is not what the trainer wrote or not an adapter.
        """
        trained = RunFolder(out.parents[2])
        if trained.outputs(segments[-1].number) != out:
            raise ValueError(f"{out} is not the folder of segment {segments[-1].number}")
        result = trained.result(segments[-1].number)
        if result is None:
            raise BadReceipt(f"{out / 'result.json'} is missing", fix="elias run resume trains the last segment again")
        trained.verify_adapter(segments[-1].number, result)
        with self._scratch(run.id) as scratch:
            _copy(out / ADAPTER, scratch / ADAPTER)
            check_structure(scratch / ADAPTER, base_shape(run.base.reference))
            digest = self.signer.sign_model(scratch / ADAPTER, scratch / MODEL_SIGNATURE)
            target = self.folder(digest)
            if target.exists():
                return self._again(run, segments, trained, digest)
            receipt = self._receipt(run, segments, trained, scratch, digest)
            write_whole(scratch / RECEIPT, seal(receipt, self.signer))
            target.parent.mkdir(parents=True, exist_ok=True)
            sync_folder(scratch)
            scratch.rename(target)
            sync_folder(target.parent)
        return self._record(target, receipt)

    def verify(self, model: str) -> Verified:
        """`model` is `latest`, a digest, a prefix of one, or a folder. Raises NotFound or a VerificationError."""
        if "/" in model or model in (".", "..") or (Path(model) / ADAPTER).is_dir():
            return verify_artifact(Path(model), self.signer)
        artifact = self.models.artifact(model)
        if self.folders:
            self.folders.bring(_place(artifact.digest), self.folder(artifact.digest))
        found = verify_artifact(self.folder(artifact.digest), self.signer, artifact.digest)
        if found.receipt_digest != artifact.receipt:
            raise BadReceipt(
                f"{found.folder / RECEIPT} is not the receipt that this node keeps in its books",
                fix="put it back from a backup, or train the model again",
            )
        return found

    def export(self, model: str, into: Path) -> Verified:
        """Copy a verified model to `into`, which is not there or empty, and verify the copy."""
        found = self.verify(model)
        if into.exists() and (not into.is_dir() or any(into.iterdir())):
            raise InputError(f"{into} is there and not empty", fix="name a folder that is not there yet")
        scratch = into.with_name(f".{into.name}.{os.getpid()}.part")
        with _disk_errors(into):
            into.parent.mkdir(parents=True, exist_ok=True)
            try:
                _copy(found.folder, scratch)
                scratch.rename(into)
                sync_folder(into.parent)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        return verify_artifact(into, self.signer, found.digest)

    def folder(self, digest: Digest) -> Path:
        """Where an artifact lies, verified or not."""
        return self.artifacts / "sha256" / digest.hex

    @contextmanager
    def _scratch(self, run: str) -> Iterator[Path]:
        """A folder on the same disk, gone afterwards unless it was renamed into its place."""
        scratch = self.artifacts / f".{run}.{os.getpid()}.part"
        with _disk_errors(self.artifacts):
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            try:
                yield scratch
            finally:
                shutil.rmtree(scratch, ignore_errors=True)

    def _again(self, run: Run, segments: Sequence[Segment], trained: RunFolder, digest: Digest) -> Artifact:
        """The bytes are here already, from this run before a crash or from another one."""
        folder = self.folder(digest)
        found = verify_artifact(folder, self.signer, digest)
        if run.id not in (found.receipt.run, *found.also_from):
            receipt = self._receipt(run, segments, trained, folder, digest)
            write_whole(folder / receipt_name(run.id), seal(receipt, self.signer))
        return self._record(folder, found.receipt)

    def _record(self, folder: Path, receipt: Receipt) -> Artifact:
        """In the books, unless it is there; built from the receipt alone, so that a crash before this costs nothing."""
        if self.folders and receipt.label is not Label.SECRET:
            self.folders.keep(_place(receipt.manifest), folder)
        try:
            return self.models.artifact(receipt.manifest)
        except NotFound:
            artifact = Artifact(
                digest=receipt.manifest,
                run=receipt.run,
                base_reference=receipt.base_reference,
                base_digest=receipt.base_digest,
                method=receipt.recipe.method,
                corpus=receipt.corpus,
                label=receipt.label,
                created_at=receipt.issued_at,
                bytes=receipt.bytes,
                receipt=digest_file(folder / RECEIPT),
            )
            self.models.add_artifact(artifact)
            return artifact

    def _receipt(
        self, run: Run, segments: Sequence[Segment], trained: RunFolder, folder: Path, digest: Digest
    ) -> Receipt:
        links = tuple(_link(segment, trained) for segment in segments)
        base_digest = _found_base(run, [trained.result(segment.number) for segment in segments])
        files = file_digests(folder / ADAPTER)
        receipt = Receipt(
            run=run.id,
            strategy=run.strategy,
            issued_at=self.clock.now(),
            node=self.signer.key_id(),
            files=files,
            manifest=digest,
            model_signature=digest_file(folder / MODEL_SIGNATURE),
            bytes=sum((folder / ADAPTER / name).stat().st_size for name in files),
            base_reference=run.base.reference,
            base_revision=run.base.revision,
            base_digest=base_digest,
            corpus=run.corpus,
            label=run.label,
            recipe=run.recipe,
            segments=links,
        )
        check_chain(receipt, f"run {run.id}")
        return receipt


def _place(digest: Digest) -> str:
    return f"artifacts/sha256/{digest.hex}"


def _found_base(run: Run, results: Sequence[Result | None]) -> Digest:
    """The one base that every segment trained on. Raises BadReceipt when they disagree or nobody said."""
    found = {result.base_digest for result in results if result and result.base_digest}
    found |= {run.base.digest} if run.base.digest else set()
    if len(found) != 1:
        why = "no segment said which base it found" if not found else "its segments trained on different bases"
        raise BadReceipt(f"run {run.id}: {why}", fix="train it again: elias train")
    return found.pop()


def _link(segment: Segment, trained: RunFolder) -> Link:
    path = trained.inputs(segment.number) / "job.json"
    job = trained.job(segment.number) if path.exists() else None
    result = trained.result(segment.number)
    return Link(
        number=segment.number,
        backend=segment.backend,
        outcome=segment.state,
        start=segment.start.digest if segment.start else None,
        end=segment.end.digest if segment.end else None,
        start_step=segment.start.step if segment.start else 0,
        end_step=segment.end.step if segment.end else None,
        job=digest_file(path) if job else None,
        trainer=job.trainer if job else None,
        accelerator=result.accelerator if result else None,
        accelerator_count=result.accelerator_count if result else None,
        precision=result.precision if result else None,
        versions=dict(result.versions) if result else {},
        seconds=dict(result.seconds) if result else {},
        tokens=result.tokens if result else 0,
        first_loss=result.first_loss if result else None,
        last_loss=result.last_loss if result else None,
        cost_micro_usd=segment.cost.micro_usd,
    )


def _copy(source: Path, target: Path) -> None:
    """Every file, and every byte of it on the disk before this returns."""
    shutil.copytree(source, target, symlinks=True, copy_function=shutil.copyfile)
    for path in [target, *sorted(target.rglob("*"))]:
        sync_folder(path)  # fsync takes a file's handle as well


@contextmanager
def _disk_errors(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kept = "the trained adapter in the run's folder"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no room left in {place}", fix="free some space, then type it again", kept=kept) from error
        raise StoreError(f"cannot write to {place}: {error}", fix="elias doctor", kept=kept) from error
