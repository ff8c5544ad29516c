"""Room 5. Whether an artifact is what it claims to be: signature, digests, receipts, structure.

<artifact>/adapter/…               the trained files
<artifact>/model.sig               OpenSSF Model Signing bundle over adapter/
<artifact>/receipt.dsse.json       how it came to be
<artifact>/receipt.<run>.dsse.json  the same bytes came out of another run too
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from elias.domain.dsse import IN_TOTO_TYPE, Envelope, from_json, pae, to_json
from elias.domain.receipt import ADAPTER, MODEL_SIGNATURE, Receipt, check_chain, from_statement, to_statement
from elias.errors import BadReceipt, BadSignature, DigestMismatch, NotFound
from elias.ports.attestation import Signer
from elias.services.base_shape import base_shape
from elias.services.structure import check_structure
from elias_trainer.contract import Digest, digest_file, file_digests

RECEIPT = "receipt.dsse.json"
_FIX = "get the model again from where it came; do not use this copy"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verified:
    digest: Digest
    folder: Path
    receipt: Receipt
    """Of the run that made it first."""
    receipt_digest: Digest
    also_from: tuple[str, ...]
    """Other runs that gave the same bytes."""
    compared_with_base: bool
    """Whether the base was at hand, so that the shapes could be compared with it."""

    @property
    def adapter(self) -> Path:
        return self.folder / ADAPTER


def verify_artifact(folder: Path, signer: Signer, expected: Digest | None = None) -> Verified:
    """All checks. Raises NotFound, or DigestMismatch, BadSignature, BadReceipt, BadStructure naming the file."""
    if not (folder / ADAPTER).is_dir():
        raise NotFound(f"{folder} holds no model: it has no folder {ADAPTER}/", fix="elias model list names the models")
    receipts = _receipt_files(folder)
    digest = signer.verify_model(folder / ADAPTER, folder / MODEL_SIGNATURE)
    if expected is not None and digest != expected:
        raise DigestMismatch(f"{folder} is {digest.short}, not {expected.short}: its files were replaced", fix=_FIX)
    first, *others = [read_receipt(path, signer) for path in receipts]
    for path, receipt in zip(receipts, [first, *others], strict=True):
        _check_subjects(path, receipt, digest, folder)
        check_chain(receipt, str(path))
        if path.name not in (RECEIPT, receipt_name(receipt.run)):
            raise BadReceipt(f"{path} belongs to the run {receipt.run}", fix=f"remove {path}")
    base = base_shape(first.base_reference)
    check_structure(folder / ADAPTER, base)
    return Verified(
        digest=digest,
        folder=folder,
        receipt=first,
        receipt_digest=digest_file(receipts[0]),
        also_from=tuple(receipt.run for receipt in others),
        compared_with_base=base is not None,
    )


def receipt_name(run: str) -> str:
    """Of the receipt of a later run that gave the same bytes."""
    return f"receipt.{run}.dsse.json"


def seal(receipt: Receipt, signer: Signer) -> bytes:
    """The receipt in its signed envelope."""
    statement = to_statement(receipt)
    signature = signer.sign(pae(IN_TOTO_TYPE, statement))
    return to_json(Envelope(payload_type=IN_TOTO_TYPE, payload=statement, key_id=signer.key_id(), signature=signature))


def read_receipt(path: Path, signer: Signer) -> Receipt:
    """Raises BadReceipt, or BadSignature, naming the file."""
    try:
        envelope = from_json(path.read_bytes())
    except ValueError as error:
        raise BadReceipt(f"{path} is not a receipt: {error}", fix=_FIX) from error
    if envelope.payload_type != IN_TOTO_TYPE:
        raise BadReceipt(f"{path} holds {envelope.payload_type!r}, not {IN_TOTO_TYPE!r}", fix=_FIX)
    try:
        signer.verify(pae(IN_TOTO_TYPE, envelope.payload), envelope.signature, envelope.key_id)
    except BadSignature as error:
        raise BadSignature(f"{path}: {error.what}", fix=error.fix) from error
    receipt = from_statement(envelope.payload, str(path))
    if receipt.node != envelope.key_id:
        raise BadReceipt(f"{path} was issued by one node and signed by another", fix=_FIX)
    return receipt


def _receipt_files(folder: Path) -> list[Path]:
    """The first receipt, then the others; nothing else may lie there."""
    others = []
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            raise DigestMismatch(f"{path} is a link", fix=_FIX)
        if path.name.startswith("receipt.") and path.name.endswith(".dsse.json") and path.name != RECEIPT:
            others.append(path)
        elif path.name not in (ADAPTER, MODEL_SIGNATURE, RECEIPT):
            raise DigestMismatch(f"{path} is extra: it is no part of the model", fix=f"remove {path}")
    if not (folder / RECEIPT).is_file():
        raise BadReceipt(f"{folder / RECEIPT} is missing: nothing says how this model came to be", fix=_FIX)
    return [folder / RECEIPT, *others]


def _check_subjects(path: Path, receipt: Receipt, digest: Digest, folder: Path) -> None:
    """What the receipt vouches for is what lies here."""
    if receipt.manifest != digest:
        raise BadReceipt(f"{path} is the receipt of another model, {receipt.manifest.short}", fix=_FIX)
    if dict(receipt.files) != file_digests(folder / ADAPTER):
        raise BadReceipt(f"{path} names other files than those in {folder / ADAPTER}", fix=_FIX)
    if receipt.model_signature != digest_file(folder / MODEL_SIGNATURE):
        raise DigestMismatch(f"{folder / MODEL_SIGNATURE} is not the signature that {path} names", fix=_FIX)
