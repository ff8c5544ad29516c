"""The first planner: the cheapest place that may, can and has time left."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from elias.domain.label import Label
from elias.domain.offer import Offer
from elias.services.plan import SHORTEST, Ask, plan_segment
from elias.units import FREE, Money

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def offer(backend: str, **changes: object) -> Offer:
    fields = {
        "backend": backend,
        "accelerator": "cpu",
        "accelerator_count": 1,
        "memory_bytes": 2**33,
        "tflops": None,
        "hourly": FREE,
        "longest": None,
        "left": None,
    }
    return Offer(**(fields | changes))


def ask(label: Label = Label.PUBLIC, **more: object) -> Ask:
    return Ask(label=label, now=NOW, **more)


RENTED = offer("rented", hourly=Money.usd(2), needs_encryption=True)
FREE_HOURS = offer("free", needs_encryption=True, left=timedelta(hours=9), refreshes_at=NOW + timedelta(days=3))


def test_what_costs_nothing_comes_before_what_costs():
    plan = plan_segment(ask(budget_left=Money.usd(50)), [RENTED, offer("here")])
    assert plan.segments[0].offer.backend == "here"
    assert [(n.offer.backend, n.why) for n in plan.not_taken] == [("rented", "$2.00 an hour; here costs $0.00")]


def test_secret_data_stays_even_when_nothing_here_can_take_it():
    plan = plan_segment(ask(Label.SECRET), [offer("here", refused="too small"), FREE_HOURS])
    assert plan.segments == () and "never leaves" in plan.reason and "too small" in plan.reason


def test_private_data_goes_nowhere_unencrypted():
    assert plan_segment(ask(Label.PRIVATE), [FREE_HOURS]).segments == ()
    assert plan_segment(ask(Label.PRIVATE), [offer("here")]).segments != ()


def test_nothing_is_rented_without_a_budget():
    plan = plan_segment(ask(), [RENTED])
    assert plan.segments == () and "no budget" in plan.reason


def test_a_rented_segment_lasts_no_longer_than_the_money():
    plan = plan_segment(ask(budget_left=Money.usd(1)), [RENTED])
    assert plan.segments[0].span == timedelta(minutes=30)
    assert plan.segments[0].reserve == Money.usd(1)


def test_a_run_whose_time_is_over_gets_as_long_a_segment_as_the_place_takes_at_least():
    place = replace(RENTED, shortest=timedelta(minutes=3), once=Money.usd("0.10"))
    over = ask(span=timedelta(seconds=1), budget_left=Money.usd("0.20"))
    [last] = plan_segment(over, [place]).segments
    assert (last.span, last.reserve) == (timedelta(minutes=3), Money.usd("0.20"))
    refused = plan_segment(replace(over, budget_left=Money.usd("0.19")), [place])
    assert not refused.segments and refused.reason and "$0.19 may be spent" in refused.reason


def test_a_used_up_quota_says_when_it_is_worth_asking_again():
    empty = offer("free", left=timedelta(0), refreshes_at=NOW + timedelta(days=3))
    plan = plan_segment(ask(), [empty])
    assert plan.segments == () and plan.wait_until == NOW + timedelta(days=3)


def test_a_segment_ends_with_the_quota():
    plan = plan_segment(ask(span=timedelta(hours=30)), [FREE_HOURS])
    assert plan.segments[0].span == timedelta(hours=9)


def test_with_no_place_at_all_it_says_so():
    assert plan_segment(ask(), []).reason == "no place is configured"


spans = st.none() | st.timedeltas(timedelta(0), timedelta(days=2))
offers = st.builds(
    offer,
    st.sampled_from("abc"),
    hourly=st.integers(0, 50_000_000).map(Money),
    shortest=st.timedeltas(timedelta(0), timedelta(minutes=10)),
    longest=spans.map(lambda span: span and max(span, timedelta(minutes=10))),
    left=spans,
    refreshes_at=st.just(NOW + timedelta(days=1)),
    needs_encryption=st.booleans(),
    refused=st.none() | st.just("no"),
)


@given(st.lists(offers, max_size=6), st.sampled_from(Label), spans, st.none() | st.integers(0, 10**8).map(Money))
def test_every_offer_is_taken_or_has_its_reason_and_no_rule_is_broken(found, label, span, budget):
    plan = plan_segment(Ask(label=label, now=NOW, span=span, budget_left=budget), found)
    assert len(plan.segments) + len(plan.not_taken) == len(found)
    assert all(taken.why for taken in plan.not_taken)
    for segment in plan.segments:
        chosen = segment.offer
        assert chosen.refused is None
        assert not (chosen.needs_encryption and label in (Label.SECRET, Label.PRIVATE))
        assert chosen.left is None or (chosen.left >= SHORTEST and chosen.left >= (segment.span or chosen.shortest))
        assert segment.span is None or segment.span >= chosen.shortest
        assert segment.span is None or span is None or segment.span <= max(span, chosen.shortest)
        if chosen.hourly > FREE:
            assert budget is not None and segment.reserve <= budget
    if not plan.segments:
        assert plan.reason


def test_a_place_that_is_closed_for_now_is_waited_for_and_the_first_to_open_counts():
    soon, later = NOW + timedelta(minutes=1), NOW + timedelta(hours=1)
    held = offer("here", refused="inference needs this machine", refused_until=soon)
    plan = plan_segment(ask(), [held, offer("far", refused="down", refused_until=later), RENTED])
    assert (plan.segments, plan.wait_until) == ((), soon)
    assert plan.reason and "here: inference needs this machine" in plan.reason
    assert plan_segment(ask(), [replace(held, refused_until=None)]).wait_until is None
