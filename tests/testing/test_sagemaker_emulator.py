"""The emulator against unmodified boto3: if these fail, boto3, moto or the emulator has changed."""

import io
import json
import shutil
import tarfile
from datetime import timedelta
from pathlib import Path

import pytest

from elias.testing.sagemaker_emulator import Fault, FaultKind
from elias.testing.waiting import wait_until
from tests.testing.aws_account import REGION, RESUMES, WAITS, Account, refused


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
    wait_until(lambda: "Contents" in account.s3.list_objects_v2(Bucket="models", Prefix=key))
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
    account.disk.faults.add(Fault(kind=FaultKind.SPOT_INTERRUPTION, seconds=1800))
    account.create(account.request("on-demand", "pass"))
    account.until("on-demand", "Completed")
    account.create(account.spot("spot-fault", WAITS))
    account.until_said("spot-fault", "ready")
    account.change_script("spot-fault", "pass")
    account.disk.advance(timedelta(minutes=30))
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
