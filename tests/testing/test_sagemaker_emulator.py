"""The emulator against unmodified boto3: if these fail, boto3, moto or the emulator has changed."""

import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError

from elias.testing.sagemaker_emulator import Fault, FaultKind, SageMakerEmulator

REGION = "us-east-1"
ONE_TRY = Config(retries={"total_max_attempts": 1}, proxies={})
HELLO = """
import json, os, pathlib
ml = pathlib.Path("/opt/ml")
config = json.loads((ml / "input/config/hyperparameters.json").read_text())
text = (ml / "input/data/train/deep/corpus.txt").read_text()
print("loss=0.5")
print("loss=0.25;", text, config["rate"], os.environ["TRAINING_JOB_NAME"])
(ml / "model/answer.txt").write_text(text.upper())
(ml / "output/data/extra.txt").write_text("extra")
"""
WAITS = """
import pathlib, signal, sys, time
def end(number, frame):
    pathlib.Path("/opt/ml/model/kept").write_text("saved on SIGTERM")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("ready")
while True:
    time.sleep(0.05)
"""
# Counts on from its checkpoint; a first life never ends by itself.
RESUMES = """
import json, os, pathlib, time
here = pathlib.Path("/opt/ml/checkpoints/state.json")
state = json.loads(here.read_text()) if here.exists() else {"step": 0, "lives": 0}
state["lives"] += 1
first = state["step"]
while state["lives"] == 1 or state["step"] < first + 3:
    state["step"] += 1
    whole = here.with_suffix(".part")
    whole.write_text(json.dumps(state))
    os.replace(whole, here)
    time.sleep(0.02)
pathlib.Path("/opt/ml/model/state.json").write_text(json.dumps({**state, "resumed_at": first}))
"""


class Account:
    """Clients and a bucket in the emulated account."""

    def __init__(self, emulated: SageMakerEmulator) -> None:
        self.emulated = emulated
        self.disk = emulated.disk
        self.session = boto3.Session(aws_access_key_id="AKIATEST", aws_secret_access_key="x", region_name=REGION)
        self.sagemaker = self.client("sagemaker")
        self.s3 = self.client("s3")
        self.logs = self.client("logs")
        self.key = self.client("kms").create_key()["KeyMetadata"]["KeyId"]
        self.s3.create_bucket(Bucket="models")
        trust = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}}]}
        iam = self.client("iam")
        self.role = iam.create_role(RoleName="trainer", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]

    def client(self, service: str, config: Config = ONE_TRY, **more: Any) -> Any:
        return self.session.client(service, endpoint_url=self.emulated.url, config=config, **more)

    def request(self, name: str, script: str = HELLO, **more: Any) -> dict[str, Any]:
        self.s3.put_object(Bucket="models", Key=f"{name}/code/train.py", Body=script.encode())
        channel = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://models/{name}/code"}}
        request = {
            "TrainingJobName": name,
            "RoleArn": self.role,
            "AlgorithmSpecification": {
                "TrainingImage": "123.dkr.ecr.us-east-1.amazonaws.com/any:1",
                "TrainingInputMode": "File",
                "ContainerEntrypoint": ["python3", "/opt/ml/input/data/code/train.py"],
            },
            "InputDataConfig": [{"ChannelName": "code", "DataSource": channel}],
            "OutputDataConfig": {"S3OutputPath": "s3://models/out"},
            "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 10},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        }
        return request | more

    def spot(self, name: str, script: str, **more: Any) -> dict[str, Any]:
        limits = {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200}
        spot = {"EnableManagedSpotTraining": True, "StoppingCondition": limits}
        return self.request(name, script, **{**spot, **more})

    def create(self, request: dict[str, Any]) -> str:
        arn: str = self.sagemaker.create_training_job(**request)["TrainingJobArn"]
        return arn

    def describe(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.sagemaker.describe_training_job(TrainingJobName=name)
        return found

    def until(self, name: str, *statuses: str) -> dict[str, Any]:
        """The job once its primary or secondary status is one of these."""
        for _ in range(1000):
            job = self.describe(name)
            if job["TrainingJobStatus"] in statuses or job["SecondaryStatus"] in statuses:
                return job
            if job["TrainingJobStatus"] in ("Failed", "Completed", "Stopped"):
                raise AssertionError(job)
            time.sleep(0.03)
        raise AssertionError(f"{name} stays {job['SecondaryStatus']}")

    def until_said(self, name: str, text: str) -> None:
        for _ in range(1000):
            if text in self.said(name):
                return
            time.sleep(0.03)
        raise AssertionError(f"{name} never said {text!r}")

    def said(self, name: str) -> str:
        group = "/aws/sagemaker/TrainingJobs"
        streams = self.logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/")["logStreams"]
        events = [
            event
            for stream in streams
            for event in self.logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])["events"]
        ]
        return "\n".join(event["message"] for event in events)

    def model(self, name: str) -> dict[str, str]:
        data = self.s3.get_object(Bucket="models", Key=f"out/{name}/output/model.tar.gz")["Body"].read()
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            members = [(member, archive.extractfile(member)) for member in archive.getmembers()]
            return {member.name: file.read().decode() for member, file in members if file}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with SageMakerEmulator(tmp_path_factory.mktemp("sagemaker") / "state") as emulated:
        emulated.disk.configure(sync_s=0.02)
        # moto starts no log group by itself, and a test may look before the first job has made it
        account = Account(emulated)
        account.logs.create_log_group(logGroupName="/aws/sagemaker/TrainingJobs")
        yield account


