"""The Signer of a node: its own identity, and the keys of those it trusts."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from elias.adapters.signing.identity import Identity, PublicKey, key_id, load_identity, trusted_keys
from elias.adapters.signing.model_signing import manifest_digest, sign_files, signed_files
from elias.errors import BadSignature, DigestMismatch
from elias_trainer.contract import Digest, digest_file, write_whole

_FIX = "get the model again from where it came; do not use this copy"


class NodeSigner:
    """Reads the identity on first use, so that a node can be looked at before it has one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def key_id(self) -> str:
        return key_id(self._identity.receipt_key.public_key())

    def sign(self, message: bytes) -> bytes:
        return self._identity.receipt_key.sign(message)

    def verify(self, message: bytes, signature: bytes, key_id: str) -> None:
        key = self._receipt_keys.get(key_id)
        if key is None:
            raise BadSignature(
                f"it was signed by a key that this node does not trust ({key_id.removeprefix('sha256:')[:12]})",
                fix="if you trust its node, copy that node's identity/public/node.pub to identity/trusted/NAME.pub",
            )
        try:
            key.verify(signature, message)
        except InvalidSignature as error:
            raise BadSignature("the signature is wrong", fix=_FIX) from error

    def sign_model(self, folder: Path, signature: Path) -> Digest:
        files = plain_files(folder)
        write_whole(signature, sign_files(folder.name, files, self._identity.model_key))
        return manifest_digest(files)

    def verify_model(self, folder: Path, signature: Path) -> Digest:
        wanted = signed_files(signature, self._model_keys)
        found = plain_files(folder)
        for path in sorted(wanted.keys() | found.keys()):
            if path not in found:
                raise DigestMismatch(f"{folder / path} is missing", fix=_FIX)
            if path not in wanted:
                raise DigestMismatch(f"{folder / path} is extra: nobody signed it", fix=f"remove {folder / path}")
            if found[path] != wanted[path]:
                raise DigestMismatch(f"{folder / path} was changed after it was signed", fix=_FIX)
        return manifest_digest(found)

    @cached_property
    def _identity(self) -> Identity:
        return load_identity(self._folder)

    @cached_property
    def _trusted(self) -> list[PublicKey]:
        own: list[PublicKey] = [self._identity.receipt_key.public_key(), self._identity.model_key.public_key()]
        return own + trusted_keys(self._folder)

    @cached_property
    def _receipt_keys(self) -> dict[str, ed25519.Ed25519PublicKey]:
        return {key_id(key): key for key in self._trusted if isinstance(key, ed25519.Ed25519PublicKey)}

    @cached_property
    def _model_keys(self) -> list[ec.EllipticCurvePublicKey]:
        return [key for key in self._trusted if isinstance(key, ec.EllipticCurvePublicKey)]


def plain_files(folder: Path) -> dict[str, Digest]:
    """Relative POSIX path -> digest. Raises DigestMismatch for a link, a device, or anything else that is no file."""
    found: dict[str, Digest] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise DigestMismatch(f"{path} is not a plain file", fix=f"remove {path}")
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = digest_file(path)
    return found
