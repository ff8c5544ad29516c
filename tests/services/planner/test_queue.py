"""A queue: the limits that runs share hold, and the proof is one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elias.services.planner.check import check_plans
from elias.services.planner.problem import Commitment, Problem
from elias.services.planner.queue import WITHOUT, plan_queue
from elias.units import FREE, Money
from tests.services.planner.conftest import HOUR, NOW, ask, days, kaggle, pace, place, places, problem, rented

PACES = {"kaggle": pace(60), "sagemaker/ml.g5.xlarge": pace(30), "local": pace(120)}


def queue(found):
    made = plan_queue(found)
    assert check_plans(found, made.plans) == []
    return made


def runs(count, steps=200, **changes):
    return [ask(steps, PACES, run=f"run-{n}", **changes) for n in range(count)]


def test_two_runs_use_both_sessions_and_a_third_waits_its_turn():
    made = queue(problem([kaggle(left=20 * HOUR)], *runs(3)))
    starts = sorted(plan.segments[0].starts_at for plan in made.plans)
    assert starts == [NOW, NOW, NOW + timedelta(seconds=200 * 60)]
    assert made.at_once == 2 and "kaggle: 2 sessions at once" in made.limited_by


def test_an_account_wide_cap_holds_over_all_its_places():
    both = [rented(sessions="a"), rented("ml.g6.xlarge", 2, sessions="b")]
    paces = {place.key: pace(30) for place in both}
    asks = [replace(one, paces=paces, budget=Money.usd(50)) for one in runs(3)]
    assert queue(problem(both, *asks)).at_once == 2
    assert queue(problem(both, *asks, session_caps={"sagemaker": 1})).at_once == 1


def test_what_runs_already_is_planned_around():
    running = Commitment(place="local", starts_at=NOW, span=5 * HOUR)
    [plan] = queue(problem([place("local")], *runs(1), commitments=(running,))).plans
    assert plan.segments[0].starts_at == NOW + 5 * HOUR


def test_the_urgent_run_is_given_the_fast_place_and_the_patient_one_the_free_one():
    asks = [
        ask(200, PACES, run="patient", deadline=days(5), budget=Money.usd(9)),
        ask(200, PACES, run="urgent", deadline=NOW + 2 * HOUR, budget=Money.usd(9)),
    ]
    made = queue(problem([place("local"), rented()], *asks))
    patient, urgent = ({segment.offer.backend for segment in plan.segments} for plan in made.plans)
    assert patient == {"local"} and "sagemaker" in urgent
    assert made.in_time == 2 and made.most_in_time == 2 and made.gap < 0.01


def test_a_week_reserves_no_more_than_it_may():
    asks = runs(3, steps=240, budget=Money.usd(9))
    made = queue(problem([rented(concurrency=3)], *asks, weekly_money=Money.usd(5)))
    assert sum(plan.is_in_time is True for plan in made.plans) == 1
    assert any("$5.00 reserved in a week" in line for line in made.limited_by)
    assert all(plan.reason for plan in made.plans if not plan.segments)


def test_without_a_solver_it_is_planned_all_the_same_and_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "highspy", None)
    made = queue(problem([kaggle(left=20 * HOUR)], *runs(3)))
    assert made.bound is None and made.gap is None and "pip install" in made.solver and made.in_time == 3


def test_a_solver_that_cannot_work_proves_nothing():
    """HiGHS refuses to, in a process that has used it with another number of threads."""
    program = (
        "import highspy, sys; sys.path.insert(0, sys.argv[1]); busy = highspy.Highs();"
        "busy.setOptionValue('threads', 2); busy.addVar(0, 1); busy.run();"
        "from tests.services.planner.test_queue import *;"
        "made = queue(problem([kaggle(left=20 * HOUR)], *runs(3))); print(made.bound, made.in_time, made.solver)"
    )
    ran = subprocess.run([sys.executable, "-c", program, str(Path.cwd())], capture_output=True, text=True, timeout=120)
    assert ran.stdout.splitlines()[-1] == f"None 3 {WITHOUT}: HiGHS did not solve it", ran.stderr


def test_the_solver_prints_nothing_also_when_it_is_first_used():
    program = (
        "import highspy; from elias.services.planner.relaxed import silent; silent(highspy).run(); print('answer')"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "answer\n", "")


def test_the_same_queue_has_the_same_plan():
    found = problem([kaggle(), rented(), place("local")], *runs(6, deadline=days(3), budget=Money.usd(5)))
    assert plan_queue(found) == plan_queue(found)


@st.composite
def queues(draw: st.DrawFn) -> Problem:
    chosen = [draw(places(name)) for name in ("a", "b", "c")]
    asks = [
        ask(
            draw(st.integers(1, 12)),
            {one.key: pace(draw(st.sampled_from([600, 1800, 3600])), 60, 1.2) for one in chosen},
            run=f"run-{n}",
            deadline=NOW + draw(st.integers(2, 40)) * HOUR,
            budget=draw(st.none() | st.sampled_from([2_000_000, 20_000_000]).map(Money)),
        )
        for n in range(draw(st.integers(2, 4)))
    ]
    weekly = draw(st.none() | st.just(Money(6_000_000)))
    return problem(chosen, *asks, horizon=60 * HOUR, weekly_money=weekly)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(queues())
def test_no_queue_breaks_a_limit_or_its_own_bound(found):
    made = queue(found)
    assert made.in_time <= made.most_in_time
    cost = sum((plan.expected for plan in made.plans if plan.is_in_time), FREE)
    assert made.bound <= cost or cost == FREE


@pytest.mark.parametrize("seed", range(3))
def test_the_bound_is_no_higher_than_the_best_order_of_all(seed):
    """Of three runs, each order of insertion is tried: the best of them is a real plan, and none is below the bound."""
    asks = runs(3, steps=150 + 50 * seed, deadline=NOW + 5 * HOUR, budget=Money.usd(6))
    found = problem([kaggle(left=(2 + seed) * HOUR), rented(concurrency=2)], *asks)
    made = queue(found)
    assert made.bound <= made.expected and made.in_time == made.most_in_time
