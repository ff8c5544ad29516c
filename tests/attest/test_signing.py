"""Keys, and our model signatures beside those of the `model_signing` command."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pyrage
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from elias.adapters.signing.bech32 import encode
from elias.adapters.signing.identity import Identity, create_identity, key_id, load_identity, trusted_keys
from elias.adapters.signing.model_signing import manifest_digest, sign_files, signed_files
from elias.adapters.signing.node_signer import plain_files
from elias.errors import BadSignature, ConfigError, UserError


def model_signing(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The real command, in a process of its own."""
    command = [sys.executable, "-m", "model_signing", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_model_signing_command_verifies_our_artifact(home, admitted):
    key = home / "identity" / "public" / "model_signing.pem"
    command = ("verify", "key", admitted / "adapter", "--signature", admitted / "model.sig", "--public_key", key)
    assert "Verification succeeded" in model_signing(*command).stdout
    path = admitted / "adapter" / "adapter_config.json"
    path.write_bytes(path.read_bytes() + b" ")
    assert "adapter_config.json" in model_signing(*command).stderr


def test_we_verify_what_the_model_signing_command_signed(tmp_path):
    key = ec.generate_private_key(ec.SECP384R1())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (tmp_path / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    model = tmp_path / "model"
    for name in ("b/z.txt", "b-1.txt", "b.txt", "a/c/d.txt", "B.txt"):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text(name)
    signature = tmp_path / "model.sig"
    done = model_signing("sign", "key", model, "--signature", signature, "--private_key", tmp_path / "key.pem")
    assert done.returncode == 0, done.stderr
    assert signed_files(signature, [key.public_key()]) == plain_files(model)


def test_a_model_may_hold_folders_and_the_command_still_agrees_on_its_digest(tmp_path):
    """The order of the files makes the digest; ours must be theirs."""
    key = Identity(bytes(32)).model_key
    model = tmp_path / "model"
    for name in ("b/z.txt", "b-1.txt", "b.txt", "a/c/d.txt", "B.txt"):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text(name)
    (tmp_path / "model.sig").write_bytes(sign_files("model", plain_files(model), key))
    public, encoding = key.public_key(), serialization.Encoding.PEM
    (tmp_path / "key.pub").write_bytes(public.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo))
    done = model_signing(
        "verify", "key", model, "--signature", tmp_path / "model.sig", "--public_key", tmp_path / "key.pub"
    )
    assert "Verification succeeded" in done.stdout, done.stderr


def test_a_signature_by_a_key_that_nobody_trusts_is_refused(tmp_path):
    (tmp_path / "model.sig").write_bytes(sign_files("model", {}, Identity(bytes(32)).model_key))
    with pytest.raises(BadSignature, match="does not trust"):
        signed_files(tmp_path / "model.sig", [Identity(b"1" * 32).model_key.public_key()])


def test_signing_twice_gives_the_same_bytes(admitted):
    files = plain_files(admitted / "adapter")
    key = Identity(bytes(32)).model_key
    assert sign_files("adapter", files, key) == sign_files("adapter", files, key)
    assert manifest_digest(files).hex == admitted.name


def test_every_key_comes_from_the_seed_and_no_two_are_alike():
    one, same, other = Identity(bytes(32)), Identity(bytes(32)), Identity(b"1" * 32)
    assert key_id(one.receipt_key.public_key()) == key_id(same.receipt_key.public_key())
    assert one.age_identity == same.age_identity
    assert one.model_key.private_numbers() == same.model_key.private_numbers()
    assert key_id(one.receipt_key.public_key()) != key_id(other.receipt_key.public_key())
    assert one.age_identity != other.age_identity
    assert one.model_key.private_numbers() != other.model_key.private_numbers()


def test_the_keys_of_the_zero_seed_never_change():
    """Golden: a changed derivation would orphan every signature that was ever made."""
    zero = Identity(bytes(32))
    assert (
        key_id(zero.receipt_key.public_key())
        == "sha256:7138195c32109b5874a0bce8d06725d6b7689896999c6e4bf4bb0e61e5c88062"
    )
    assert (
        key_id(zero.model_key.public_key()) == "sha256:e76939cacf4dda1a81756d608398f6ed78034a31fa3bedd0847c95c188d7fbed"
    )
    assert zero.age_recipient == "age10x07swfe9kw3kcxy9rvadr8zp6qwgtdymtuv5v4arj8v6r9ppv9sjclwc7"


def test_the_age_key_opens_what_was_encrypted_to_its_recipient():
    identity = Identity(bytes(32))
    private = pyrage.x25519.Identity.from_str(identity.age_identity)
    assert str(private) == identity.age_identity
    assert str(private.to_public()) == identity.age_recipient
    sealed = pyrage.encrypt(b"hush", [pyrage.x25519.Recipient.from_str(identity.age_recipient)])
    assert pyrage.decrypt(sealed, [private]) == b"hush"


def test_bech32_writes_the_standards_own_example():
    """BIP-173's test vector of the letters in order, as data."""
    bits = "".join(f"{n:05b}" for n in range(32))
    data = bytes(int(bits[n : n + 8], 2) for n in range(0, 160, 8))
    assert encode("abcdef", data) == "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw"


def test_a_seed_is_made_once_and_only_its_owner_can_read_it(tmp_path):
    assert create_identity(tmp_path / "identity") is True
    seed = tmp_path / "identity" / "seed"
    before = seed.read_text()
    assert (tmp_path / "identity").stat().st_mode & 0o777 == 0o700
    assert seed.stat().st_mode & 0o777 == 0o600
    assert create_identity(tmp_path / "identity") is False
    assert seed.read_text() == before
    assert len(load_identity(tmp_path / "identity").seed) == 32
    assert "seed" not in repr(load_identity(tmp_path / "identity"))


def test_the_key_id_is_what_openssl_and_sha256sum_say(home, signer):
    pem = (home / "identity" / "public" / "receipt.pub").read_bytes()
    key = serialization.load_pem_public_key(pem)
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert signer.key_id() == "sha256:" + hashlib.sha256(der).hexdigest()


def test_without_an_identity_the_fix_is_init(tmp_path):
    with pytest.raises(UserError) as caught:
        load_identity(tmp_path)
    assert caught.value.fix == "elias init"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o606])
def test_a_seed_that_others_can_read_is_refused(home, mode):
    (home / "identity" / "seed").chmod(mode)
    with pytest.raises(ConfigError) as caught:
        load_identity(home / "identity")
    assert caught.value.fix == f"chmod 600 {home / 'identity' / 'seed'}"


@pytest.mark.parametrize("text", ["", "00", "zz" * 32, "00" * 33, "\xff"])
def test_a_damaged_seed_is_refused_and_not_replaced(home, text):
    path: Path = home / "identity" / "seed"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match="seed"):
        create_identity(home / "identity")
    assert path.read_text(encoding="latin-1") == text


@pytest.mark.parametrize(
    "text", ["", "hello", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "-----END PUBLIC KEY-----"]
)
def test_a_trusted_file_that_holds_no_key_is_named(home, text):
    (home / "identity" / "trusted" / "friend.pub").write_text(text)
    with pytest.raises(ConfigError, match=r"friend\.pub"):
        trusted_keys(home / "identity")