@pytest.fixture
def account(shared: Account) -> Iterator[Account]:
    yield shared
    shared.disk.faults.clear()
    shared.disk.configure(quotas={}, prices={}, expired_keys=[], grace_s=120.0, isolation="auto")


def refused(call: Any, *words: Any, **named: Any) -> str:
    with pytest.raises(ClientError) as error:
        call(*words, **named)
    code: str = error.value.response["Error"]["Code"]
    return f"{code}: {error.value.response['Error']['Message']}"


def test_a_job_is_staged_run_logged_billed_and_its_encrypted_model_comes_back(account: Account) -> None:
    account.s3.put_object(
        Bucket="models",
        Key="data/deep/corpus.txt",
        Body=b"hello",
        ServerSideEncryption="aws:kms",
        SSEKMSKeyId=account.key,
    )
    request = account.request("whole", HyperParameters={"rate": "0.1"}, Tags=[{"Key": "run", "Value": "r1"}])
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://models/data/"}}
    request["InputDataConfig"].append({"ChannelName": "train", "DataSource": source})
    request["OutputDataConfig"]["KmsKeyId"] = account.key
    request["AlgorithmSpecification"]["MetricDefinitions"] = [{"Name": "loss", "Regex": r"loss=([0-9.]+)"}]
    arn = account.create(request)
    job = account.until("whole", "Completed")
    walked = [step["Status"] for step in job["SecondaryStatusTransitions"]]
    assert walked == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert all("EndTime" in step for step in job["SecondaryStatusTransitions"])
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == "s3://models/out/whole/output/model.tar.gz"
    assert job["BillableTimeInSeconds"] == job["TrainingTimeInSeconds"] >= 1
    assert [(m["MetricName"], m["Value"]) for m in job["FinalMetricDataList"]] == [("loss", 0.25)]
    assert "loss=0.25; hello 0.1 whole" in account.said("whole")
    assert account.model("whole") == {"answer.txt": "HELLO"}
    head = account.s3.head_object(Bucket="models", Key="out/whole/output/output.tar.gz")
    assert head["ServerSideEncryption"] == "aws:kms"
    account.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "more", "Value": "1"}])
    tags = account.sagemaker.list_tags(ResourceArn=arn)["Tags"]
    assert tags == [{"Key": "run", "Value": "r1"}, {"Key": "more", "Value": "1"}]
    listed = account.sagemaker.list_training_jobs(NameContains="whole", StatusEquals="Completed")
    assert [summary["TrainingJobName"] for summary in listed["TrainingJobSummaries"]] == ["whole"]


