"""The bill tells by segment what AWS took, once AWS has stopped changing it."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from elias.adapters.backends.sagemaker.backend import SageMakerBackend
from elias.adapters.backends.sagemaker.names import as_tags, job_tags
from elias.errors import BackendError, Refused
from elias.ports.backend import BackendContext, HasBills
from elias.testing.emulated import write
from elias.testing.sagemaker_emulator import Fault, FaultKind
from elias.units import Money

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
MONTH = timedelta(days=30)


@pytest.fixture
def ended(account):
    """A job that ended so many days ago after so many billed seconds; it is only a record, nothing ran."""

    def make(name: str, segment: str, days_ago: float, seconds: int, node: str = "attic") -> None:
        record = {
            "TrainingJobName": name,
            "TrainingJobStatus": "Completed",
            "TrainingEndTime": (NOW - timedelta(days=days_ago)).timestamp(),
            "BillableTimeInSeconds": seconds,
            "ResourceConfig": {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1},
            "Tags": as_tags(job_tags(node, segment.rpartition("-")[0], segment)),
        }
        write(account.disk.job("us-east-1", name) / "job.json", record)

    yield make
    for folder, _ in list(account.disk.jobs()):
        (folder / "job.json").unlink()


@pytest.fixture
def backend(settings, home, watch, account):
    given = {"region": "us-east-1", "endpoint_url": settings.endpoint_url, "http_tries": 1}
    made = SageMakerBackend(BackendContext(name="sagemaker", node="attic", home=home, settings=given, clock=watch))
    yield made
    made.close()


def test_each_segment_of_this_node_has_what_was_billed(backend, ended):
    ended("elias-a", "run-1-0001", 5, 1800)
    ended("elias-b", "run-1-0002", 4, 36)
    ended("elias-c", "run-2-0001", 4, 3600, node="cellar")
    assert isinstance(backend, HasBills)
    assert backend.billed(NOW - MONTH, NOW) == {
        "run-1-0001": Money.usd("0.704"),
        "run-1-0002": Money.usd(Decimal("1.408") / 100),
    }


def test_what_aws_may_still_change_is_left_out(backend, ended, watch):
    ended("elias-a", "run-1-0001", 0.1, 1800)
    assert backend.billed(NOW - MONTH, NOW) == {}
    watch.sleep(timedelta(days=3))
    assert backend.billed(NOW - MONTH, watch.now()) == {"run-1-0001": Money.usd("0.704")}


def test_a_segment_with_an_older_day_waits_for_its_newest_one(backend, ended):
    ended("elias-a", "run-1-0001", 5, 1800)
    ended("elias-a2", "run-1-0001", 0.5, 1800)
    assert backend.billed(NOW - MONTH, NOW) == {}


def test_a_long_time_comes_in_several_pages(backend, ended, account):
    ended("elias-a", "run-1-0001", 70, 1800)
    before = len(account.disk.requests("GetCostAndUsage"))
    assert backend.billed(NOW - timedelta(days=90), NOW) == {"run-1-0001": Money.usd("0.704")}
    assert len(account.disk.requests("GetCostAndUsage")) - before == 2


def test_a_bill_that_may_not_be_read_says_which_right_is_missing(backend, monkeypatch):
    from botocore.exceptions import ClientError

    client = backend._clients.get("ce", "us-east-1")
    denied = ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "GetCostAndUsage")

    def deny(**asked: object) -> None:
        raise denied

    monkeypatch.setattr(client, "get_cost_and_usage", deny)
    with pytest.raises(Refused) as refused:
        backend.billed(NOW - MONTH, NOW)
    assert "ce:GetCostAndUsage" in refused.value.fix


def test_an_outage_is_no_empty_bill(backend, account):
    account.disk.faults.add(Fault(kind=FaultKind.SERVER_ERROR, call="GetCostAndUsage", times=9))
    with pytest.raises(BackendError, match="reading the bill"):
        backend.billed(NOW - MONTH, NOW)
