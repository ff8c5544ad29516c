"""Writes the golden receipts beside this file: `python tests/attest/golden/make.py`. Run it only for a new format."""

from __future__ import annotations

import base64
import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path

from elias.adapters.signing.identity import Identity, key_id, pem
from elias.domain.dsse import IN_TOTO_TYPE, Envelope, pae, to_json
from elias.domain.label import Label
from elias.domain.receipt import Link, Receipt, to_statement
from elias_trainer.contract import Digest, Recipe, canonical_json, digest_bytes

HERE = Path(__file__).parent
KEY = Identity(bytes(range(32))).receipt_key
NODE = key_id(KEY.public_key())


def link(number: int, outcome: str, start: Digest | None, end: Digest | None) -> Link:
    return Link(
        number=number,
        backend="local",
        outcome=outcome,
        start=start,
        end=end,
        start_step=5 if start else 0,
        end_step=10 if outcome == "done" else 5,
        job=digest_bytes(b"job %d" % number),
        trainer=digest_bytes(b"trainer"),
        accelerator="cpu",
        accelerator_count=1,
        precision="fp32",
        versions={"torch": "2.13.0", "peft": "0.21.2"},
        seconds={"load": 0.5, "train": 12.25},
        tokens=1000,
        first_loss=2.5,
        last_loss=2.25,
        cost_micro_usd=120_000,
    )


FIVE, TEN = digest_bytes(b"checkpoint 5"), digest_bytes(b"checkpoint 10")
GOOD = Receipt(
    run="20261124-120000-abcd",
    strategy="hybrid",
    issued_at=datetime(2026, 11, 24, 12, 30, tzinfo=UTC),
    node=NODE,
    files={
        "adapter_config.json": digest_bytes(b"config"),
        "adapter_model.safetensors": digest_bytes(b"weights"),
    },
    manifest=digest_bytes(b"manifest"),
    model_signature=digest_bytes(b"signature"),
    bytes=1234,
    base_reference="deepseek-ai/deepseek-coder-6.7b-instruct",
    base_revision=None,
    base_digest=digest_bytes(b"base"),
    corpus=digest_bytes(b"corpus"),
    label=Label.PRIVATE,
    recipe=Recipe(),
    segments=(link(1, "paused", None, FIVE), link(2, "done", FIVE, TEN)),
)


def signed(payload: bytes, payload_type: str = IN_TOTO_TYPE, keyid: str = NODE) -> bytes:
    signature = KEY.sign(pae(payload_type, payload))
    return to_json(Envelope(payload_type=payload_type, payload=payload, key_id=keyid, signature=signature))


def changed(**fields: object) -> bytes:
    """A statement with other fields in its predicate."""
    statement = json.loads(to_statement(GOOD))
    statement["predicate"] |= fields
    return canonical_json(statement)


def vectors() -> dict[str, tuple[bytes, str, str]]:
    """Name -> the file, the error it must raise, and a part of what the error says."""
    good = signed(to_statement(GOOD))
    raw = json.loads(good)
    other_payload = base64.b64encode(to_statement(dataclasses.replace(GOOD, bytes=1235))).decode()
    statement = to_statement(GOOD)
    elsewhere = dataclasses.replace(GOOD.segments[1], start=digest_bytes(b"elsewhere"))
    return {
        "good": (good, "", ""),
        "payload-replaced": (canonical_json({**raw, "payload": other_payload}), "BadSignature", "signature is wrong"),
        "type-replaced": (canonical_json({**raw, "payloadType": "text/plain"}), "BadReceipt", "holds 'text/plain'"),
        "unknown-key": (signed(statement, keyid="sha256:" + "0" * 64), "BadSignature", "does not trust"),
        "two-signatures": (canonical_json({**raw, "signatures": raw["signatures"] * 2}), "BadReceipt", "one signature"),
        "no-signature": (canonical_json({**raw, "signatures": []}), "BadReceipt", "one signature"),
        "extra-in-envelope": (canonical_json({**raw, "note": ""}), "BadReceipt", "canonical form"),
        "trailing-newline": (good + b"\n", "BadReceipt", "canonical form"),
        "name-twice": (good[:-1] + b',"payload":""}', "BadReceipt", "stands twice"),
        "spaces-in-statement": (signed(statement.replace(b":", b": ", 1)), "BadReceipt", "says it otherwise"),
        "extra-in-statement": (signed(changed(note="trust me")), "BadReceipt", "a receipt does not say"),
        "wrong-total": (signed(changed(totals={"tokens": 1})), "BadReceipt", "a receipt does not say"),
        "float-money": (signed(changed(segments=[float_money()])), "BadReceipt", "a receipt"),
        "no-corpus": (signed(changed(corpus=None)), "BadReceipt", "is not a receipt"),
        "another-predicate": (signed(statement.replace(b"receipt:v1", b"receipt:v9")), "BadReceipt", "receipt:v9"),
        "not-a-statement": (signed(b"[]"), "BadReceipt", "is not a receipt"),
        "cut-off": (good[: len(good) // 2], "BadReceipt", "is not a receipt"),
        "another-node": (
            signed(to_statement(dataclasses.replace(GOOD, node="sha256:" + "1" * 64))),
            "BadReceipt",
            "issued by one node and signed by another",
        ),
        "broken-chain": (
            signed(to_statement(dataclasses.replace(GOOD, segments=(GOOD.segments[0], elsewhere)))),
            "BadReceipt",
            "segment 2 began from step 5",
        ),
        "missing-segment": (
            signed(to_statement(dataclasses.replace(GOOD, segments=GOOD.segments[1:]))),
            "BadReceipt",
            "segment 1 is missing",
        ),
    }


def float_money() -> dict[str, object]:
    return {**dataclasses.asdict(GOOD.segments[1]), "number": 1, "cost_micro_usd": "much"}


if __name__ == "__main__":
    table = {}
    for name, (data, error, what) in vectors().items():
        (HERE / f"{name}.dsse.json").write_bytes(data)
        table[name] = {"error": error, "what": what}
    (HERE / "expected.json").write_text(json.dumps(table, indent=1) + "\n")
    (HERE / "node.pub").write_bytes(pem(KEY.public_key()))
