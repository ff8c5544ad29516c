"""Steps, epochs and learning rates, with nothing loaded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elias_trainer.batches import Document, Packed, Row
from elias_trainer.contract import Recipe, Schedule
from elias_trainer.schedule import Plan, dropout_seed


def rows(count: int) -> list[Row]:
    ids = np.arange(3, dtype=np.int32)
    return [Packed(documents=(Document(example=str(n), input_ids=ids, labels=ids, weight=1.0),)) for n in range(count)]


@given(count=st.integers(1, 40), batch=st.integers(1, 5), accumulation=st.integers(1, 5), epoch=st.integers(0, 3))
def test_an_epoch_takes_each_row_once(count: int, batch: int, accumulation: int, epoch: int) -> None:
    plan = Plan(rows(count), Recipe(batch_size=batch, accumulation=accumulation, epochs=4.0))
    first = epoch * plan.steps_per_epoch
    steps = [plan.micro_batches(step) for step in range(first, first + plan.steps_per_epoch)]
    seen = [row.documents[0].example for step in steps for micro in step for row in micro]
    assert sorted(seen, key=int) == [str(n) for n in range(count)]
    assert all(0 < len(step) <= accumulation for step in steps)
    assert plan.step_total == 4 * plan.steps_per_epoch


def test_a_step_does_not_depend_on_those_asked_for_before() -> None:
    recipe = Recipe(batch_size=2, accumulation=2, epochs=3.0)
    forwards, backwards = Plan(rows(11), recipe), Plan(rows(11), recipe)
    there = [_names(forwards, step) for step in range(9)]
    back = [_names(backwards, step) for step in reversed(range(9))]
    assert there == back[::-1]
    assert there[:3] != there[3:6]


@pytest.mark.parametrize(("epochs", "steps"), [(0.1, 3), (0.05, 2), (1.0, 30), (2.5, 75), (0.001, 1)])
def test_a_share_of_an_epoch_is_rounded_up_to_whole_steps(epochs: float, steps: int) -> None:
    assert Plan(rows(30), Recipe(batch_size=1, epochs=epochs)).step_total == steps


@pytest.mark.parametrize("schedule", list(Schedule))
def test_the_rate_rises_then_falls_and_every_step_learns(schedule: Schedule) -> None:
    recipe = Recipe(batch_size=1, max_steps=20, warmup_share=0.2, schedule=schedule, learning_rate=1.0)
    plan = Plan(rows(5), recipe)
    rates = [plan.learning_rate(step) for step in range(20)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert all(rate > 0 for rate in rates)


def test_every_micro_batch_has_a_seed_of_its_own() -> None:
    seeds = {dropout_seed(seed, step, number) for seed in range(5) for step in range(20) for number in range(5)}
    assert len(seeds) == 500
    assert all(0 <= seed < 2**63 for seed in seeds)


def _names(plan: Plan, step: int) -> list[str]:
    return [row.documents[0].example for micro in plan.micro_batches(step) for row in micro if isinstance(row, Packed)]
