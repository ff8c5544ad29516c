"""Quotas are read by name and code, and a request for more names both."""

from datetime import timedelta

import pytest

from elias.adapters.backends.sagemaker.quotas import Quotas
from elias.testing.sagemaker_emulator import Fault, FaultKind


@pytest.fixture
def quotas(clients, account, home, watch):
    return Quotas(lambda: clients.get("service-quotas"), "us-east-1", home, watch)


def test_spot_and_on_demand_are_separate(quotas, account):
    account.disk.configure(quotas={"ml.g5.2xlarge:spot": 3, "ml.g5.2xlarge": 1})
    found = quotas.all()
    assert (found["ml.g5.2xlarge", True].value, found["ml.g5.2xlarge", False].value) == (3, 1)
    assert (found["ml.g5.2xlarge", True].code, found["ml.g5.2xlarge", False].code) == ("L-CAEE7DB7", "L-2D6DEB3C")


def test_the_list_is_kept_for_an_hour_and_one_quota_is_read_live(quotas, account, watch):
    account.disk.configure(quotas={"ml.g5.2xlarge": 0})
    assert quotas.all()["ml.g5.2xlarge", False].value == 0
    account.disk.configure(quotas={"ml.g5.2xlarge": 2})
    assert quotas.all()["ml.g5.2xlarge", False].value == 0
    watch.sleep(timedelta(minutes=11))
    assert quotas.now("ml.g5.2xlarge", is_spot=False).value == 2
    account.disk.configure(quotas={"ml.g5.2xlarge": 3})
    assert quotas.now("ml.g5.2xlarge", is_spot=False).value == 2, "not asked again within minutes"
    watch.sleep(timedelta(hours=1, seconds=1))
    assert quotas.all()["ml.g5.2xlarge", False].value == 3


def test_a_quota_nobody_may_read_is_unknown_and_not_zero(quotas, account):
    account.disk.faults.add(Fault(kind=FaultKind.SERVER_ERROR, call="ListServiceQuotas", times=99))
    account.disk.faults.add(Fault(kind=FaultKind.SERVER_ERROR, call="GetServiceQuota", times=99))
    assert quotas.now("ml.g5.2xlarge", is_spot=True).value is None
    assert quotas.now("ml.g5.xlarge", is_spot=True).code is None
    assert "cannot be read" in quotas.note


def test_a_request_names_the_code_the_command_and_the_page(quotas):
    asked = quotas.now("ml.g5.2xlarge", is_spot=True).request("us-east-1")
    assert "request-service-quota-increase --service-code sagemaker --quota-code L-CAEE7DB7" in asked
    assert "servicequotas/home/services/sagemaker/quotas/L-CAEE7DB7" in asked
