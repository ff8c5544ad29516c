"""One run: the plan is allowed, and there is no better one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elias.services.planner.check import check_plan
from elias.services.planner.single import plan_run
from tests.services.planner.brute import cheapest
from tests.services.planner.conftest import NOW, problems

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
