"""Training jobs: how one is ordered, found again, held against its order, and stopped.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_CreateTrainingJob.html
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from elias.adapters.backends.sagemaker import names
from elias.adapters.backends.sagemaker.client import Clients, aws_errors
from elias.adapters.backends.sagemaker.instances import InstanceType
from elias.adapters.backends.sagemaker.settings import SageMakerSettings
from elias.errors import ConfigError, NotFound
from elias_trainer.contract import Digest, canonical_json
from elias_trainer.parcel import TRAINER_FILE

FINGERPRINT_TAG = "elias:fingerprint"
CODE, PARCEL, KEY, BASE = "code", "parcel", "key", "base"
"""Channels."""
ML = "/opt/ml"
CHECKPOINTS = f"{ML}/checkpoints"
METRICS = ({"Name": "train:loss", "Regex": r'ELIAS-EVENT .*"loss": ?([0-9.eE+-]+)'},)
MOST_NAME = 63
ARTIFACTS = "artifacts"
"""The folder of finished adapters, each in one named by its digest."""
FINAL = ("Completed", "Failed", "Stopped")

Described = Mapping[str, Any]
"""What DescribeTrainingJob says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """All that a job's request follows from."""

    name: str
    kind: InstanceType
    is_spot: bool
    gpus: int
    seconds: int
    parcel: Digest
    trainer: Digest
    """Of the file in the parcel."""
    volume_gb: int
    is_isolated: bool
    image: str
    has_key: bool
    has_wheels: bool
    tags: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Where a segment's files lie: all of a run below one prefix, all of a job below one in that."""

    bucket: str
    run: str
    """The run's prefix, without a slash at its end."""
    job: str
    """The job's name."""

    def object(self, digest: Digest, name: str) -> str:
        return f"{self.run}/objects/{digest.hex}/{name}"

    @property
    def manifest(self) -> str:
        return f"{self.run}/{self.job}/parcel.manifest"

    @property
    def key(self) -> str:
        return f"{self.run}/{self.job}/key/segment.key"

    @property
    def checkpoints(self) -> str:
        """With a slash at its end."""
        return f"{self.run}/{self.job}/checkpoints/"

    @property
    def of_job(self) -> str:
        return f"{self.run}/{self.job}/"

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"


def layout_of(settings: SageMakerSettings, bucket: str, node: str, run: str, job: str) -> Layout:
    return Layout(bucket=bucket, run=f"{settings.prefix.strip('/')}/{plain(node)}/{plain(run)}", job=job)


def artifact_key(settings: SageMakerSettings, node: str, digest: Digest) -> str:
    return f"{settings.prefix.strip('/')}/{plain(node)}/{ARTIFACTS}/{digest.hex}/model.tar.gz"


def job_name(node: str, key: str) -> str:
    """1 to 63 characters of a-z, 0-9 and -, the same for the same names, another for others."""
    mark = sha256(f"{node}/{key}".encode()).hexdigest()[:12]
    words = f"{names.JOB_PREFIX}{plain(node)}-{plain(key)}"
    return f"{words[: MOST_NAME - 13].rstrip('-')}-{mark}"


def plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def request_of(order: Order, layout: Layout, settings: SageMakerSettings, clients: Clients) -> dict[str, Any]:
    """The body of CreateTrainingJob, its fingerprint among the tags."""
    kms_key = clients.kms_key()
    stopping = {"MaxRuntimeInSeconds": order.seconds}
    if order.is_spot:
        stopping["MaxWaitTimeInSeconds"] = order.seconds + math.ceil(settings.spot_wait.total_seconds())
    resources: dict[str, Any] = {
        "InstanceType": order.kind.name,
        "InstanceCount": 1,
        "VolumeSizeInGB": order.volume_gb,
    }
    if not order.kind.has_nvme:  # refused for those: their disks are encrypted in hardware
        resources["VolumeKmsKeyId"] = kms_key
    request: dict[str, Any] = {
        "TrainingJobName": order.name,
        "RoleArn": clients.role(),
        "AlgorithmSpecification": {
            "TrainingImage": order.image,
            "TrainingInputMode": "File",
            # python itself, not the images' shell: it would keep SIGTERM for itself
            "ContainerEntrypoint": [settings.python, "-I", f"{ML}/input/data/{CODE}/{TRAINER_FILE}", "carry"],
            "ContainerArguments": _arguments(order, settings),
            "MetricDefinitions": [dict(metric) for metric in METRICS],
        },
        "InputDataConfig": _channels(order, layout, settings),
        "OutputDataConfig": {"S3OutputPath": layout.uri(layout.run), "KmsKeyId": kms_key},
        "CheckpointConfig": {"S3Uri": layout.uri(layout.checkpoints.rstrip("/")), "LocalPath": CHECKPOINTS},
        "ResourceConfig": resources,
        "StoppingCondition": stopping,
        "EnableManagedSpotTraining": order.is_spot,
        "EnableNetworkIsolation": order.is_isolated,
        "Environment": {"PYTHONUNBUFFERED": "1"},
    }
    request["Tags"] = names.as_tags({**order.tags, FINGERPRINT_TAG: fingerprint(request)})
    return request