def test_script_mode_runs_in_the_real_toolkit_and_its_failure_is_the_reason(account: Account) -> None:
    packed = io.BytesIO()
    script = b"import sys, os\nprint('model dir', os.environ['SM_MODEL_DIR'])\nraise ValueError('no such corpus')\n"
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("train.py")
        member.size = len(script)
        archive.addfile(member, io.BytesIO(script))
    account.s3.put_object(Bucket="models", Key="sourcedir.tar.gz", Body=packed.getvalue())
    request = account.request("script-mode")
    del request["AlgorithmSpecification"]["ContainerEntrypoint"]
    submit = json.dumps("s3://models/sourcedir.tar.gz")
    request["HyperParameters"] = {"sagemaker_program": '"train.py"', "sagemaker_submit_directory": submit}
    account.create(request)
    job = account.until("script-mode", "Failed")
    assert job["FailureReason"].startswith("AlgorithmError: ExecuteUserScriptError")
    assert "exit code: 1" in job["FailureReason"]
    assert len(job["FailureReason"]) <= 1024
    said = account.said("script-mode")  # this toolkit alone leaves the traceback to the log
    assert "model dir /opt/ml/model" in said
    assert "no such corpus" in said


def test_without_namespaces_a_job_runs_below_a_base_directory(account: Account) -> None:
    account.disk.configure(isolation="base_dir")
    script = "import os, pathlib; pathlib.Path(os.environ['SAGEMAKER_BASE_DIR'], 'model/here').write_text('1')"
    account.create(account.request("base-dir", script))
    account.until("base-dir", "Completed")
    assert account.model("base-dir") == {"here": "1"}


def test_a_stopped_job_gets_sigterm_and_keeps_what_it_saves(account: Account) -> None:
    account.create(account.request("stopped", WAITS))
    account.until_said("stopped", "ready")
    account.sagemaker.stop_training_job(TrainingJobName="stopped")
    job = account.until("stopped", "Stopped")
    assert "Stopping" in [step["Status"] for step in job["SecondaryStatusTransitions"]]
    assert account.model("stopped") == {"kept": "saved on SIGTERM"}
    again = refused(account.sagemaker.stop_training_job, TrainingJobName="stopped")
    assert again.startswith("ValidationException")


def test_a_job_that_ignores_sigterm_is_killed_after_the_grace(account: Account) -> None:
    account.disk.configure(grace_s=0.1)
    account.create(account.request("stubborn", WAITS.replace("sys.exit(0)", "pass")))
    account.until_said("stubborn", "ready")
    account.sagemaker.stop_training_job(TrainingJobName="stubborn")
    account.until("stubborn", "Stopped")


def test_a_spot_job_is_interrupted_resumes_from_its_checkpoint_and_is_billed_less(account: Account) -> None:
    checkpoints = {"S3Uri": "s3://models/spot-resume/checkpoints"}
    account.create(account.spot("spot-resume", RESUMES, CheckpointConfig=checkpoints))
    key = "spot-resume/checkpoints/state.json"
    for _ in range(500):
        if "Contents" in account.s3.list_objects_v2(Bucket="models", Prefix=key):
            break
        time.sleep(0.02)
    account.disk.interrupt("spot-resume")
    account.until("spot-resume", "Interrupted", "Completed")
    job = account.until("spot-resume", "Completed")
    walked = [step["Status"] for step in job["SecondaryStatusTransitions"]]
    assert walked[2:] == ["Training", "Interrupted", "Starting", "Downloading", "Training", "Uploading", "Completed"]
    state = json.loads(account.model("spot-resume")["state.json"])
    assert state["lives"] == 2
    assert state["resumed_at"] >= 1
    assert state["step"] == state["resumed_at"] + 3
    kept = json.loads(account.s3.get_object(Bucket="models", Key=key)["Body"].read())
    assert kept["step"] == state["step"]
    assert job["BillableTimeInSeconds"] <= job["TrainingTimeInSeconds"]


