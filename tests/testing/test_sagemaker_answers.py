"""What the emulated SageMaker refuses, lists and says, to unmodified boto3 and `aws`."""

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ConnectionClosedError

from elias.testing.sagemaker_emulator import Fault, FaultKind
from tests.testing.aws_account import REGION, Account, refused


def test_a_quota_refuses_and_so_does_the_fault(account: Account) -> None:
    account.disk.configure(quotas={"ml.g5.2xlarge:spot": 0})
    request = account.spot("quota", "pass")
    request["ResourceConfig"]["InstanceType"] = "ml.g5.2xlarge"
    error = refused(account.create, request)
    assert error.startswith("ResourceLimitExceeded: The account-level service limit 'ml.g5.2xlarge for spot")
    quotas = account.client("service-quotas")
    quota = quotas.get_service_quota(ServiceCode="sagemaker", QuotaCode="L-CAEE7DB7")["Quota"]
    assert (quota["QuotaName"], quota["Value"]) == ("ml.g5.2xlarge for spot training job usage", 0.0)
    pages = quotas.get_paginator("list_service_quotas").paginate(ServiceCode="sagemaker")
    assert "L-2D6DEB3C" in [entry["QuotaCode"] for page in pages for entry in page["Quotas"]]
    account.disk.faults.add(Fault(kind=FaultKind.RESOURCE_LIMIT))
    assert refused(account.create, account.request("limited")).startswith("ResourceLimitExceeded")


def test_the_price_list_is_filtered_and_speaks_from_us_east_1(account: Account) -> None:
    account.disk.configure(prices={"ml.g5.xlarge": "1.40"})
    wanted = {"Type": "TERM_MATCH", "Field": "usagetype", "Value": "USE1-Train:ml.g5.xlarge"}
    found = account.client("pricing").get_products(ServiceCode="AmazonSageMaker", Filters=[wanted])["PriceList"]
    (term,) = json.loads(found[0])["terms"]["OnDemand"].values()
    (dimension,) = term["priceDimensions"].values()
    assert (len(found), dimension["pricePerUnit"], dimension["unit"]) == (1, {"USD": "1.40"}, "Hrs")
    elsewhere = account.client("pricing", region_name="eu-west-1")
    assert "no endpoint in eu-west-1" in refused(elsewhere.get_products, ServiceCode="AmazonSageMaker")


def test_a_lost_answer_leaves_the_job_running_and_its_name_taken(account: Account) -> None:
    account.disk.faults.add(Fault(kind=FaultKind.LOST_ANSWER))
    request = account.request("lost", "print('ran')")
    with pytest.raises(ConnectionClosedError):
        account.create(request)
    assert refused(account.create, request).startswith("ResourceInUse: Training job names must be unique")
    account.until("lost", "Completed")
    assert len(account.disk.requests("CreateTrainingJob")) >= 2


def test_throttling_is_answered_and_retried_by_boto_itself(account: Account) -> None:
    account.disk.faults.add(Fault(kind=FaultKind.THROTTLED, call="ListTrainingJobs"))
    assert refused(account.sagemaker.list_training_jobs) == "ThrottlingException: Rate exceeded"
    account.disk.faults.add(Fault(kind=FaultKind.THROTTLED, call="s3.GET"))
    assert refused(account.s3.list_buckets).startswith("SlowDown")
    account.disk.faults.add(Fault(kind=FaultKind.THROTTLED, call="ListTrainingJobs"))
    patient = account.client("sagemaker", Config(retries={"mode": "standard"}, proxies={}))
    assert patient.list_training_jobs()["ResponseMetadata"]["RetryAttempts"] == 1


def test_expired_credentials_are_refused_by_every_service(account: Account) -> None:
    account.disk.configure(expired_keys=["AKIATEST"])
    assert refused(account.sagemaker.list_training_jobs).startswith("ExpiredTokenException")
    assert refused(account.s3.list_buckets).startswith("ExpiredToken")
    assert refused(account.client("sts").get_caller_identity).startswith("ExpiredToken")
    account.disk.configure(expired_keys=[])
    account.disk.faults.add(Fault(kind=FaultKind.EXPIRED_CREDENTIALS, call="DescribeTrainingJob"))
    assert refused(account.describe, "any").startswith("ExpiredTokenException")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"TrainingJobName": "under_score"}, "regular expression pattern"),
        ({"Nonsense": 1}, "Member 'Nonsense' is not known"),
        ({"RoleArn": None}, "'roleArn' failed to satisfy constraint: Member must not be null"),
        ({"HyperParameters": {"a": "x" * 2501}}, "length less than or equal to 2500"),
        ({"ResourceConfig": {"InstanceType": "ml.g99.xlarge", "InstanceCount": 1}}, "enum value set"),
        ({"EnableManagedSpotTraining": True}, "Invalid MaxWaitTimeInSeconds"),
        ({"RoleArn": "arn:aws:iam::123456789012:role/nobody"}, "Could not assume role"),
        (
            {"ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1, "VolumeKmsKeyId": "k"}},
            "VolumeKmsKeyId is not supported",
        ),
        ({"ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 2}}, "emulated: more than one instance"),
    ],
)
def test_a_request_that_sagemaker_would_refuse_is_refused(
    change: dict[str, Any], complaint: str, account: Account
) -> None:
    unchecked = account.client("sagemaker", Config(parameter_validation=False, retries={"total_max_attempts": 1}))
    # boto3 drops what its model does not know, so an unknown member has to be put on the wire behind its back

    def add(params: dict[str, Any], **rest: Any) -> None:
        if "Nonsense" in change:
            params["body"] = json.dumps(json.loads(params["body"]) | change).encode()

    unchecked.meta.events.register("before-call.sagemaker.CreateTrainingJob", add)
    sent = {key: value for key, value in (account.request("refused") | change).items() if value is not None}
    sent.pop("Nonsense", None)
    assert complaint in refused(unchecked.create_training_job, **sent)


def test_missing_inputs_and_unknown_jobs_are_named(account: Account) -> None:
    request = account.request("no-inputs")
    request["InputDataConfig"][0]["DataSource"]["S3DataSource"]["S3Uri"] = "s3://models/nothing/"
    assert 'No S3 objects found under S3 URL "s3://models/nothing/"' in refused(account.create, request)
    assert refused(account.describe, "nobody") == "ValidationException: Requested resource not found."


def test_an_unmodified_aws_command_line_reads_what_was_made(account: Account, tmp_path: Path) -> None:
    aws = shutil.which("aws")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "AWS_ACCESS_KEY_ID": "AKIATEST",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": account.emulated.url,
    }
    if aws is None or subprocess.run([aws, "--version"], capture_output=True, env=environment, check=False).returncode:
        pytest.skip("the aws command line is not installed")
    account.create(account.request("for-aws", "open('/opt/ml/model/m', 'w').write('model')"))
    account.until("for-aws", "Completed")

    def answer(*words: str) -> str:
        done = subprocess.run([aws, *words], capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = json.loads(answer("sagemaker", "list-training-jobs", "--name-contains", "for-aws"))
    assert listed["TrainingJobSummaries"][0]["TrainingJobStatus"] == "Completed"
    target = tmp_path / "model.tar.gz"
    answer("s3", "cp", "s3://models/out/for-aws/output/model.tar.gz", str(target))
    with tarfile.open(target) as archive:
        assert archive.getnames() == ["m"]