def fingerprint(request: Mapping[str, Any]) -> str:
    """Of all that was ordered, the tags apart."""
    return sha256(canonical_json({k: v for k, v in request.items() if k != "Tags"})).hexdigest()


def first_difference(ordered: Mapping[str, Any], described: Described) -> str | None:
    """The first field of the order that the job does not have so, with both values; what AWS adds does not count."""
    for name, value in ordered.items():
        if name != "Tags" and (found := _difference(name, value, described.get(name))):
            return found
    return None


class Jobs:
    """The calls. All raise LoggedOut, ConfigError, QuotaExhausted, NameTaken or BackendError."""

    def __init__(self, clients: Clients) -> None:
        self._sagemaker = clients.get("sagemaker")

    def create(self, request: Mapping[str, Any]) -> None:
        with aws_errors(f"starting the job {request['TrainingJobName']}"):
            self._sagemaker.create_training_job(**request)

    def find(self, name: str) -> Described | None:
        try:
            with aws_errors(f"asking after the job {name}"):
                described: Described = self._sagemaker.describe_training_job(TrainingJobName=name)
        except NotFound:
            return None
        return described

    def fingerprint_of(self, described: Described) -> str | None:
        with aws_errors(f"reading the tags of {described['TrainingJobName']}"):
            pages = self._sagemaker.get_paginator("list_tags").paginate(ResourceArn=described["TrainingJobArn"])
            tags = [tag for page in pages for tag in page["Tags"]]
        return names.from_tags(tags).get(FINGERPRINT_TAG)

    def stop(self, name: str) -> None:
        """Safe to repeat, also for one that has ended meanwhile."""
        try:
            with aws_errors(f"stopping the job {name}"):
                self._sagemaker.stop_training_job(TrainingJobName=name)
        except ConfigError:  # AWS's ValidationException: it has ended
            described = self.find(name)
            if described is not None and described["TrainingJobStatus"] not in (*FINAL, "Stopping"):
                raise


def _arguments(order: Order, settings: SageMakerSettings) -> list[str]:
    save_s = min(settings.save.total_seconds(), order.seconds / 2)
    words = {
        "--parcel": f"{ML}/input/data/{PARCEL}",
        "--work": f"{ML}/elias",
        "--outbox": CHECKPOINTS,
        "--expect": order.parcel,
        "--limit": f"{order.seconds - save_s:g}",
        "--model": f"{ML}/model",
        "--failure": f"{ML}/output/failure",
    }
    if order.has_key:
        words["--key"] = f"{ML}/input/data/{KEY}/segment.key"
    if settings.base_source:
        words["--base"] = f"{ML}/input/data/{BASE}"
    if order.gpus > 1:
        words["--gpus"] = str(order.gpus)
    flags = ["--resume", *(["--install"] if order.has_wheels else [])]
    return [*flags, *(word for pair in words.items() for word in pair)]


def _channels(order: Order, layout: Layout, settings: SageMakerSettings) -> list[dict[str, Any]]:
    trainer = layout.object(order.trainer, "")
    channels = [
        _channel(CODE, layout.uri(trainer)),
        _channel(PARCEL, layout.uri(layout.manifest), "ManifestFile"),
    ]
    if order.has_key:
        channels.append(_channel(KEY, layout.uri(layout.key.rpartition("/")[0] + "/")))
    if settings.base_source:
        channels.append(_channel(BASE, settings.base_source))
    return channels


def _channel(name: str, uri: str, kind: str = "S3Prefix") -> dict[str, Any]:
    source = {"S3DataType": kind, "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def _difference(path: str, ordered: Any, found: Any) -> str | None:
    if isinstance(ordered, Mapping) and isinstance(found, Mapping):
        pairs = ((f"{path}.{name}", value, found.get(name)) for name, value in ordered.items())
    elif _is_list(ordered) and _is_list(found) and len(ordered) == len(found):
        pairs = ((f"{path}[{i}]", a, b) for i, (a, b) in enumerate(zip(ordered, found, strict=True)))
    else:
        return None if ordered == found else f"{path} is {found!r} where {ordered!r} was ordered"
    return next((said for pair in pairs if (said := _difference(*pair))), None)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
