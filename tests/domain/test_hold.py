"""When training makes way for inference, and when it comes back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from elias.domain.hold import Demand, Pressure, YieldRule

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
RULE = YieldRule(depth=2, latency=timedelta(seconds=10), calm_for=timedelta(seconds=60))
CALM, BUSY, SLOW = (
    Demand(depth=depth, slowest=timedelta(seconds=slowest)) for depth, slowest in ((2, 10), (3, 0), (0, 10.5))
)


def after(*seen: tuple[float, Demand]) -> Pressure:
    pressure = Pressure(rule=RULE)
    for second, demand in seen:
        pressure = pressure.after(demand, NOON + timedelta(seconds=second))
    return pressure


def test_at_its_bounds_inference_is_left_with_what_it_has():
    assert after((0, CALM)).hold() is None


def test_one_moment_past_either_bound_holds_this_machine_and_says_why():
    queue, latency = after((0, BUSY)).hold(), after((0, SLOW)).hold()
    assert queue and "3 requests at the gateway, more than 2" in queue.why
    assert latency and "an answer took 10.5 s to begin, more than 10 s" in latency.why


def test_it_comes_back_only_after_the_whole_calm_and_a_new_burst_begins_the_calm_anew():
    assert after((0, BUSY), (59, CALM)).hold() is not None
    assert after((0, BUSY), (60, CALM)).hold() is None
    again = after((0, BUSY), (59, BUSY), (118, CALM)).hold()
    assert again and again.since == NOON and again.until == NOON + timedelta(seconds=119)


@given(st.lists(st.tuples(st.floats(0.1, 50), st.sampled_from([CALM, BUSY, SLOW])), max_size=30))
def test_it_is_never_let_go_within_the_calm_and_never_kept_past_it(moments: list[tuple[float, Demand]]):
    pressure, now, last = Pressure(rule=RULE), NOON, None
    for span, demand in moments:
        now += timedelta(seconds=span)
        pressure = pressure.after(demand, now)
        last = now if demand is not CALM else last
        assert (pressure.hold() is not None) == (last is not None and now - last < RULE.calm_for)
