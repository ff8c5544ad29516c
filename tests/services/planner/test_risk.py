"""The chance that is told is never above the share of many drawn worlds in which the plan holds."""

from __future__ import annotations

import math
import random

import pytest

from elias.services.planner.single import Setting, plan_run
from elias.units import Money
from tests.services.planner.conftest import HOUR, NOW, ask, days, kaggle, pace, place, problem, rented

WORLDS = 4000


def held(found, plan, hazard, seed=7):
    """The share of worlds in which all steps are done by the deadline, with the last segment going on until then."""
    [asked] = found.runs
    drawn, good = random.Random(seed), 0
    for _ in range(WORLDS):
        z, left = drawn.gauss(0, 1), asked.steps
        for number, segment in enumerate(plan.segments):
            name = "/".join(filter(None, (segment.offer.backend, segment.offer.variant)))
            told = asked.paces[name]
            step = told.step.likely * math.exp(told.step.sigma * z)
            start_up = told.start_up.likely * math.exp(told.start_up.sigma * z)
            is_last, until = number == len(plan.segments) - 1, asked.deadline - segment.starts_at
            room = (until if is_last else min(until, segment.span)).total_seconds() - start_up
            lost = 0.0
            clock = drawn.expovariate(hazard / 3600) if hazard and segment.offer.interruptions_per_hour else math.inf
            while clock < room:
                lost += 300 + start_up
                clock += drawn.expovariate(hazard / 3600)
            left -= max(0, int((room - lost) // step))
        good += left <= 0
    return good / WORLDS


@pytest.mark.parametrize("hazard", [0.0, 0.1, 0.3])
def test_a_plan_holds_at_least_as_often_as_it_says(hazard):
    spot = rented(interruptions_per_hour=hazard)
    paces = {"kaggle": pace(60, 300, 1.4), "sagemaker/ml.g5.xlarge": pace(30, 240, 1.3)}
    found = problem([kaggle(), spot], ask(900, paces, deadline=days(0.7), budget=Money.usd(60)))
    plan = plan_run(found, found.runs[0])
    assert plan.is_in_time and plan.chance >= 0.9
    assert held(found, plan, hazard) >= plan.chance - 0.015


def test_a_late_plan_tells_a_lower_chance():
    asked = ask(100, {"local": pace(600, factor=1.5)}, deadline=NOW + 15 * HOUR)
    found = problem([place("local")], asked)
    plan = plan_run(found, asked)
    assert plan.is_in_time is False and 0 < plan.chance < 0.5
    assert held(found, plan, 0.0) >= plan.chance - 0.015


def test_what_a_late_plan_does_after_its_deadline_is_no_chance():
    asked = ask(100, {"local": pace(600, factor=1.5)}, deadline=NOW + 12 * HOUR)
    found = problem([place("local", longest=5 * HOUR)], asked)
    plan = plan_run(found, asked)
    assert len([s for s in plan.segments if s.starts_at > asked.deadline]) > 1, "none of this was in time"
    assert plan.chance <= held(found, plan, 0.0) + 0.015 < 0.2


def test_risk_makes_a_plan_ask_for_more_time_than_it_expects():
    asked = ask(100, {"local": pace(600, factor=1.5)})
    [segment] = plan_run(problem([place("local")], asked), asked).segments
    assert segment.span > 100 * HOUR / 6 and segment.chance >= 0.9


def test_the_less_there_is_to_do_the_less_is_set_aside_for_lost_work():
    spot = rented(interruptions_per_hour=0.1)
    paces = {"sagemaker/ml.g5.xlarge": pace(30, 240, 1.3)}

    def aside(steps: int) -> int:
        asked = ask(steps, paces, deadline=days(5), budget=Money.usd(60))
        [lane] = Setting.of(problem([spot], asked), asked).lanes
        return lane.slack

    found = [aside(steps) for steps in (20, 200, 2000, 20_000)]
    assert found == sorted(found) and found[0] < found[-1] / 2
