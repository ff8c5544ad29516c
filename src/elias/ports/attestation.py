"""Proof: signing what is ours, checking what comes."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from elias_trainer.contract import Digest


class Signer(Protocol):
    """Holds the node's identity."""

    def key_id(self) -> str:
        """The public key's digest, `sha256:<hex>`: who signed."""
        ...

    def sign(self, message: bytes) -> bytes:
        """An Ed25519 signature."""
        ...

    def verify(self, message: bytes, signature: bytes, key_id: str) -> None:
        """Raises BadSignature: wrong, or a key that this node does not trust."""
        ...

    def sign_model(self, folder: Path, signature: Path) -> Digest:
        """Write the OpenSSF Model Signing bundle of the files in `folder`; the digest of its manifest."""
        ...

    def verify_model(self, folder: Path, signature: Path) -> Digest:
        """The manifest's digest. Raises BadSignature, or DigestMismatch naming the changed, extra or missing file."""
        ...
