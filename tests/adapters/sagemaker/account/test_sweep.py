"""Every job, prefix and key with ELIAS's marks is found; a job of another node or another program never."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from elias.adapters.backends.sagemaker.backend import SageMakerBackend
from elias.adapters.backends.sagemaker.client import Clients
from elias.adapters.backends.sagemaker.names import KEY_ALIAS, NODE_TAG, SETUP_TAGS, as_tags, bucket_name, job_tags
from elias.adapters.backends.sagemaker.sweep import Sweep
from elias.adapters.stores.database import open_database
from elias.adapters.stores.runs import SqlRunStore
from elias.domain.holding import HoldingKind
from elias.domain.run import RunState, Segment, SegmentState
from elias.ports.backend import BackendContext, HasHoldings
from elias.services.orphans import Orphans
from elias.testing.nouns import a_run
from elias.testing.sagemaker_emulator import Fault, FaultKind
from elias.testing.waiting import wait_until

BUCKET = bucket_name("123456789012", "us-east-1")


@pytest.fixture(scope="module")
def role(emulated) -> str:
    """Bucket, key and role, as set-up makes them, without its other parts."""
    from elias.adapters.backends.sagemaker.settings import SageMakerSettings

    clients = Clients(SageMakerSettings(region="us-east-1", endpoint_url=emulated.url, http_tries=1))
    clients.get("s3").create_bucket(Bucket=BUCKET)
    clients.get("s3").put_object(Bucket=BUCKET, Key="code/x", Body=b"x")
    kms = clients.get("kms")
    for alias in (KEY_ALIAS, "alias/left-over"):
        key = kms.create_key(Tags=as_tags(SETUP_TAGS, "TagKey", "TagValue"))["KeyMetadata"]["KeyId"]
        kms.create_alias(AliasName=alias, TargetKeyId=key)
    kms.create_alias(AliasName="alias/strangers", TargetKeyId=kms.create_key()["KeyMetadata"]["KeyId"])
    trust = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}}]}
    made = clients.get("iam").create_role(RoleName="trainer", AssumeRolePolicyDocument=json.dumps(trust))
    clients.close()
    return str(made["Role"]["Arn"])


@pytest.fixture
def start(clients, account, role):
    """A job that stays in Starting until it is stopped, with these tags."""
    started = []

    def make(name: str, tags: dict[str, str]) -> str:
        account.disk.faults.add(Fault(kind=FaultKind.NEVER_STARTS))
        source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{BUCKET}/code"}}
        clients.get("sagemaker").create_training_job(
            TrainingJobName=name,
            RoleArn=role,
            AlgorithmSpecification={
                "TrainingImage": "1.dkr.ecr.us-east-1.amazonaws.com/x:1",
                "TrainingInputMode": "File",
            },
            InputDataConfig=[{"ChannelName": "code", "DataSource": source}],
            OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/out"},
            ResourceConfig={"InstanceType": "ml.g5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 10},
            StoppingCondition={"MaxRuntimeInSeconds": 3600},
            Tags=as_tags(tags),
        )
        started.append(name)
        return name

    yield make
    for name in started:
        Sweep(clients, None).stop(name)
        wait_until(lambda name=name: name not in [job.name for job in Sweep(clients, None).jobs()])


@pytest.fixture
def runs(tmp_path: Path):
    database = open_database(None, tmp_path / "elias.db")
    yield SqlRunStore(database)
    database.close()


@pytest.fixture
def orphans(settings, home, watch, runs, account):
    """What the node `attic` finds; `more` are settings."""

    def make(node: str = "attic", **more: object) -> Orphans:
        given = {"region": "us-east-1", "endpoint_url": settings.endpoint_url, "http_tries": 1} | more
        context = BackendContext(name="sagemaker", node=node, home=home, settings=given, clock=watch)
        backend = SageMakerBackend(context)
        return Orphans(lambda: {"sagemaker": backend}, runs, watch)

    return make


def own(runs, run_id: str, state: SegmentState = SegmentState.RUNNING, run_state: RunState = RunState.RUNNING) -> str:
    runs.add(replace(a_run(), id=run_id, state=run_state))
    segment = Segment(run=run_id, number=1, backend="sagemaker", state=state)
    runs.put_segment(segment)
    return segment.key


def test_jobs_of_this_node_are_found_with_run_price_and_latest_end(clients, start):
    start("elias-attic-1", job_tags("attic", "run-1", "run-1-0001"))
    start("elias-cellar-1", job_tags("cellar", "run-2", "run-2-0001"))
    start("elias-strange", {"team": "x"})
    start("somebody-elias-attic", job_tags("attic", "run-3", "run-3-0001"))
    (job,) = Sweep(clients, "attic").jobs()
    assert (job.name, job.run, job.segment) == ("elias-attic-1", "run-1", "run-1-0001")
    assert str(job.hourly) == "$1.41"
    assert job.ends_by - job.since == timedelta(hours=1)
    assert {job.name for job in Sweep(clients, None).jobs()} == {"elias-attic-1", "elias-cellar-1"}


def test_files_are_measured_with_all_their_versions_and_artifacts_are_no_run(clients, account, role):
    s3 = clients.get("s3")
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    for body in (b"12345", b"1234567"):
        s3.put_object(Bucket=BUCKET, Key="elias/attic/run-9/job/checkpoints/step-1/x", Body=body)
    s3.put_object(Bucket=BUCKET, Key="elias/attic/artifacts/ab/model.tar.gz", Body=b"1")
    s3.put_object(Bucket=BUCKET, Key="elias/cellar/run-8/x", Body=b"1")
    found = [h for h in Sweep(clients, "attic").holdings() if h.kind is HoldingKind.FILES]
    assert [(h.run, h.detail) for h in found] == [("run-9", "files and old versions: 2, 0.0 MB")]
    assert {(run.node, run.run) for run in Sweep(clients, None).runs()} == {("attic", "run-9"), ("cellar", "run-8")}


def test_the_key_in_use_belongs_to_the_set_up_and_another_of_ours_is_left_over(clients, account, role):
    keys = {h.name: h.is_set_up for h in Sweep(clients, "attic").holdings() if h.kind is HoldingKind.KEY}
    assert keys == {KEY_ALIAS: True, "alias/left-over": False}


def test_without_a_bucket_there_are_no_files(settings, account, role):
    elsewhere = Clients(replace(settings, bucket="elias-nowhere"))
    assert list(Sweep(elsewhere, "attic").runs()) == []


def test_a_job_whose_segment_is_under_way_is_no_orphan(orphans, start, runs):
    job = start("elias-attic-2", job_tags("attic", "run-20", own(runs, "run-20")))
    (look,) = orphans().look()
    assert job in [holding.name for holding in look.jobs]
    assert job not in [orphan.holding.name for orphan in look.orphans]


@pytest.mark.parametrize("known", ["not at all", "ended"])
def test_a_job_that_no_run_waits_for_is_reported_and_left_alone(orphans, start, runs, known):
    key = own(runs, "run-30", SegmentState.FAILED) if known == "ended" else "run-30-0001"
    job = start(f"elias-attic-3-{known[:3]}", job_tags("attic", "run-30", key))
    watching = orphans()
    looks = [watching.look()[0] for _ in range(3)]
    assert all(job in [orphan.holding.name for orphan in look.orphans] for look in looks)
    assert not any(look.stopped for look in looks)


def test_where_the_user_says_so_an_orphan_is_stopped_once_it_is_old_enough_and_seen_twice(
    orphans, start, watch, clients
):
    job = start("elias-attic-4", job_tags("attic", "run-40", "run-40-0001"))
    watching = orphans(stop_orphans=True, orphan_grace="30m")
    (created,) = [holding.since for holding in Sweep(clients, "attic").jobs() if holding.name == job]
    watch.at = created + timedelta(minutes=29)
    assert [watching.look()[0].stopped for _ in range(3)] == [(), (), ()]
    watch.at = created + timedelta(minutes=31)
    assert watching.look()[0].stopped == (job,)
    wait_until(lambda: job not in [holding.name for holding in watching.look()[0].jobs])


def test_one_look_is_never_enough_to_stop_a_job(orphans, start, watch, clients):
    job = start("elias-attic-5", job_tags("attic", "run-50", "run-50-0001"))
    watch.at = max(holding.since for holding in Sweep(clients, "attic").jobs()) + timedelta(days=400)
    watching = orphans(stop_orphans=True)
    assert watching.look()[0].stopped == ()
    assert watching.look()[0].stopped == (job,)


def test_a_node_without_a_name_of_its_own_stops_nothing_that_it_did_not_begin(orphans, start, watch, clients):
    start("elias-node-6", job_tags("node", "run-60", "run-60-0001"))
    watch.at = max(holding.since for holding in Sweep(clients, "node").jobs()) + timedelta(days=400)
    watching = orphans(node="node", stop_orphans=True)
    looks = [watching.look()[0] for _ in range(3)]
    assert [len(look.orphans) for look in looks if any(o.holding.kind == "job" for o in look.orphans)]
    assert not any(look.stopped for look in looks)


def test_a_place_that_cannot_be_asked_says_so_and_stops_nothing(orphans, account):
    account.disk.configure(expired_keys=["AKIATEST"])
    (look,) = orphans(stop_orphans=True).look()
    assert "expired" in look.trouble and look.holdings == ()


def test_the_backend_has_the_power(settings, home, watch):
    context = BackendContext(name="sagemaker", node="attic", home=home, settings={"region": "us-east-1"}, clock=watch)
    assert isinstance(SageMakerBackend(context), HasHoldings)


def test_the_tag_that_names_the_node_is_the_one_that_jobs_carry():
    assert job_tags("attic", "run", "segment")[NODE_TAG] == "attic"
