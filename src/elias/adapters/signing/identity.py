"""One 32-byte seed, from which every key of the node is derived (HKDF-SHA256, RFC 5869).

identity/seed                      64 hex digits, mode 0600: the only secret; back up this one file
identity/public/receipt.pub        Ed25519, PEM: signs receipts and the log
identity/public/model_signing.pem  P-256, PEM: OpenSSF Model Signing, for `model_signing verify key`
identity/public/node.pub           both of them, for another node's identity/trusted/
identity/public/age.txt            X25519: whom to encrypt to, as an age recipient
identity/trusted/*.pub             keys of other nodes that this node trusts, PEM
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from elias.adapters.signing.bech32 import encode
from elias.errors import ConfigError, UserError
from elias_trainer.contract import digest_bytes, write_whole

SEED_BYTES = 32
PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey

_RECEIPT_INFO = b"elias identity v1: ed25519 receipts and log"
_MODEL_INFO = b"elias identity v1: p-256 model signing"
_AGE_INFO = b"elias identity v1: x25519 age"
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True)
class Identity:
    """Not slotted, since the keys are derived once each and on first use."""

    seed: bytes = field(repr=False)

    @cached_property
    def receipt_key(self) -> ed25519.Ed25519PrivateKey:
        return ed25519.Ed25519PrivateKey.from_private_bytes(self._derive(_RECEIPT_INFO, 32))

    @cached_property
    def model_key(self) -> ec.EllipticCurvePrivateKey:
        """The scalar by extra random bits, FIPS 186-5 appendix A.2.1."""
        scalar = int.from_bytes(self._derive(_MODEL_INFO, 48)) % (_P256_ORDER - 1) + 1
        return ec.derive_private_key(scalar, ec.SECP256R1())

    @cached_property
    def age_identity(self) -> str:
        """`AGE-SECRET-KEY-1…`, as https://age-encryption.org/v1 writes it: for `pyrage.x25519.Identity.from_str`."""
        return encode("age-secret-key-", self._derive(_AGE_INFO, 32)).upper()

    @cached_property
    def age_recipient(self) -> str:
        private = x25519.X25519PrivateKey.from_private_bytes(self._derive(_AGE_INFO, 32))
        return encode("age", private.public_key().public_bytes_raw())

    def _derive(self, info: bytes, length: int) -> bytes:
        return HKDF(algorithm=hashes.SHA256(), length=length, salt=None, info=info).derive(self.seed)


def key_id(key: PublicKey) -> str:
    """The digest of its SubjectPublicKeyInfo: `openssl pkey -pubin -in receipt.pub -outform DER | sha256sum`."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return digest_bytes(der)


def pem(key: PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def create_identity(folder: Path) -> bool:
    """Make the seed unless there is one, and write the public keys; whether it was made now.

    Raises ConfigError when the seed that is there cannot be used, or was there and is gone.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "trusted").mkdir(exist_ok=True)
    is_new = not (folder / "seed").exists()
    if is_new and (folder / "public" / "receipt.pub").exists():
        raise ConfigError(
            f"{folder / 'seed'} is gone, but the public keys made from it are here",
            fix=f"put back your copy of it; or become a new node, whose keys are others: mv {folder} {folder}.old",
        )
    if is_new:
        _write_secret(folder / "seed", secrets.token_bytes(SEED_BYTES).hex() + "\n")
    _write_public(load_identity(folder), folder / "public")
    return is_new


def load_identity(folder: Path) -> Identity:
    """Raises UserError when there is none, ConfigError when others can read it or it is not a seed."""
    path = folder / "seed"
    try:
        mode, text = path.stat().st_mode, path.read_text(encoding="ascii")
    except FileNotFoundError as error:
        raise UserError(f"this node has no identity: {path} is not there", fix="elias init") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", fix=f"put back your copy of {path}") from error
    if mode & 0o077:
        raise ConfigError(f"{path} is this node's secret, and others can read it", fix=f"chmod 600 {path}")
    try:
        seed = bytes.fromhex(text)
    except ValueError as error:
        raise ConfigError(f"{path} is not 64 hex digits", fix=f"put back your copy of {path}") from error
    if len(seed) != SEED_BYTES:
        raise ConfigError(f"{path} holds {len(seed)} bytes, not {SEED_BYTES}", fix=f"put back your copy of {path}")
    return Identity(seed)


def trusted_keys(folder: Path) -> list[PublicKey]:
    """The keys in `trusted/*.pub`; a file may hold several. Raises ConfigError naming the file that is no key."""
    keys: list[PublicKey] = []
    for path in sorted((folder / "trusted").glob("*.pub")):
        end = b"-----END PUBLIC KEY-----"
        blocks = [block + end for block in path.read_bytes().split(end)[:-1]]
        fix = f"copy the other node's identity/public/node.pub to {path}"
        if not blocks:
            raise ConfigError(f"{path} holds no public key in PEM", fix=fix)
        for block in blocks:
            try:
                key = serialization.load_pem_public_key(block)
            except (ValueError, UnsupportedAlgorithm) as error:
                raise ConfigError(f"{path} holds no public key that can be read", fix=fix) from error
            if not isinstance(key, PublicKey):
                raise ConfigError(f"{path} holds a key that is neither Ed25519 nor elliptic curve", fix=fix)
            keys.append(key)
    return keys


def _write_secret(path: Path, text: str) -> None:
    """With its mode from the first byte on, and never over one that is there."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    scratch.unlink(missing_ok=True)
    handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(scratch, path)
    except FileExistsError:
        return  # another `init` came first: its seed stays, and ours was never used
    finally:
        scratch.unlink()


def _write_public(identity: Identity, folder: Path) -> None:
    receipt, model = pem(identity.receipt_key.public_key()), pem(identity.model_key.public_key())
    files = {
        "receipt.pub": receipt,
        "model_signing.pem": model,
        "node.pub": receipt + model,
        "age.txt": f"{identity.age_recipient}\n".encode(),
    }
    for name, data in files.items():
        if not (folder / name).exists() or (folder / name).read_bytes() != data:
            write_whole(folder / name, data)
