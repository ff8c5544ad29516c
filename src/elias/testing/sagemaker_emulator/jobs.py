"""The training-job calls: create, describe, stop, list, tags."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from elias.testing.emulated import Json, read, write
from elias.testing.sagemaker_emulator.answers import CallError
from elias.testing.sagemaker_emulator.catalog import Catalog, paged
from elias.testing.sagemaker_emulator.checks import (
    check_inputs,
    check_quota,
    check_request,
    check_role,
    limit_exceeded,
)
from elias.testing.sagemaker_emulator.clients import Clients
from elias.testing.sagemaker_emulator.disk import FINAL, Disk
from elias.testing.sagemaker_emulator.faults import JOB_FAULTS, Fault, FaultKind
from elias.testing.sagemaker_emulator.runner import Runners
from elias.testing.sagemaker_emulator.status import move

ACCOUNT = "123456789012"
"""Moto's."""
HIDDEN = ("Tags", "Metrics", "TrainedSeconds", "Fault")
"""Members of a record that DescribeTrainingJob does not tell."""
OUTSIDE = ("AddTags", "ListTags", "DeleteTags")
SORT_KEYS: dict[str, Callable[[Json], Any]] = {
    "Name": lambda record: record["TrainingJobName"],
    "CreationTime": lambda record: record["CreationTime"],
    "Status": lambda record: record["TrainingJobStatus"],
}


