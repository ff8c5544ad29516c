"""Receipts and their envelopes, held against files that never change."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import pytest

from elias.adapters.signing.node_signer import NodeSigner
from elias.domain.dsse import Envelope, from_json, pae, strict_json, to_json
from elias.domain.receipt import check_chain, from_statement, to_statement
from elias.errors import VerificationError
from elias.services.verify import read_receipt

GOLDEN = Path(__file__).parent / "golden"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())


@pytest.fixture
def reader(build, tmp_path):
    """A node that has never seen any of this, and trusts the golden key."""
    home = build.home(tmp_path / "reader", seed=b"r" * 32)
    shutil.copy(GOLDEN / "node.pub", home / "identity" / "trusted" / "golden.pub")
    return NodeSigner(home / "identity")


@pytest.mark.parametrize("name", [name for name, wanted in EXPECTED.items() if wanted["error"]])
def test_a_broken_receipt_is_refused_with_its_own_error(reader, name):
    path = GOLDEN / f"{name}.dsse.json"
    with pytest.raises(VerificationError) as caught:
        check_chain(read_receipt(path, reader), str(path))
    assert type(caught.value).__name__ == EXPECTED[name]["error"]
    assert EXPECTED[name]["what"] in caught.value.what
    assert str(path) in caught.value.what


def test_the_golden_receipt_is_read_and_written_byte_for_byte(reader):
    path = GOLDEN / "good.dsse.json"
    receipt = read_receipt(path, reader)
    check_chain(receipt, str(path))
    payload = from_json(path.read_bytes()).payload
    assert to_statement(receipt) == payload
    assert from_statement(payload, "golden") == receipt
    assert receipt.cost.micro_usd == 240_000
    assert receipt.seconds == {"load": 1.0, "train": 24.5}


def test_the_golden_receipt_is_an_in_toto_statement():
    statement = json.loads(from_json((GOLDEN / "good.dsse.json").read_bytes()).payload)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "urn:elias:receipt:v1"
    names = [subject["name"] for subject in statement["subject"]]
    assert names == ["adapter/adapter_config.json", "adapter/adapter_model.safetensors", "adapter", "model.sig"]
    assert all(len(bytes.fromhex(subject["digest"]["sha256"])) == 32 for subject in statement["subject"])


def test_the_pre_authentication_encoding_is_the_specifications_own_example():
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_lengths_count_bytes_and_not_characters():
    assert pae("ü", "ß".encode()) == b"DSSEv1 2 \xc3\xbc 2 \xc3\x9f"


def test_an_envelope_is_read_as_it_was_written():
    envelope = Envelope(payload_type="text/plain", payload=b"\x00\xff", key_id="k", signature=b"s")
    assert from_json(to_json(envelope)) == envelope


def test_base64_with_loose_bits_is_not_the_same_envelope():
    data = to_json(Envelope(payload_type="t", payload=b"a", key_id="k", signature=b"s"))
    loose = data.replace(b'"YQ=="', b'"YR=="')
    assert base64.b64decode("YQ==") == base64.b64decode("YR==")
    with pytest.raises(ValueError, match="canonical form"):
        from_json(loose)


@pytest.mark.parametrize("data", [b'{"a":1,"a":1}', b"NaN", b"\xff", b"", b"[" * 100_000])
def test_json_with_two_meanings_is_no_json(data):
    with pytest.raises(ValueError):
        strict_json(data)
