"""What SageMaker checks of a new job beyond the shape of its request, each with the error that it answers."""

from __future__ import annotations

import json
import urllib.parse
from typing import Any

from botocore.exceptions import ClientError

from elias.testing.emulated import Json
from elias.testing.sagemaker_emulator.answers import CallError
from elias.testing.sagemaker_emulator.catalog import Catalog, quota_name
from elias.testing.sagemaker_emulator.disk import FINAL, Disk
from elias.testing.sagemaker_emulator.staging import Channel, Stage

NVME = ("ml.g4dn.", "ml.g5.", "ml.g6.", "ml.g6e.", "ml.g7", "ml.p3dn.", "ml.p4", "ml.p5", "ml.p6")
"""Types whose disks are encrypted in hardware, so that a key for the volume is refused."""


def check_request(body: Json) -> None:
    """The rules between members; raises CallError."""
    resources, limits = body.get("ResourceConfig", {}), body.get("StoppingCondition", {})
    algorithm = body.get("AlgorithmSpecification", {})
    if not resources.get("InstanceType") or not resources.get("InstanceCount"):
        raise _invalid("ResourceConfig must name InstanceType and InstanceCount")
    if not algorithm.get("TrainingImage"):
        raise _invalid("AlgorithmSpecification must name TrainingImage (emulated: AlgorithmName is not)")
    if resources.get("VolumeKmsKeyId") and resources["InstanceType"].startswith(NVME):
        raise _invalid(f"VolumeKmsKeyId is not supported for the instance type {resources['InstanceType']}")
    run_s, wait_s = limits.get("MaxRuntimeInSeconds", 86_400), limits.get("MaxWaitTimeInSeconds")
    if body.get("EnableManagedSpotTraining"):
        if wait_s is None or wait_s < run_s:
            raise _invalid(
                "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds"
            )
    elif wait_s is not None:
        raise _invalid("MaxWaitTimeInSeconds above 0 is not supported for on-demand training jobs")
    names = [channel["ChannelName"] for channel in body.get("InputDataConfig", [])]
    if len(set(names)) < len(names):
        raise _invalid(f"Channel names must be unique: {names}")
    _check_emulated(body)


def check_quota(disk: Disk, catalog: Catalog, body: Json, region: str) -> None:
    """Against the jobs that run now; raises CallError."""
    resources, spot = body["ResourceConfig"], bool(body.get("EnableManagedSpotTraining"))
    instance, delta = resources["InstanceType"], resources["InstanceCount"]
    used = sum(
        int(record["ResourceConfig"]["InstanceCount"])
        for _, record in disk.jobs(region)
        if record["TrainingJobStatus"] not in FINAL
        and record["ResourceConfig"]["InstanceType"] == instance
        and bool(record.get("EnableManagedSpotTraining")) is spot
    )
    allowed = catalog.allowed(instance, spot=spot)
    if used + delta > allowed:
        raise limit_exceeded(instance, spot=spot, figures=(allowed, used, delta))


def limit_exceeded(instance: str, *, spot: bool, figures: tuple[int, int, int]) -> CallError:
    """`figures`: instances allowed, in use, asked for."""
    allowed, used, delta = figures
    return CallError(
        "ResourceLimitExceeded",
        f"The account-level service limit '{quota_name(instance, spot=spot)}' is {allowed} Instances, with current "
        f"utilization of {used} Instances and a request delta of {delta} Instances. Please use AWS Service Quotas to "
        "request an increase for this quota. If AWS Service Quotas is not available, contact AWS support to request "
        "an increase for this quota.",
    )


def check_role(iam: Any, arn: str) -> None:
    """The role exists and lets SageMaker assume it; raises CallError."""
    refused = _invalid(
        f"Could not assume role {arn}. Please ensure that the role exists and allows principal "
        "'sagemaker.amazonaws.com' to assume the role."
    )
    try:
        trust = iam.get_role(RoleName=arn.rpartition("/")[2])["Role"]["AssumeRolePolicyDocument"]
    except iam.exceptions.NoSuchEntityException as error:
        raise refused from error
    text = json.dumps(trust) if isinstance(trust, dict) else urllib.parse.unquote(trust)
    if "sagemaker.amazonaws.com" not in text:
        raise refused


def check_inputs(stage: Stage, body: Json, region: str) -> None:
    """Each channel has at least one object; raises CallError."""
    for raw in body.get("InputDataConfig", []):
        channel = Channel.of(raw)
        try:
            found = stage.objects(channel)
        except ClientError as error:
            found, cause = [], error
        else:
            cause = None
        if not found:
            raise _invalid(
                f'No S3 objects found under S3 URL "{channel.uri}" given in input data source. Please ensure that the '
                f"bucket exists in the selected region ({region}), that objects exist under that S3 prefix, and that "
                f'the role "{body["RoleArn"]}" has "s3:ListBucket" permissions on the bucket.'
            ) from cause


def _check_emulated(body: Json) -> None:
    """What real SageMaker does and the emulator does not is refused, not ignored."""
    resources = body["ResourceConfig"]
    modes = {body["AlgorithmSpecification"]["TrainingInputMode"]}
    modes |= {channel.get("InputMode", "File") for channel in body.get("InputDataConfig", [])}
    local = body.get("CheckpointConfig", {}).get("LocalPath", "/opt/ml/checkpoints")
    kinds = {c["DataSource"].get("S3DataSource", {}).get("S3DataType") for c in body.get("InputDataConfig", [])}
    missing = [
        (resources["InstanceCount"] > 1 or "InstanceGroups" in resources, "more than one instance"),
        ("Pipe" in modes, "Pipe mode"),
        (not local.startswith("/opt/ml/"), "a checkpoint path outside /opt/ml"),
        (not kinds <= {"S3Prefix", "ManifestFile"}, "channels other than S3Prefix and ManifestFile"),
        ("ServerlessJobConfig" in body, "serverless jobs"),
    ]
    for is_asked, what in missing:
        if is_asked:
            raise CallError("ValidationException", f"emulated: {what} is not emulated", 501)


def _invalid(message: str) -> CallError:
    return CallError("ValidationException", message)