class Jobs:
    def __init__(self, disk: Disk, catalog: Catalog, clients: Clients, runners: Runners) -> None:
        self._disk = disk
        self._catalog = catalog
        self._clients = clients
        self._runners = runners

    def create_training_job(self, body: Json, region: str) -> Json:
        check_request(body)
        name, spot = body["TrainingJobName"], bool(body.get("EnableManagedSpotTraining"))
        arn = f"arn:aws:sagemaker:{region}:{ACCOUNT}:training-job/{name}"
        folder = self._disk.job(region, name)
        if self._disk.faults.take("CreateTrainingJob", lambda f: f.kind is FaultKind.RESOURCE_LIMIT):
            raise limit_exceeded(body["ResourceConfig"]["InstanceType"], spot=spot, figures=(0, 0, 1))
        check_role(self._clients.iam(region), body["RoleArn"])
        check_inputs(self._clients.stage(region), body, region)
        with self._disk.lock:
            if (folder / "job.json").exists():
                raise CallError(
                    "ResourceInUse",
                    "Training job names must be unique within an AWS account and region, and a training job with this "
                    f"name already exists ({arn})",
                )
            check_quota(self._disk, self._catalog, body, region)
            fault = self._disk.faults.take("CreateTrainingJob", lambda f: _is_for_job(f, spot=spot))
            write(folder / "request.json", body)
            write(folder / "job.json", self._new_record(body, arn, fault))
        self._runners.start(folder, region)
        return {"TrainingJobArn": arn}

    def describe_training_job(self, body: Json, region: str) -> Json:
        record = self._record(body["TrainingJobName"], region)
        return {key: value for key, value in record.items() if key not in HIDDEN and value is not None}

    def stop_training_job(self, body: Json, region: str) -> Json:
        """Safe to repeat while the job is stopping."""
        folder = self._disk.job(region, body["TrainingJobName"])
        with self._disk.lock:
            status = self._record(body["TrainingJobName"], region)["TrainingJobStatus"]
            if status in FINAL:
                raise CallError(
                    "ValidationException",
                    f"The request was rejected because the training job is in status {status}.",
                )
            if status != "Stopping":
                self._disk.update(folder, lambda record: move(record, "Stopping", self._disk.time()))
                self._disk.order(folder, "stop")
        return {}

    def list_training_jobs(self, body: Json, region: str) -> Json:
        found = [record for _, record in self._disk.jobs(region) if _is_wanted(record, body)]
        found.sort(
            key=SORT_KEYS[body.get("SortBy", "CreationTime")],
            reverse=body.get("SortOrder", "Descending") != "Ascending",
        )
        page, token = paged(found, body, 10)
        told = (
            "TrainingJobName",
            "TrainingJobArn",
            "CreationTime",
            "TrainingEndTime",
            "LastModifiedTime",
            "TrainingJobStatus",
            "SecondaryStatus",
        )
        return {"TrainingJobSummaries": [{key: r[key] for key in told if key in r} for r in page]} | token

    def add_tags(self, body: Json, region: str) -> Json:
        new = {tag["Key"]: tag for tag in body["Tags"]}

        def change(record: Json) -> None:
            record["Tags"] = list(({tag["Key"]: tag for tag in record["Tags"]} | new).values())
            if len(record["Tags"]) > 50:
                raise CallError("ResourceLimitExceeded", "A resource can have at most 50 tags")

        record = self._disk.update(self._by_arn(body["ResourceArn"], region), change)
        return {"Tags": record["Tags"]}

    def list_tags(self, body: Json, region: str) -> Json:
        record = read(self._by_arn(body["ResourceArn"], region) / "job.json") or {}
        page, token = paged(record["Tags"], body, 50)
        return {"Tags": page} | token

    def delete_tags(self, body: Json, region: str) -> Json:
        def change(record: Json) -> None:
            record["Tags"] = [tag for tag in record["Tags"] if tag["Key"] not in body["TagKeys"]]

        self._disk.update(self._by_arn(body["ResourceArn"], region), change)
        return {}

    def _record(self, name: str, region: str) -> Json:
        record = read(self._disk.job(region, name) / "job.json")
        if record is None:
            raise CallError("ValidationException", "Requested resource not found.")
        return record

    def _by_arn(self, arn: str, region: str) -> Any:
        name = arn.rpartition("/")[2]
        self._record(name, region)
        return self._disk.job(region, name)

    def _new_record(self, body: Json, arn: str, fault: Fault | None) -> Json:
        now = self._disk.time()
        kept = {key: value for key, value in body.items() if value is not None}
        record = kept | {
            "TrainingJobArn": arn,
            "CreationTime": now,
            "LastModifiedTime": now,
            "StoppingCondition": {"MaxRuntimeInSeconds": 86_400} | body.get("StoppingCondition", {}),
            "EnableNetworkIsolation": body.get("EnableNetworkIsolation", False),
            "EnableInterContainerTrafficEncryption": body.get("EnableInterContainerTrafficEncryption", False),
            "EnableManagedSpotTraining": body.get("EnableManagedSpotTraining", False),
            "SecondaryStatusTransitions": [],
            "Tags": body.get("Tags", []),
            "Metrics": {},
            "TrainedSeconds": 0.0,
            "Fault": {"kind": fault.kind, "seconds": fault.seconds} if fault else None,
        }
        if fault and fault.kind is FaultKind.DROPPED_SPOT:
            record["EnableManagedSpotTraining"] = False
            record["StoppingCondition"].pop("MaxWaitTimeInSeconds", None)
        move(record, "Starting", now)
        return record


def is_about_a_job(operation: str, body: Json) -> bool:
    """Whether a SageMaker call is answered here; moto answers for all that has to do with no training job."""
    if operation in OUTSIDE:
        return ":training-job/" in str(body.get("ResourceArn"))
    return ("TrainingJob" in operation and "HyperParameter" not in operation) or body.get("Resource") == "TrainingJob"


def _is_for_job(fault: Fault, *, spot: bool) -> bool:
    needs_spot = (FaultKind.SPOT_INTERRUPTION, FaultKind.DROPPED_SPOT)
    return fault.kind in JOB_FAULTS and (spot or fault.kind not in needs_spot)


def _is_wanted(record: Json, body: Json) -> bool:
    created, modified = record["CreationTime"], record["LastModifiedTime"]
    return (
        body.get("NameContains", "").lower() in record["TrainingJobName"].lower()
        and body.get("StatusEquals") in (None, record["TrainingJobStatus"])
        and body.get("CreationTimeAfter", 0) <= created <= body.get("CreationTimeBefore", created)
        and body.get("LastModifiedTimeAfter", 0) <= modified <= body.get("LastModifiedTimeBefore", modified)
    )
