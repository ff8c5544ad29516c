"""What a plan says of itself: why not elsewhere, what sooner costs, what would help."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import HealthCheck, given, settings

from elias.domain.label import Label
from elias.domain.plan import Loosens, WhatIf
from elias.services.planner.check import check_plan
from elias.services.planner.explain import _never_dearer, curve, explained, spell, what_if
from elias.services.planner.single import plan_run
from elias.units import FREE, Money
from tests.services.planner.conftest import HOUR, NOW, ask, days, kaggle, pace, place, problem, problems, rented

PACES = {"kaggle": pace(60), "sagemaker/ml.g5.xlarge": pace(30), "local": pace(600)}


def explain(places, asked):
    found = problem(places, asked)
    plan = explained(found, asked)
    assert check_plan(found, plan) == []
    return plan


def whys(plan):
    return {taken.offer.backend: taken.why for taken in plan.not_taken}


def test_free_hours_come_first_and_money_only_for_the_overflow():
    plan = explain([kaggle(), rented()], ask(600, PACES, deadline=days(1), budget=Money.usd(20)))
    assert [(s.offer.backend, s.steps) for s in plan.segments] == [("kaggle", 240), ("sagemaker", 360)]
    assert plan.expected == Money.usd(6) and plan.is_in_time and plan.bound <= plan.expected


def test_with_time_enough_it_waits_for_the_free_hours():
    plan = explain([kaggle(left=timedelta(0)), rented()], ask(500, PACES, deadline=days(6), budget=Money.usd(20)))
    assert plan.wait_until == kaggle().offer.refreshes_at and plan.expected == FREE
    assert "waiting for kaggle until Sat 28 Nov 00:00 UTC: free, and in time for" in plan.reason
    assert whys(plan) == {"sagemaker": "alone it would cost $8.33 more ($8.33) and ends 3 days 17 h sooner"}
    soonest = plan.sooner[-1]
    assert soonest.expected == Money.parse("8.333334") and soonest.ends_at == NOW + 500 * timedelta(seconds=30)


def test_what_cannot_be_done_names_the_money_or_the_time_that_is_missing():
    asked = ask(600, PACES, deadline=days(1), budget=Money.usd(4))
    plan = explain([kaggle(), rented()], asked)
    assert plan.is_in_time is False and plan.chance < asked.wanted
    helps = {helps.loosens: helps for helps in plan.relaxations}
    assert helps[Loosens.BUDGET].words == "$2.00 more" and helps[Loosens.BUDGET].budget == Money.usd(6)
    late = helps[Loosens.DEADLINE].deadline
    assert late > days(1)
    for loosened in (replace(asked, budget=Money.usd(6)), replace(asked, deadline=late)):
        assert plan_run(problem([kaggle(), rented()], loosened), loosened).is_in_time


def test_a_lesser_certainty_is_offered_where_it_would_do():
    asked = ask(100, {"local": pace(600, factor=1.3)}, deadline=NOW + 19 * HOUR)
    plan = explain([place("local")], asked)
    wanted = next(helps for helps in plan.relaxations if helps.loosens is Loosens.PROBABILITY)
    weaker = replace(asked, wanted=wanted.probability)
    assert 0.5 <= wanted.probability < 0.9 and plan_run(problem([place("local")], weaker), weaker).is_in_time
    assert "instead of 90%" in wanted.words


def test_every_other_place_has_its_reason():
    places = [
        place("local"),
        kaggle(seals_private=False),
        rented(),
        place("small", refused="16 GB is too little for it"),
        place("unknown"),
    ]
    asked = ask(600, PACES, label=Label.PRIVATE, deadline=days(3))
    told = whys(explain(places, asked))
    assert told["kaggle"] == "the data is private and would have to be encrypted to go there"
    assert told["small"] == "16 GB is too little for it"
    assert told["unknown"] == "nobody knows how long a step takes there"
    assert "private" in told["sagemaker"]
    assert "local" not in told


def test_a_place_that_is_too_slow_or_too_dear_says_by_how_much():
    places = [rented(), rented("ml.p4d.24xlarge", 40), place("local")]
    paces = {**PACES, "sagemaker/ml.p4d.24xlarge": pace(20)}
    told = {
        taken.offer.variant or taken.offer.backend: taken.why
        for taken in explain(places, ask(600, paces, deadline=NOW + 5 * HOUR, budget=Money.usd(20))).not_taken
    }
    assert told["ml.p4d.24xlarge"] == "alone it would spend $133.33, and $20.00 may be spent"
    assert told["local"].startswith("alone it would be 3 days 23 h late: in time with 0%")


def test_nothing_at_all_is_said_with_every_reason():
    plan = explain([rented()], ask(600, PACES))
    assert plan.segments == () and plan.reason == "sagemaker: it costs $2.00 an hour and the run has no budget"
    assert [helps.words for helps in plan.relaxations] == ["a budget of $10.00"]


def test_a_longer_deadline_never_costs_more():
    asked = ask(600, PACES, budget=Money.usd(20))
    points = what_if(problem([kaggle(), rented(), place("local")], asked), asked, [days(n / 4) for n in range(1, 20)])
    costs = [point.expected for point in points if point.expected is not None]
    assert len(costs) > 10 and costs == sorted(costs, reverse=True) and costs[0] > costs[-1] == FREE
    found = curve(problem([kaggle(), rented()], asked), asked)
    drawn, ends = [point.expected for point in found], [point.deadline for point in found]
    assert len(drawn) > 4 and drawn[-1] == FREE and drawn[0] == max(drawn)
    assert all(2 * (b - a) - timedelta.resolution <= c - b for a, b, c in zip(ends, ends[1:], ends[2:], strict=False))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problems())
def test_more_money_or_more_time_never_makes_a_plan_dearer(found):
    [asked] = found.runs
    plan = plan_run(found, asked)
    if not plan.is_in_time or asked.budget is None:
        return
    for more in (
        replace(asked, budget=asked.budget + Money.usd(5)),
        replace(asked, deadline=asked.deadline and asked.deadline + 3 * HOUR),
    ):
        easier = plan_run(replace(found, runs=(more,)), more)
        assert easier.is_in_time and easier.expected <= plan.expected


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problems())
def test_each_relaxation_does_what_it_says(found):
    [asked] = found.runs
    plan = explained(found, asked)
    assert check_plan(found, plan) == []
    for helps in plan.relaxations if not plan.is_in_time else ():
        changes = {"budget": helps.budget, "deadline": helps.deadline, "wanted": helps.probability}
        loosened = replace(asked, **{name: value for name, value in changes.items() if value is not None})
        assert plan_run(replace(found, runs=(loosened,)), loosened).is_in_time, helps


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problems(most_steps=40))
def test_the_order_in_which_places_are_named_changes_nothing(found):
    [asked] = found.runs
    turned = replace(found, places=found.places[::-1])
    assert plan_run(found, asked).segments == plan_run(turned, asked).segments


def test_spans_are_told_rounded_up():
    assert [spell(timedelta(minutes=m)) for m in (0.5, 61, 60 * 24, 60 * 50 + 1)] == [
        "1 min",
        "1 h 1 min",
        "1 day",
        "2 days 3 h",
    ]


def test_a_later_deadline_is_never_dearer_whatever_the_search_has_seen():
    def point(hours: int, usd: str | None) -> WhatIf:
        cost = Money.usd(usd) if usd else None
        moment = NOW + timedelta(hours=hours)
        return WhatIf(deadline=moment, ends_at=moment if usd else None, expected=cost, reserve=cost)

    told = _never_dearer([point(40, "1.32"), point(1, None), point(20, "0.85"), point(10, "2"), point(50, "0")])
    assert [str(p.expected) for p in told] == ["$0.85", "None", "$0.85", "$2.00", "$0.00"]
    assert told[0].ends_at == NOW + timedelta(hours=20) and told[0].deadline == NOW + timedelta(hours=40)
