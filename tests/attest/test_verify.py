"""Every way in which a model can be something else than it claims."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elias.adapters.signing.node_signer import NodeSigner
from elias.domain.receipt import Receipt
from elias.errors import BadReceipt, BadSignature, BadStructure, DigestMismatch, EliasError, NotFound, VerificationError
from elias.services.verify import read_receipt, seal, verify_artifact
from elias.urm import CloudTraining
from elias_trainer.contract import digest_bytes, digest_file


def resealed(folder: Path, signer: NodeSigner, **changes: object) -> None:
    """Another receipt, validly signed."""
    path = folder / "receipt.dsse.json"
    receipt: Receipt = dataclasses.replace(read_receipt(path, signer), **changes)
    path.write_bytes(seal(receipt, signer))


def test_a_whole_artifact_is_verified(admitted, signer):
    found = verify_artifact(admitted, signer)
    assert found.digest.hex == admitted.name
    assert found.adapter == admitted / "adapter"
    assert found.compared_with_base is False


@given(where=st.floats(0, 1, exclude_max=True), which=st.integers(0, 3), bit=st.integers(0, 7))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_a_flipped_bit_anywhere_is_refused_and_its_file_named(admitted, signer, where, which, bit):
    with tempfile.TemporaryDirectory() as scratch:
        copy = shutil.copytree(admitted, Path(scratch) / "copy")
        path = sorted(path for path in copy.rglob("*") if path.is_file())[which]
        data = bytearray(path.read_bytes())
        data[int(where * len(data))] ^= 1 << bit
        path.write_bytes(data)
        with pytest.raises(VerificationError) as caught:
            verify_artifact(copy, signer)
        assert str(path) in caught.value.what


@pytest.mark.parametrize(("name", "stride"), [("model.sig", 1), ("receipt.dsse.json", 7)])
def test_every_byte_of_the_proofs_counts(admitted, signer, name, stride):
    """Base64 and JSON have corners where a changed byte may mean the same, most of them near the end."""
    path = admitted / name
    whole = path.read_bytes()
    for place in {*range(0, len(whole), stride), *range(len(whole) - 200, len(whole))}:
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(VerificationError, match=name):
            verify_artifact(admitted, signer)


def change_weights(folder: Path) -> None:
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"other")


@pytest.mark.parametrize(
    ("tamper", "error", "what"),
    [
        (change_weights, DigestMismatch, "adapter_model.safetensors was changed"),
        (lambda f: (f / "adapter" / "extra.py").touch(), DigestMismatch, "extra.py is extra"),
        (lambda f: (f / "adapter" / ".gitignore").touch(), DigestMismatch, ".gitignore is extra"),
        (lambda f: (f / "notes.txt").touch(), DigestMismatch, "notes.txt is extra"),
        (lambda f: (f / "adapter" / "adapter_config.json").unlink(), DigestMismatch, "adapter_config.json is missing"),
        (lambda f: (f / "adapter" / "link").symlink_to("/etc/hosts"), DigestMismatch, "link is not a plain file"),
        (lambda f: (f / "model.sig").unlink(), BadSignature, "model.sig is missing"),
        (lambda f: (f / "model.sig").write_bytes(b"\xff"), BadSignature, "model.sig is not a model signature"),
        (lambda f: (f / "model.sig").write_bytes(b"{}"), BadSignature, "model.sig is not a model signature"),
        (lambda f: (f / "receipt.dsse.json").unlink(), BadReceipt, "receipt.dsse.json is missing"),
        (lambda f: (f / "receipt.dsse.json").write_bytes(b"[]"), BadReceipt, "receipt.dsse.json is not a receipt"),
        (lambda f: shutil.copy(f / "receipt.dsse.json", f / "receipt.x.dsse.json"), BadReceipt, "belongs to the run"),
        (lambda f: shutil.rmtree(f / "adapter"), NotFound, "holds no model"),
    ],
)
def test_each_tampering_has_its_own_error(admitted, signer, tamper, error, what):
    tamper(admitted)
    with pytest.raises(error) as caught:
        verify_artifact(admitted, signer)
    assert what in caught.value.what


@pytest.mark.parametrize(
    ("change", "error", "what"),
    [
        ({"manifest": digest_bytes(b"another")}, BadReceipt, "the receipt of another model"),
        ({"files": {"other": digest_bytes(b"")}}, BadReceipt, "names other files"),
        ({"model_signature": digest_bytes(b"another")}, DigestMismatch, "model.sig is not the signature"),
        ({"segments": ()}, BadReceipt, "its last segment is not done"),
        ({"node": "sha256:" + "0" * 64}, BadReceipt, "issued by one node and signed by another"),
    ],
)
def test_a_validly_signed_receipt_must_fit_what_lies_beside_it(admitted, signer, change, error, what):
    resealed(admitted, signer, **change)
    with pytest.raises(error) as caught:
        verify_artifact(admitted, signer)
    assert what in caught.value.what


def test_a_broken_chain_is_named(admitted, signer):
    receipt = read_receipt(admitted / "receipt.dsse.json", signer)
    first, lost, last = receipt.segments
    elsewhere = dataclasses.replace(last, start=digest_bytes(b"from elsewhere"))
    resealed(admitted, signer, segments=(first, lost, elsewhere))
    with pytest.raises(BadReceipt, match="segment 3 began from step 5"):
        verify_artifact(admitted, signer)
    resealed(admitted, signer, segments=(first, last))
    with pytest.raises(BadReceipt, match="segment 2 is missing"):
        verify_artifact(admitted, signer)


def test_two_models_cannot_be_swapped(home, attest, build):
    one, two = build.run(home, "run-a"), build.run(home, "run-b", seed=1)
    first, second = (attest.admit(t.run, t.segments, t.out) for t in (one, two))
    shutil.rmtree(attest.folder(first.digest))
    shutil.copytree(attest.folder(second.digest), attest.folder(first.digest))
    with pytest.raises(DigestMismatch, match="its files were replaced"):
        attest.verify(first.digest)


def test_another_nodes_model_needs_that_nodes_keys(admitted, build, tmp_path):
    stranger = build.home(tmp_path / "stranger", seed=b"s" * 32)
    with pytest.raises(BadSignature) as caught:
        verify_artifact(admitted, NodeSigner(stranger / "identity"))
    assert "identity/trusted" in caught.value.fix
    own = admitted.parents[2] / "identity" / "public" / "node.pub"
    shutil.copy(own, stranger / "identity" / "trusted" / "friend.pub")
    assert verify_artifact(admitted, NodeSigner(stranger / "identity")).digest.hex == admitted.name


def test_the_shapes_are_compared_with_a_base_that_is_at_hand(admitted, signer, tmp_path):
    sizes = '"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2'
    (tmp_path / "config.json").write_text("{" + sizes + "}")
    resealed(admitted, signer, base_reference=str(tmp_path))
    assert verify_artifact(admitted, signer).compared_with_base is True
    (tmp_path / "config.json").write_text("{" + sizes.replace("12", "16") + "}")
    with pytest.raises(BadStructure, match="its base has 16 there"):
        verify_artifact(admitted, signer)
    (tmp_path / "config.json").write_text("{" + sizes.replace('layers": 2', 'layers": 3') + "}")
    with pytest.raises(BadStructure, match="its base has 3"):
        verify_artifact(admitted, signer)


@pytest.mark.parametrize("form", ["sha256:{}", "0x{}", "{}"])
def test_the_seed_systems_call_accepts_the_published_digest(admitted, monkeypatch, form):
    monkeypatch.setenv("ELIAS_HOME", str(admitted.parents[2]))
    assert CloudTraining.validate_cloud_model(admitted, form.format(admitted.name)) is True


@pytest.mark.parametrize(
    ("published", "what"), [("0" * 64, "was published"), ("latest", "is not a SHA-256 digest"), ("", "is not a SHA")]
)
def test_the_seed_systems_call_refuses_any_other_digest(admitted, monkeypatch, published, what):
    monkeypatch.setenv("ELIAS_HOME", str(admitted.parents[2]))
    with pytest.raises(EliasError) as caught:
        CloudTraining.validate_cloud_model(admitted, published)
    assert what in caught.value.what


def test_a_file_digest_is_not_taken_for_the_models(admitted, monkeypatch):
    monkeypatch.setenv("ELIAS_HOME", str(admitted.parents[2]))
    with pytest.raises(DigestMismatch):
        CloudTraining.validate_cloud_model(admitted, digest_file(admitted / "adapter" / "adapter_config.json"))
