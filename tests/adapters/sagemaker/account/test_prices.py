"""Prices come from the live list, once a day; from the shipped table only where it cannot be read, and it says so."""

from datetime import timedelta

import pytest

from elias.adapters.backends.sagemaker.client import LoggedOut
from elias.adapters.backends.sagemaker.prices import LIST_REGION, Prices
from elias.testing.sagemaker_emulator import Fault, FaultKind
from elias.units import Money

TYPES = ["ml.g5.xlarge", "ml.g5.2xlarge"]


@pytest.fixture
def prices(clients, account, home, watch):
    return Prices(lambda: clients.get("pricing", LIST_REGION), "us-east-1", home, watch)


def asked(account):
    return len(account.disk.requests("GetProducts"))


def test_a_live_price_overrules_the_shipped_one(prices, account):
    account.disk.configure(prices={"ml.g5.xlarge": "1.5001"})
    found = prices.all(TYPES)["ml.g5.xlarge"]
    assert found.hourly == Money.usd("1.5001")
    assert found.is_live and "price list" in found.source
    assert prices.note is None


def test_the_list_is_read_once_a_day(prices, account, watch):
    before = asked(account)
    prices.all(TYPES)
    prices.all(TYPES)
    assert asked(account) - before == len(TYPES)
    watch.sleep(timedelta(days=1, seconds=1))
    account.disk.configure(prices={"ml.g5.xlarge": "1.9"})
    assert prices.all(TYPES)["ml.g5.xlarge"].hourly == Money.usd("1.9")


def test_another_process_of_the_node_finds_what_was_read(prices, clients, account, home, watch):
    prices.all(TYPES)
    before = asked(account)
    again = Prices(lambda: clients.get("pricing", LIST_REGION), "us-east-1", home, watch)
    assert again.all(TYPES) == prices.all(TYPES)
    assert asked(account) == before


def test_a_list_that_cannot_be_read_leaves_the_dated_table_and_says_so(prices, account):
    account.disk.faults.add(Fault(kind=FaultKind.SERVER_ERROR, call="GetProducts", times=99))
    found = prices.all(TYPES)["ml.g5.xlarge"]
    assert found.hourly == Money.usd("1.408")
    assert not found.is_live and "2026-09-25" in found.source
    assert "shipped table" in prices.note


def test_an_old_reading_is_better_than_the_table_and_says_its_age(prices, account, watch):
    account.disk.configure(prices={"ml.g5.xlarge": "1.77"})
    prices.all(TYPES)
    watch.sleep(timedelta(days=3))
    account.disk.faults.add(Fault(kind=FaultKind.SERVER_ERROR, call="GetProducts", times=99))
    assert prices.all(TYPES)["ml.g5.xlarge"].hourly == Money.usd("1.77")
    assert "2026-11-24" in prices.note


def test_a_broken_cache_is_read_anew(prices, home):
    home.mkdir()
    (home / "prices-us-east-1.json").write_text("{")
    assert prices.all(TYPES)["ml.g5.xlarge"].is_live


def test_half_a_list_is_no_list(prices, account):
    account.disk.faults.add(Fault(kind=FaultKind.SERVER_ERROR, call="GetProducts", after=1, times=99))
    assert not any(price.is_live for price in prices.all(TYPES).values())


def test_the_table_of_one_region_is_no_price_in_another(clients, account, home, watch):
    elsewhere = Prices(None, "eu-west-1", home, watch)
    assert elsewhere.all(TYPES) == dict.fromkeys(TYPES)
    assert "live_prices" in elsewhere.note


def test_a_type_that_the_list_does_not_have_has_no_price(prices):
    assert prices.all(["ml.g5.xlarge", "ml.m5.large"])["ml.m5.large"] is None


def test_expired_credentials_are_not_hidden_by_the_table(prices, account):
    account.disk.configure(expired_keys=["AKIATEST"])
    with pytest.raises(LoggedOut):
        prices.all(TYPES)
