"""Kills the coordinator of a run on the emulated SageMaker with -9 at each request that it makes to AWS, and counts
what was lost, done or paid for twice. A run is two chained segments with private data; each kill has a run of its own,
which another process then goes on with.

    python bench/sagemaker_kills.py                      every request of the undisturbed run, at each of three moments
    python bench/sagemaker_kills.py --requests 1-9,14    some of them
    python bench/sagemaker_kills.py --moments reached    of: unsent, reached (no answer yet), answered (not acted on)
    python bench/sagemaker_kills.py --record kills.jsonl    goes on where it was ended; the totals are of all

Prints one JSON line; exits 1 when a step, a job or a cent was lost or repeated, or anything was left behind.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from request_kills import FIRST_STEPS, STEPS, Place, begin, differences, forked, main

from elias.config.schema import Config
from elias.config.schema import Training as TrainingConfig
from elias.domain.run import Bounds
from elias.services.runs import Wanted
from elias.testing.fake_trainer import fake_base
from elias.testing.ports import free_port
from elias.testing.sagemaker_emulator import Disk
from elias.units import Money
from elias.wiring.stores import open_stores
from elias_trainer.contract import Recipe

PATIENCE_S = 900.0
REGION, ACCOUNT = "us-east-1", "123456789012"
BUCKET, ROLE, KEY_ALIAS = f"elias-{ACCOUNT}-{REGION}", f"elias-training-{REGION}", "alias/elias"
OUTSIDE_KEY = "EMULATEDSERVICE"
"""Calls signed with it are not recorded: the set-up, and looks from outside."""


def set_up_process(home: Path) -> None:
    set_environment(home)
    import dbos  # noqa: F401 # a second saved in each process

    import elias.adapters.backends.sagemaker.backend
    import elias.testing.sagemaker_emulator.app  # noqa: F401


def set_environment(home: Path) -> None:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ENDPOINT_URL"):
        os.environ.pop(name, None)
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "AKIATEST",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_CONFIG_FILE": str(home / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(home / "no-credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """A node with a run that is to begin, and the AWS that it knows."""

    home: Path
    run: str
    disk: Disk
    port: int

    @classmethod
    def prepare(cls, folder: Path) -> World:
        home = folder / "node"
        home.mkdir(parents=True)
        port = free_port()
        run = begin(config_of(home, f"http://127.0.0.1:{port}"), wanted(STEPS, segment_steps=FIRST_STEPS))
        return cls(home=home, run=run, disk=Disk(folder / "aws"), port=port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def config(self) -> Config:
        return config_of(self.home, self.url)

    def requests(self) -> list[dict[str, Any]]:
        return self.disk.requests()

    @contextmanager
    def served(self) -> Iterator[None]:
        stop, ready = forked.Event(), forked.Event()
        process = forked.Process(target=self._serve, args=(stop, ready))
        process.start()
        try:
            if not ready.wait(PATIENCE_S):
                raise SystemExit("the emulator did not start")
            yield
        finally:
            stop.set()
            process.join()

    def _serve(self, stop: Any, ready: Any) -> None:
        from elias.testing.sagemaker_emulator import SageMakerEmulator

        with SageMakerEmulator(self.disk.root, self.port):
            set_up(self.url)
            ready.set()
            stop.wait()

    def client(self) -> type:
        from botocore.httpsession import URLLib3Session

        return URLLib3Session

    def faults(self) -> list[str]:
        with open_stores(self.config()) as stores:
            costs = sorted(segment.cost for segment in stores.runs.segments(self.run))
        jobs = [record for _, record in self.disk.jobs()]
        billed = [Money.usd("1.408").for_hours(timedelta(seconds=job["BillableTimeInSeconds"])) for job in jobs]
        s3 = client(self.url, "s3")
        try:
            versions = s3.list_object_versions(Bucket=BUCKET).get("Versions", [])
        finally:
            s3.close()
        left = [entry["Key"] for entry in versions if "/artifacts/" not in entry["Key"]]
        found = {"jobs": (len(jobs), 2), "cost": (costs, sorted(billed)), "left in S3": (left, [])}
        return differences(self, found)


def client(url: str, service: str) -> Any:
    import boto3
    from botocore.config import Config as BotoConfig

    session = boto3.Session(aws_access_key_id=OUTSIDE_KEY, aws_secret_access_key="none", region_name=REGION)
    return session.client(service, endpoint_url=url, config=BotoConfig(proxies={}))


def set_up(url: str) -> None:
    """What `elias aws setup` makes, as far as a job needs it."""
    s3, kms, iam = (client(url, service) for service in ("s3", "kms", "iam"))
    s3.create_bucket(Bucket=BUCKET)
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    kms.create_alias(AliasName=KEY_ALIAS, TargetKeyId=kms.create_key()["KeyMetadata"]["KeyId"])
    trust = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}}]}
    iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument=json.dumps(trust))


def config_of(home: Path, url: str, **settings: Any) -> Config:
    quick = {
        "region": REGION,
        "endpoint_url": url,
        "instance": "ml.g5.xlarge",
        "spot": "never",
        "poll_every": "0.2s",
        "calls_per_minute": 1_000_000,
        "http_read": "10s",
    }
    training = TrainingConfig(checkpoint_every=timedelta(seconds=0.5))
    return Config(home=home, training=training, backends={"sagemaker": quick | settings})


def wanted(steps: int, **bounds: Any) -> Wanted:
    return Wanted(
        strategy="sagemaker",
        base=fake_base(step_s=0.01),
        recipe=Recipe(max_steps=steps),
        bounds=Bounds(**{"budget": Money.usd(20), **bounds}),
    )


if __name__ == "__main__":
    place = Place(name="sagemaker", prepare=World.prepare, set_up=set_up_process, patience_s=PATIENCE_S)
    sys.exit(main(place, __doc__ or ""))
