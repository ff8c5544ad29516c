"""OpenSSF Model Signing v1.0 with an elliptic curve key: what `model_signing sign key` and `verify key` do.

Written here rather than called, because importing that package takes a second, it wants its key in a file, and its
verifier accepts an older, faulty encoding. The tests hold the two against each other, in both directions.
Format: https://github.com/sigstore/model-transparency, `_signing/signing.py`; the bundle is Sigstore's v0.3.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from elias.adapters.signing.identity import pem
from elias.domain.dsse import IN_TOTO_STATEMENT, IN_TOTO_TYPE, pae, strict_json
from elias.errors import BadSignature
from elias_trainer.contract import Digest, canonical_json, digest_bytes

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_HASHES = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
_FIX = "get the model again from where it came; do not use this copy"


def manifest_digest(files: Mapping[str, Digest]) -> Digest:
    """The subject digest of the manifest: SHA-256 over the files' raw digests, in the order of their paths."""
    ordered = sorted(files, key=PurePosixPath)
    return digest_bytes(b"".join(bytes.fromhex(files[path].hex) for path in ordered))


def sign_files(name: str, files: Mapping[str, Digest], key: ec.EllipticCurvePrivateKey) -> bytes:
    """The bundle, for a model called `name`. The same files and key give the same bytes (RFC 6979)."""
    statement = canonical_json(
        {
            "_type": IN_TOTO_STATEMENT,
            "subject": [{"name": name, "digest": {"sha256": manifest_digest(files).hex}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
                "resources": [
                    {"name": path, "algorithm": "sha256", "digest": files[path].hex}
                    for path in sorted(files, key=PurePosixPath)
                ],
            },
        }
    )
    algorithm = ec.ECDSA(_HASHES[key.curve.key_size], deterministic_signing=True)
    signature = key.sign(pae(IN_TOTO_TYPE, statement), algorithm)
    return canonical_json(
        {
            "mediaType": BUNDLE_TYPE,
            "verificationMaterial": {"publicKey": {"hint": _hint(key.public_key())}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": base64.b64encode(statement).decode(),
                "payloadType": IN_TOTO_TYPE,
                "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
            },
        }
    )


def signed_files(path: Path, keys: Sequence[ec.EllipticCurvePublicKey]) -> dict[str, Digest]:
    """The files that the bundle at `path` vouches for, by their digests. Raises BadSignature."""
    try:
        bundle = strict_json(path.read_bytes())
        if bundle["mediaType"] != BUNDLE_TYPE:
            raise ValueError(f"its media type is {bundle['mediaType']!r}")
        hint, envelope = bundle["verificationMaterial"]["publicKey"]["hint"], bundle["dsseEnvelope"]
        (signature,) = envelope["signatures"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signed = base64.b64decode(signature["sig"], validate=True)
        if envelope["payloadType"] != IN_TOTO_TYPE:
            raise ValueError(f"its payload is {envelope['payloadType']!r}")
        _check(path, hint, pae(IN_TOTO_TYPE, payload), signed, keys)
        return _resources(strict_json(payload))
    except FileNotFoundError as error:
        raise BadSignature(f"{path} is missing: nothing vouches for this model", fix=_FIX) from error
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise BadSignature(f"{path} is not a model signature: {error}", fix=_FIX) from error


def _check(path: Path, hint: str, message: bytes, signature: bytes, keys: Sequence[ec.EllipticCurvePublicKey]) -> None:
    key = next((key for key in keys if _hint(key) == hint), None)
    if key is None:
        raise BadSignature(
            f"{path} was signed by a key that this node does not trust ({str(hint)[:12]})",
            fix="if you trust its node, copy that node's identity/public/node.pub to identity/trusted/NAME.pub",
        )
    try:
        key.verify(signature, message, ec.ECDSA(_HASHES[key.curve.key_size]))
    except InvalidSignature as error:
        raise BadSignature(f"{path}: the signature is wrong", fix=_FIX) from error


def _resources(statement: Any) -> dict[str, Digest]:
    if statement["_type"] != IN_TOTO_STATEMENT or statement["predicateType"] != PREDICATE_TYPE:
        raise ValueError(f"it states {statement['predicateType']!r}")
    predicate = statement["predicate"]
    how = predicate["serialization"]
    if (how["method"], how["hash_type"]) != ("files", "sha256"):
        raise ValueError(f"its manifest is made of {how['method']!r} by {how['hash_type']!r}, not of files by sha256")
    files: dict[str, Digest] = {}
    for resource in predicate["resources"]:
        if resource["algorithm"] != "sha256" or resource["name"] in files:
            raise ValueError(f"its entry for {resource['name']!r} is not one sha256 digest")
        files[resource["name"]] = Digest(f"sha256:{resource['digest']}")
    (subject,) = statement["subject"]
    if subject["digest"]["sha256"] != manifest_digest(files).hex:
        raise ValueError("its subject is not the digest of its files")
    return files


def _hint(key: ec.EllipticCurvePublicKey) -> str:
    """How a bundle names its key: the digest of its PEM text."""
    return hashlib.sha256(pem(key)).hexdigest()
