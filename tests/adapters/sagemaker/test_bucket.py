"""Files to S3 and back: in parts, resumed, checksummed, skipped, bounded."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from elias.adapters.backends.sagemaker import bucket as module
from elias.adapters.backends.sagemaker.bucket import Bucket, Sent
from elias.adapters.backends.sagemaker.client import Clients
from elias.adapters.backends.sagemaker.settings import SageMakerSettings
from elias.errors import BackendError, DigestMismatch, NotFound
from elias.testing.sagemaker_emulator import Fault, FaultKind, SageMakerEmulator
from elias_trainer.contract import digest_bytes

MIB = 2**20
SENT = Sent(kms_key="alias/elias", tags={"elias:node": "test-node"})


@pytest.fixture
def make_bucket(emulated: SageMakerEmulator, account: Any, tmp_path: Path) -> Iterator[Callable[..., Bucket]]:
    made: list[Clients] = []

    def make(**settings: Any) -> Bucket:
        read = SageMakerSettings.read({"region": "us-east-1", "endpoint_url": emulated.url} | settings)
        made.append(Clients(read))
        return Bucket(made[-1], account.bucket, tmp_path / "uploads")

    yield make
    for clients in made:
        clients.close()


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "PART_BYTES", 5 * MIB)
    path = tmp_path / "large.bin"
    path.write_bytes(os.urandom(17 * MIB))
    return path


def parts_sent(emulated: SageMakerEmulator) -> int:
    return len(emulated.disk.requests("s3.PUT"))


def test_a_large_file_goes_up_in_parts_and_comes_back_the_same(
    make_bucket: Callable[..., Bucket], large: Path, tmp_path: Path, account: Any
) -> None:
    bucket = make_bucket()
    assert bucket.send(large, "big/one", SENT)
    home = bucket.fetch("big/one", tmp_path / "home" / "one", largest=32 * MIB, digest=digest_bytes(large.read_bytes()))
    assert home.read_bytes() == large.read_bytes()
    head = account.s3.head_object(Bucket=account.bucket, Key="big/one", ChecksumMode="ENABLED")
    assert head["ServerSideEncryption"] == "aws:kms"
    tags = account.s3.get_object_tagging(Bucket=account.bucket, Key="big/one")["TagSet"]
    assert tags == [{"Key": "elias:node", "Value": "test-node"}]


def test_what_is_there_is_not_sent_again(
    make_bucket: Callable[..., Bucket], large: Path, emulated: SageMakerEmulator
) -> None:
    bucket = make_bucket()
    bucket.send(large, "big/one", SENT)
    before = parts_sent(emulated)
    assert not bucket.send(large, "big/one", SENT)
    assert parts_sent(emulated) == before


def test_an_upload_that_was_cut_off_sends_only_the_missing_parts(
    make_bucket: Callable[..., Bucket], large: Path, tmp_path: Path, emulated: SageMakerEmulator, account: Any
) -> None:
    emulated.disk.faults.add(Fault(kind=FaultKind.SERVER_ERROR, call="s3.PUT", after=2, times=2))
    before = parts_sent(emulated)
    with pytest.raises(BackendError):
        make_bucket(http_tries=1).send(large, "big/one", SENT)
    cut = parts_sent(emulated)
    assert make_bucket().send(large, "big/one", SENT)
    assert cut - before == 4 and parts_sent(emulated) - cut == 2
    assert account.s3.get_object(Bucket=account.bucket, Key="big/one")["Body"].read() == large.read_bytes()


def test_what_is_not_its_digest_or_too_large_does_not_come_home(
    make_bucket: Callable[..., Bucket], tmp_path: Path
) -> None:
    bucket, target = make_bucket(), tmp_path / "home" / "one"
    bucket.put("one", b"0123456789", SENT)
    with pytest.raises(DigestMismatch):
        bucket.fetch("one", target, largest=100, digest=digest_bytes(b"another"))
    with pytest.raises(BackendError, match="more than the 5"):
        bucket.fetch("one", target, largest=5)
    with pytest.raises(NotFound):
        bucket.fetch("two", target, largest=5)
    assert not list((tmp_path / "home").iterdir())


def test_deleting_takes_every_version(make_bucket: Callable[..., Bucket], account: Any) -> None:
    bucket = make_bucket()
    for data in (b"first", b"second"):
        bucket.put("a/one", data, SENT)
    bucket.put("b/one", b"kept", SENT)
    bucket.delete_under("a/")
    assert list(account.versions().values()) == [b"kept"]
