"""What leaves this machine, readable for whom; what is left of it in S3; and what no log may show."""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from elias.adapters.backends.sagemaker.backend import SageMakerBackend
from elias.domain.label import Label
from elias.domain.run import SegmentState
from elias.errors import ConfigError, InputError, LabelForbids, NotFound, VerificationError
from elias.testing.bundles import CORPUS
from elias.testing.fake_trainer import fake_base
from elias.testing.sagemaker_emulator import FaultKind
from elias_trainer.contract import Limits, Recipe

READABLE = CORPUS[2:40]
SECRET_KEY = b"a-key-that-nobody-may-log"
LONG = {"recipe": Recipe(max_steps=100_000), "base": fake_base(step_s=0.02), "limits": Limits(checkpoint_every_s=0.1)}


def showing(root: Path, secret: bytes) -> list[str]:
    return [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and secret in path.read_bytes()]


def in_s3(place: Any, secret: bytes) -> list[str]:
    return [name for name, data in place.account.versions().items() if secret in data]


def test_private_data_is_trained_on_and_no_byte_of_it_is_readable_in_s3(place: Any) -> None:
    place.submit(label=Label.PRIVATE, base=place.held(11), limits=Limits(checkpoint_every_s=0))
    place.running()
    assert any("AGE-SECRET-KEY" in data.decode(errors="replace") for data in place.account.versions().values())
    place.let_go()
    assert place.ended().state is SegmentState.DONE
    assert "--install" in place.job()["AlgorithmSpecification"]["ContainerArguments"], "it brings its pyrage"
    assert any("/objects/" in name and b"pyrage.abi3.so" in data for name, data in place.account.versions().items())
    assert place.checkpoint() == 12
    [adapter] = (place.home / "home" / "adapter").glob("*.safetensors")
    assert in_s3(place, READABLE) == [] and in_s3(place, adapter.read_bytes()[-64:]) == []
    assert in_s3(place, b"AGE-SECRET-KEY") == [], "the segment's key goes with its end, in all versions"
    packed = [key for key in place.account.names() if ".pack" in key]
    assert packed and all(key.removesuffix(".part").endswith(".age") for key in packed)


def test_public_data_travels_readable(place: Any) -> None:
    place.submit(label=Label.PUBLIC)
    place.ended()
    assert in_s3(place, READABLE)


def test_everything_in_s3_is_encrypted_with_the_key_of_the_setup_and_says_whose_it_is(place: Any) -> None:
    place.submit(label=Label.PRIVATE)
    place.ended()
    keys = place.account.names()
    assert keys and all(key.startswith("elias/test-node/") for key in keys)
    ours = [key for key in keys if "/checkpoints/" not in key]
    for key in ours:
        head = place.account.s3.head_object(Bucket=place.bucket, Key=key)
        assert head["ServerSideEncryption"] == "aws:kms", key
    job = place.job()
    assert ":key/" in job["OutputDataConfig"]["KmsKeyId"]
    tags = {t["Key"]: t["Value"] for t in place.account.sagemaker.list_tags(ResourceArn=job["TrainingJobArn"])["Tags"]}
    assert tags["elias:node"] == "test-node" and tags["elias:run"] == "faults" and tags["elias:segment"] == place.key


@pytest.mark.parametrize(("setting", "is_isolated"), [("auto", True), ("never", False)])
def test_a_container_that_holds_all_it_needs_gets_no_network(
    make_backend: Callable[..., SageMakerBackend], place: Any, setting: str, is_isolated: bool
) -> None:
    place.backend = make_backend(network_isolation=setting)
    place.submit(**LONG)
    place.running()
    assert place.job()["EnableNetworkIsolation"] is is_isolated
    place.backend.cancel(place.key)
    place.ended()


def test_secret_data_is_refused_before_anything_is_written_or_sent(place: Any) -> None:
    with pytest.raises(LabelForbids):
        place.submit(label=Label.SECRET)
    assert not place.account.names() and place.orders() == 0
    assert showing(place.home / "node", READABLE) == []


def test_private_data_stays_while_the_node_has_no_key_to_have_the_outputs_sealed_for(
    make_backend: Callable[..., SageMakerBackend], place: Any
) -> None:
    without = dataclasses.replace(make_backend()._context, node_key=None)
    place.backend = SageMakerBackend(without)
    with pytest.raises(ConfigError) as refused:
        place.submit(label=Label.PRIVATE)
    assert refused.value.fix == "elias init" and not place.account.names()
    place.backend.close()


def test_the_account_key_is_in_no_log_and_no_file(
    place: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG, logger="elias")
    for call in ("CreateTrainingJob", "DescribeTrainingJob", "s3.PUT"):
        place.fault(FaultKind.EXPIRED_CREDENTIALS, call)
    place.submit()
    seen = place.until(lambda status: status.state.is_final)
    said = " ".join([*[status.note or "" for status in seen], caplog.text, *capfd.readouterr()])
    assert SECRET_KEY.decode() not in said
    assert showing(place.home / "node", SECRET_KEY) == []


def test_forgetting_leaves_nothing_of_a_run_but_the_finished_adapter_under_its_digest(place: Any) -> None:
    place.submit(label=Label.PRIVATE)
    place.ended()
    place.backend.forget(place.key)
    [kept] = place.account.versions().items()
    assert kept[0].startswith("elias/test-node/artifacts/")
    assert hashlib.sha256(kept[1]).hexdigest() in kept[0]
    entry = json.loads((place.home / "node" / "segments" / place.key / "segment.json").read_bytes())
    assert entry["artifact"] == f"s3://{place.bucket}/{kept[0].partition('@')[0]}"


def test_a_finished_adapter_can_be_fetched_from_s3_by_its_address_and_by_nothing_else(place: Any) -> None:
    place.submit(label=Label.PRIVATE)
    place.ended()
    place.checkpoint()
    [key] = place.account.names("elias/test-node/artifacts/")
    digest = key.split("/")[-2]
    handle = place.backend.adopt(f"s3://{place.bucket}/{key}")
    place.backend.fetch(handle, place.home / "model")
    ours = place.home / "home" / "adapter" / "adapter_model.safetensors"
    assert (place.home / "model" / "adapter" / "adapter_model.safetensors").read_bytes() == ours.read_bytes()
    assert (place.home / "model" / "result.json").exists()
    renamed = key.replace(digest, "0" * 64)
    place.account.s3.copy_object(Bucket=place.bucket, Key=renamed, CopySource={"Bucket": place.bucket, "Key": key})
    with pytest.raises(VerificationError, match="not the 0000"):
        place.backend.adopt(f"s3://{place.bucket}/{renamed}")
    with pytest.raises(NotFound):
        place.backend.adopt(f"s3://{place.bucket}/nothing/model.tar.gz")
    with pytest.raises(InputError):
        place.backend.adopt("https://example.com/model.tar.gz")
    place.backend.forget(handle)


def test_what_another_segment_of_the_run_still_needs_is_not_forgotten(place: Any) -> None:
    place.submit()
    place.ended()
    place.key = "faults-0002"
    place.submit(**LONG)
    place.running()
    place.backend.forget("faults-0001")
    assert any("/objects/" in key for key in place.account.names())
    place.backend.cancel(place.key)
    assert place.ended().state is SegmentState.CANCELLED
