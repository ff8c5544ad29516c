"""One run among all instance types of AWS, on demand and on spot, and what is free: more than a search can look at."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest

from elias.adapters.backends.sagemaker.instances import table
from elias.adapters.backends.sagemaker.spot import spot_hourly
from elias.services.planner.problem import Pace, Place, Problem
from elias.services.planner.single import plan_run
from elias.units import Money
from tests.services.planner.conftest import HOUR, NOW, ask, kaggle, pace, place, problem

BUDGETS = (4, 6, 8, 12, 20, 40)


def places(drawn: random.Random, work: float) -> Iterator[tuple[Place, Pace]]:
    """Each with the time of a step there; `work` is what a step takes at one TFLOP/s, in seconds."""
    if drawn.random() < 0.8:
        yield kaggle(left=drawn.uniform(1, 30) * HOUR), pace(work / 78, 180, 1.3)
    if drawn.random() < 0.6:
        yield place("local"), pace(work / drawn.choice([1, 35, 80]), 60, 1.3)
    if drawn.random() < 0.25:
        yield place("ssh"), pace(work / drawn.choice([35, 120]), 60, 1.3)
    for kind in table().instances.values():
        if not kind.gpus or not kind.tflops:
            continue
        there = pace(work / (kind.tflops * kind.gpus**0.9 * drawn.uniform(0.85, 1.1)), 240, 1.3)
        offer = {
            "hourly": kind.hourly,
            "once": kind.hourly.for_hours(timedelta(minutes=4)),
            "longest": timedelta(days=1),
            "start_delay": timedelta(minutes=5),
            "needs_encryption": True,
        }
        yield place("sagemaker", variant=kind.name, **offer), there
        spot = {"likely_hourly": spot_hourly(kind.hourly), "interruptions_per_hour": 0.05}
        yield place("sagemaker", variant=f"{kind.name} spot", **offer, **spot), there


def drawn_problem(seed: int, share: float, dollars: int) -> Problem:
    """`share` of the time that all of it takes on two T4s is left until the deadline."""
    drawn = random.Random(seed)
    work = drawn.uniform(200, 4000)
    found = list(places(drawn, work))
    steps = drawn.choice([500, 2000, 7000])
    span = max(1.0, work / 78 * steps / 3600 * share) * HOUR
    asked = ask(steps, {one.key: there for one, there in found}, budget=Money.usd(dollars))
    return problem([one for one, _ in found], replace(asked, deadline=NOW + span))


@pytest.mark.parametrize(("seed", "share"), [(13, 0.25), (16, 1.2), (30, 0.8)])
def test_more_money_neither_loses_the_deadline_nor_makes_it_dearer(seed: int, share: float) -> None:
    """Each did, while the search ended with its first look."""
    problems = [drawn_problem(seed, share, dollars) for dollars in BUDGETS]
    plans = [plan_run(found, found.runs[0]) for found in problems]
    in_time = [plan.is_in_time for plan in plans]
    assert in_time == sorted(in_time) and in_time[-1]
    costs = [plan.expected.micro_usd for plan in plans if plan.is_in_time]
    assert all(later <= 1.1 * earlier for earlier, later in pairwise(costs)), costs
