"""An offer's hours and cost follow from the forecast, interruptions and what comes once counted in."""

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from elias.domain.offer import Offer
from elias.domain.speed import Estimate, Overheads
from elias.services.estimate import Forecast
from elias.services.foretell import foretold
from elias.units import Money

EVERY = timedelta(minutes=5)
OFFER = Offer(
    backend="rented",
    variant="large spot",
    accelerator="A10G",
    accelerator_count=1,
    memory_bytes=24 * 2**30,
    tflops=70,
    hourly=Money.usd(2),
    once=Money.usd("0.10"),
    likely_hourly=Money.usd(1),
    longest=None,
    left=None,
)


def told(step_s: float = 36.0, steps: int | None = 100, start_s: float = 360.0) -> Forecast:
    sure = Overheads(start_up=Estimate.around(start_s, 1), checkpoint=Estimate.around(1, 1))
    return Forecast(step=Estimate.around(step_s, 1), steps=steps, overheads=sure, basis=())


def test_an_hour_of_steps_and_a_start_at_the_likely_price_and_what_comes_once():
    found = foretold(OFFER, told(), EVERY)
    assert found.likely_span == timedelta(hours=1.1)
    assert found.likely_cost == Money.usd("1.20")


def test_without_a_likely_price_it_is_the_hourly_one():
    assert foretold(replace(OFFER, likely_hourly=None), told(), EVERY).likely_cost == Money.usd("2.30")


def test_where_nobody_knows_the_work_the_place_keeps_its_own_word():
    own = replace(OFFER, likely_span=timedelta(hours=3))
    assert foretold(own, told(steps=None), EVERY).likely_span == own.likely_span


@given(rate=st.floats(0, 3), steps=st.integers(1, 10_000))
def test_interruptions_only_ever_add(rate: float, steps: int):
    sure, risky = (foretold(replace(OFFER, interruptions_per_hour=h), told(steps=steps), EVERY) for h in (0.0, rate))
    assert risky.likely_span >= sure.likely_span
    assert risky.likely_cost >= sure.likely_cost


def test_what_is_reserved_stays_as_it_was():
    assert foretold(OFFER, told(), EVERY).hourly == OFFER.hourly


def test_a_segment_that_is_paid_for_is_no_shorter_than_its_start_takes():
    large = replace(
        told(steps=None), overheads=Overheads(start_up=Estimate.around(340, 2.5), checkpoint=Estimate.around(1, 1))
    )
    found = foretold(OFFER, large, EVERY).shortest
    assert timedelta(seconds=341) < found < timedelta(seconds=850)
    assert foretold(OFFER, told(), EVERY).shortest == timedelta(seconds=361), "where it is known for sure"
    assert foretold(replace(OFFER, longest=timedelta(minutes=5)), large, EVERY).shortest == timedelta(minutes=5)
    assert foretold(replace(OFFER, hourly=Money(0)), large, EVERY).shortest == timedelta(0)
