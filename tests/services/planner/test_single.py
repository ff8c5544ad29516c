"""One run: the plan is allowed, and there is no better one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elias.services.planner.check import check_plan
from elias.services.planner.single import plan_run
from elias.units import Money
from tests.services.planner.brute import cheapest
from tests.services.planner.conftest import HOUR, NOW, ask, kaggle, pace, place, problem, problems, rented

THOROUGH = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def solved(given_problem):
    return plan_run(given_problem, given_problem.runs[0])


def worth(plan):
    end = (plan.ends_at - NOW) // timedelta(microseconds=1)
    return plan.expected.micro_usd, end, len(plan.segments)


@THOROUGH
@given(problems())
def test_no_plan_of_all_plans_is_better(found):
    plan, best = solved(found), cheapest(found)
    assert check_plan(found, plan) == []
    if best is None:
        assert not plan.is_in_time
    else:
        assert plan.is_in_time and worth(plan) == best and plan.bound == plan.expected


@THOROUGH
@given(problems(most_steps=300), st.integers(1, 5))
def test_every_plan_is_allowed_whatever_the_size(found, scale):
    [asked] = found.runs
    asked = replace(asked, steps=asked.steps * scale)
    found = replace(found, runs=(asked,))
    assert check_plan(found, plan_run(found, asked)) == []


def test_of_many_machines_the_one_that_is_cheap_for_the_rest_is_looked_at():
    """The dear one costs less a step, and more for its start-up: with free hours for most of the work it is dearer."""
    step_s = {"kaggle": 36.0, "sagemaker/dear": 1.0, "sagemaker/cheap": 5.0}
    others = {f"sagemaker/{n}": 0.9 - n / 100 for n in range(12)}
    paces = {key: pace(seconds, 0 if key == "kaggle" else 600) for key, seconds in (step_s | others).items()}
    places = [
        kaggle(left=32 * HOUR),
        rented("dear", 8),
        rented("cheap", 2),
        *(rented(f"{n}", 20 + n) for n in range(12)),
    ]
    asked = ask(3600, paces, budget=Money.usd(20))
    plans = [plan_run(problem(places, asked), replace(asked, deadline=NOW + n * HOUR)) for n in (34, 48, 60, 72)]
    assert all(plan.is_in_time and plan.segments[-1].offer.variant == "cheap" for plan in plans)
    costs = [plan.expected for plan in plans]
    assert costs == sorted(costs, reverse=True) and costs[0] < Money.usd(3)


def test_a_place_that_could_do_less_than_a_hundredth_is_left_alone_unless_it_is_needed():
    slow = place("local")
    asked = ask(3000, {"local": pace(1750), "kaggle": pace(13), "sagemaker/ml.g5.xlarge": pace(3)})
    rich = replace(asked, deadline=NOW + 8 * HOUR, budget=Money.usd(15))
    plan = plan_run(problem([slow, kaggle(), rented()], rich), rich)
    assert plan.is_in_time and "local" not in [segment.offer.backend for segment in plan.segments]
    poor = replace(asked, deadline=NOW + 13.5 * HOUR)
    short = place("kaggle", left=timedelta(seconds=2995 * 13), refreshes_at=NOW + 100 * HOUR)
    plan = plan_run(problem([short, slow], poor), poor)
    assert plan.is_in_time and [(s.offer.backend, s.steps) for s in plan.segments] == [("kaggle", 2995), ("local", 5)]
