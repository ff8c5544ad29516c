from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elias.errors import InputError
from elias.units import LONGEST, Money, instant, parse_span, rfc3339, span_of


@pytest.mark.parametrize("text", ["20", "20usd", "$20", "20 USD", "20.00"])
def test_money_is_read_as_people_write_it(text: str) -> None:
    assert Money.parse(text) == Money(20_000_000)


@pytest.mark.parametrize("text", ["", "twenty", "20eur", "-1", "$", "nan usd", "sNaN", "-inf", "-1e999999999"])
def test_what_is_no_money_is_refused_with_its_fix(text: str) -> None:
    with pytest.raises(InputError) as refused:
        Money.parse(text)
    assert "20usd" in refused.value.fix


@pytest.mark.parametrize("text", ["1e999999999", "1e300usd", "inf", "1000000000001"])
def test_more_money_than_there_is_is_refused_with_the_most(text: str) -> None:
    with pytest.raises(InputError, match="more than is counted") as refused:
        Money.parse(text)
    assert Money.parse(refused.value.fix.removeprefix("give at most ")) == Money.usd(10**12)


def test_a_price_for_part_of_an_hour_is_never_understated() -> None:
    assert Money(1).for_hours(timedelta(seconds=1)) == Money(1)
    assert Money.usd("1.408").for_hours(timedelta(hours=2)) == Money.usd("2.816")


@given(st.integers(0, 10**12), st.integers(0, 10**6), st.integers(0, 10**6))
def test_splitting_a_span_never_makes_it_cheaper(hourly: int, first_s: int, second_s: int) -> None:
    price, first, second = Money(hourly), timedelta(seconds=first_s), timedelta(seconds=second_s)
    assert price.for_hours(first) + price.for_hours(second) >= price.for_hours(first + second)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1.5h", 5400), ("2d", 172800), ("7", 7)])
def test_a_span_is_read_as_people_write_it(text: str, seconds: int) -> None:
    assert parse_span(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["36501d", "876001h", "99999999999999h", "9" * 400])
def test_a_span_that_no_calendar_holds_is_refused_with_the_longest(text: str) -> None:
    with pytest.raises(InputError, match="longer than a hundred years") as refused:
        parse_span(text)
    assert "at most" in refused.value.fix


@pytest.mark.parametrize("number", [1e300, float("inf"), float("nan")])
def test_a_number_that_is_no_span_is_refused(number: float) -> None:
    with pytest.raises(InputError, match="longer than a hundred years"):
        span_of(number, "m")


def test_the_longest_span_is_one() -> None:
    assert parse_span("36500d") == parse_span("876000h") == LONGEST


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(InputError):
        instant("2026-11-24T15:00:00")


@given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC)))  # noqa: DTZ001 - hypothesis wants naive bounds
def test_an_instant_survives_the_round_trip(moment: datetime) -> None:
    assert instant(rfc3339(moment)) == moment