def test_an_injected_interruption_comes_at_its_time_and_only_to_spot_jobs(account: Account) -> None:
    account.disk.faults.add(Fault(kind=FaultKind.SPOT_INTERRUPTION, seconds=0.05))
    account.create(account.request("on-demand", "pass"))
    account.until("on-demand", "Completed")
    once = "import time; time.sleep(0.5)"
    account.create(account.spot("spot-fault", once))
    job = account.until("spot-fault", "Completed")
    assert [step["Status"] for step in job["SecondaryStatusTransitions"]].count("Interrupted") == 1


def test_the_longest_runtime_and_the_longest_wait_end_a_job(account: Account) -> None:
    account.create(account.request("too-long", WAITS))
    account.until_said("too-long", "ready")
    account.disk.advance(timedelta(hours=2))
    job = account.until("too-long", "Stopped")
    assert job["SecondaryStatus"] == "MaxRuntimeExceeded"
    assert job["BillableTimeInSeconds"] >= 7200
    assert account.model("too-long") == {"kept": "saved on SIGTERM"}
    account.disk.faults.add(Fault(kind=FaultKind.NEVER_STARTS))
    account.create(account.spot("waits", WAITS))
    assert account.describe("waits")["SecondaryStatus"] == "Starting"
    account.disk.advance(timedelta(hours=3))
    waited = account.until("waits", "Stopped")
    assert waited["SecondaryStatus"] == "MaxWaitTimeExceeded"
    assert "BillableTimeInSeconds" not in waited


def test_a_job_without_capacity_fails_unbilled_and_one_that_never_starts_can_be_stopped(account: Account) -> None:
    account.disk.faults.add(Fault(kind=FaultKind.INSUFFICIENT_CAPACITY))
    account.create(account.request("no-room"))
    job = account.until("no-room", "Failed")
    assert job["FailureReason"].startswith("CapacityError")
    assert "TrainingTimeInSeconds" not in job
    account.disk.faults.add(Fault(kind=FaultKind.NEVER_STARTS))
    account.create(account.request("never"))
    account.sagemaker.stop_training_job(TrainingJobName="never")
    assert "TrainingStartTime" not in account.until("never", "Stopped")


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


def test_a_corrupted_model_and_a_stop_from_the_console(account: Account) -> None:
    account.disk.faults.add(Fault(kind=FaultKind.CORRUPTED_MODEL))
    account.create(account.request("corrupted", "open('/opt/ml/model/m', 'wb').write(bytes(range(256)) * 99)"))
    account.until("corrupted", "Completed")
    with pytest.raises((EOFError, tarfile.TarError)):
        account.model("corrupted")
    account.disk.faults.add(Fault(kind=FaultKind.STOPPED_FROM_CONSOLE, seconds=0.1))
    account.create(account.request("console", WAITS))
    account.until("console", "Stopped")
    assert not [entry for entry in account.disk.requests("StopTrainingJob") if "console" in str(entry["body"])]


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


def test_jobs_left_behind_by_an_emulator_are_failed_when_it_starts_again(tmp_path: Path, account: Account) -> None:
    from elias.testing.sagemaker_emulator import Disk
    from elias.testing.sagemaker_emulator.runner import recover

    account.disk.faults.add(Fault(kind=FaultKind.NEVER_STARTS))
    account.create(account.request("orphan"))
    copy = Disk(tmp_path / "copy")
    shutil.copytree(account.disk.job(REGION, "orphan"), copy.job(REGION, "orphan"))
    recover(copy)
    ((_, record),) = copy.jobs()
    assert (record["TrainingJobStatus"], "the emulator was ended" in record["FailureReason"]) == ("Failed", True)
    account.disk.stop("orphan")
    account.until("orphan", "Stopped")
