import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pyrage
import pytest
from botocore.config import Config

from elias.adapters.backends.sagemaker import names
from elias.adapters.backends.sagemaker.backend import SageMakerBackend
from elias.adapters.clock import SystemClock
from elias.domain.offer import Offer
from elias.ports.backend import BackendContext
from elias.testing.bundles import Wanted, make_bundle, need_of
from elias.testing.sagemaker_emulator import Fault, FaultKind, SageMakerEmulator
from elias.testing.waiting import wait_until
from tests.adapters.polled_place import PolledPlace

NODE_KEY = str(pyrage.x25519.Identity.generate())
REGION = "us-east-1"
ACCOUNT = "123456789012"
BUCKET = names.bucket_name(ACCOUNT, REGION)
ON_DEMAND, SPOT = "ml.g5.xlarge", "ml.g5.xlarge spot"
QUICK = {
    "region": REGION,
    "instance": ON_DEMAND,
    "grace": "0s",
    "upload": "0s",
    "shortest": "0s",
    "poll_every": "0s",
    "calls_per_minute": 1_000_000,
    "http_connect": "60s",
    "http_read": "60s",
}

QUICK_TESTS = (
    "runs_to_its_end_and_comes_home_whole",
    "a_handle_nobody_knows",
    "no_step_is_lost_or_repeated[private]",
    "no_capacity_costs_nothing",
    "a_quota_that_is_used_up",
    "finds_the_job_again_in_another_process",
    "is_not_as_ordered_is_stopped",
    "a_corrupted_model_is_noticed",
    "cancelled_before_it_was_sent",
    "no_byte_of_it_is_readable_in_s3",
    "secret_data_is_refused",
    "a_node_killed_between_two_calls",
)
"""Those of the tests with jobs that `make quick` runs; `make test` runs all. Some come from the shared suite."""
WITH_JOBS = ("test_sagemaker_suite", "test_faults", "test_privacy", "test_runs")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        is_ours = "adapters/sagemaker/" in item.nodeid and any(f"/{name}.py" in item.nodeid for name in WITH_JOBS)
        if is_ours and not any(name in item.nodeid for name in QUICK_TESTS):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def emulated(tmp_path: Path) -> Iterator[SageMakerEmulator]:
    with SageMakerEmulator(tmp_path / "emulated") as emulator:
        yield emulator


@pytest.fixture
def account(emulated: SageMakerEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Account":
    """Credentials as boto3 finds them, and in the emulated account what `elias aws setup` makes."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-key-that-nobody-may-log")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return Account(emulated)


class Account:
    """Looks into the emulated account from outside."""

    bucket = BUCKET

    def __init__(self, emulated: SageMakerEmulator) -> None:
        self._session = boto3.Session(aws_access_key_id="AKIALOOK", aws_secret_access_key="x", region_name=REGION)
        self._url = emulated.url
        self.s3 = self.client("s3")
        self.sagemaker = self.client("sagemaker")
        self.s3.create_bucket(Bucket=BUCKET)
        self.s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        kms = self.client("kms")
        kms.create_alias(AliasName=names.KEY_ALIAS, TargetKeyId=kms.create_key()["KeyMetadata"]["KeyId"])
        trust = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}}]}
        self.client("iam").create_role(RoleName=names.role_name(REGION), AssumeRolePolicyDocument=json.dumps(trust))

    def client(self, service: str) -> Any:
        return self._session.client(service, endpoint_url=self._url, config=Config(proxies={}))

    def versions(self, prefix: str = "") -> dict[str, bytes]:
        """Every byte that lies in the bucket, old versions too."""
        pages = self.s3.get_paginator("list_object_versions").paginate(Bucket=BUCKET, Prefix=prefix)
        found = [entry for page in pages for entry in page.get("Versions", [])]
        return {
            f"{e['Key']}@{e['VersionId']}": self.s3.get_object(Bucket=BUCKET, Key=e["Key"], VersionId=e["VersionId"])[
                "Body"
            ].read()
            for e in found
        }

    def names(self, prefix: str = "") -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def jobs(self) -> list[dict[str, Any]]:
        found = self.sagemaker.list_training_jobs()["TrainingJobSummaries"]
        return [self.sagemaker.describe_training_job(TrainingJobName=job["TrainingJobName"]) for job in found]


@pytest.fixture
def make_backend(
    emulated: SageMakerEmulator, tmp_path: Path, account: Account
) -> Iterator[Callable[..., SageMakerBackend]]:
    """A new backend over the same home, as after a restart of the node."""
    made: list[SageMakerBackend] = []

    def make(**settings: Any) -> SageMakerBackend:
        chosen = QUICK | {"endpoint_url": emulated.url} | settings
        context = BackendContext(
            name="sagemaker",
            node="test-node",
            home=tmp_path / "node",
            settings={name: value for name, value in chosen.items() if value is not None},
            clock=SystemClock(),
            node_key=NODE_KEY,
        )
        made.append(SageMakerBackend(context))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


@pytest.fixture
def backend(make_backend: Callable[..., SageMakerBackend]) -> SageMakerBackend:
    return make_backend()


@dataclass(kw_only=True)
class Place(PolledPlace):
    """A backend and the emulated SageMaker behind it, as a test speaks to them."""

    emulated: SageMakerEmulator
    account: Account
    bucket: str = BUCKET
    variant: str = ON_DEMAND

    def fault(self, kind: FaultKind, call: str = "CreateTrainingJob", **more: Any) -> None:
        self.emulated.disk.faults.add(Fault(kind=kind, call=call, **more))

    def offer(self, bundle: Any) -> Offer:
        return next(offer for offer in self.backend.offers(need_of(bundle)) if offer.variant == self.variant)

    def submit(self, **wanted: Any) -> str:
        bundle = make_bundle(self.home / "bundles" / self.key, self.key, Wanted(**wanted))
        return self.backend.submit(self.key, bundle, self.offer(bundle))

    def until_checkpoint(self, step: int = 1) -> None:
        wait_until(lambda: self.backend.poll(self.key) and self.checkpoint() >= step, lambda: "no checkpoint came home")

    def job(self) -> dict[str, Any]:
        [job] = self.account.jobs()
        return job

    def orders(self) -> int:
        """How often a job was ordered."""
        return len(self.emulated.disk.requests("CreateTrainingJob"))


@pytest.fixture
def place(backend: SageMakerBackend, emulated: SageMakerEmulator, account: Account, tmp_path: Path) -> Place:
    return Place(backend=backend, emulated=emulated, account=account, home=tmp_path)
