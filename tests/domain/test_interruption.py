"""What interruptions cost: the formula against its first order, and against a simulation."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elias.domain.interruption import Work, expected_hours

HOURS = st.floats(0.01, 100)


@given(steps=HOURS, start=st.floats(0.01, 1), between=st.floats(0.01, 1), rate=st.floats(0, 2))
def test_interruptions_never_make_work_shorter(steps, start, between, rate):
    work = Work(steps=steps, start=start, between_checkpoints=between)
    assert expected_hours(work, rate) >= expected_hours(work, 0) - 1e-9
    assert expected_hours(work, rate) <= expected_hours(work, rate * 2) + 1e-9


@given(steps=st.floats(1, 100), start=st.floats(0.01, 0.5), between=st.floats(0.01, 0.5))
def test_rare_interruptions_cost_a_start_and_half_an_interval_each(steps, start, between):
    rate = 1e-4
    work = Work(steps=steps, start=start, between_checkpoints=between)
    first_order = start + steps * (1 + rate * (start + between / 2))
    assert expected_hours(work, rate) == pytest.approx(first_order, rel=1e-6)


def test_the_formula_agrees_with_a_simulation():
    draw, work, rate = random.Random(1), Work(steps=10.0, start=0.2, between_checkpoints=0.5), 0.8
    mean = sum(_lived_through(work, rate, draw) for _ in range(4000)) / 4000
    assert expected_hours(work, rate) == pytest.approx(mean, rel=0.03)


def _lived_through(work: Work, rate: float, draw) -> float:
    """Hours until all intervals are done; the formula counts a new start for each interval's every try."""
    total = work.start
    for _ in range(round(work.steps / work.between_checkpoints)):
        needed = work.between_checkpoints
        while (until := draw.expovariate(rate)) < needed:
            total += until
            needed = work.start + work.between_checkpoints
        total += needed
    return total
