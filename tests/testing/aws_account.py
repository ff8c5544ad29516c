"""The emulated AWS account that tests of the emulator use, and the programs that its jobs run."""

from __future__ import annotations

import io
import json
import tarfile
import time
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from elias.testing.waiting import PATIENCE_S

if TYPE_CHECKING:
    from elias.testing.sagemaker_emulator import SageMakerEmulator

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
        self.change_script(name, script)
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

    def change_script(self, name: str, script: str) -> None:
        """What a job's next container finds in place of its first one's program."""
        self.s3.put_object(Bucket="models", Key=f"{name}/code/train.py", Body=script.encode())

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
        end = time.monotonic() + PATIENCE_S
        while True:
            job = self.describe(name)
            if job["TrainingJobStatus"] in statuses or job["SecondaryStatus"] in statuses:
                return job
            if job["TrainingJobStatus"] in ("Failed", "Completed", "Stopped"):
                raise AssertionError(job)
            assert time.monotonic() < end, f"{name} stays {job['SecondaryStatus']}"
            time.sleep(0.03)

    def until_said(self, name: str, text: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while text not in self.said(name):
            assert time.monotonic() < end, f"{name} never said {text!r}"
            time.sleep(0.03)

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


def refused(call: Any, *words: Any, **named: Any) -> str:
    with pytest.raises(ClientError) as error:
        call(*words, **named)
    code: str = error.value.response["Error"]["Code"]
    return f"{code}: {error.value.response['Error']['Message']}"
