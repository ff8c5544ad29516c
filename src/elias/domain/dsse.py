"""DSSE envelopes: a payload, its type, and a signature over both. https://github.com/secure-systems-lab/dsse"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

from elias_trainer.contract import canonical_json

IN_TOTO_TYPE = "application/vnd.in-toto+json"
IN_TOTO_STATEMENT = "https://in-toto.io/Statement/v1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Envelope:
    payload_type: str
    payload: bytes
    key_id: str
    signature: bytes


def pae(payload_type: str, payload: bytes) -> bytes:
    """The pre-authentication encoding: the bytes that are signed. DSSE v1.0.2, protocol.md."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def to_json(envelope: Envelope) -> bytes:
    """In canonical JSON, so that an envelope has one form only."""
    signature = {"keyid": envelope.key_id, "sig": base64.b64encode(envelope.signature).decode()}
    payload = base64.b64encode(envelope.payload).decode()
    return canonical_json({"payload": payload, "payloadType": envelope.payload_type, "signatures": [signature]})


def from_json(data: bytes) -> Envelope:
    """The inverse of `to_json`, and of nothing else. Raises ValueError."""
    raw = strict_json(data)
    try:
        (signature,) = raw["signatures"]
        envelope = Envelope(
            payload_type=raw["payloadType"],
            payload=base64.b64decode(raw["payload"], validate=True),
            key_id=signature["keyid"],
            signature=base64.b64decode(signature["sig"], validate=True),
        )
        is_same = to_json(envelope) == data
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"not a DSSE envelope with one signature: {error}") from error
    if not is_same:
        raise ValueError("not in canonical form: something was added, reordered or re-encoded")
    return envelope


def strict_json(data: bytes) -> Any:
    """JSON in UTF-8 without duplicate names, NaN or infinities. Raises ValueError."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name stands twice in one object")
        return found

    def no_constant(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_constant=no_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
