"""The gate: each rule on its own, both directions, and what it says."""

from __future__ import annotations

import dataclasses

import pytest

from elias.domain.gate import pass_gate
from elias.domain.verdict import Comparison, GateRule, Interval

BETTER = Comparison(
    metric="heldout_loss",
    group="all",
    rival="in_service",
    candidate_value=1.2,
    rival_value=1.5,
    difference=Interval(low=-0.4, high=-0.2, level=0.95),
    examples=40,
)


def test_a_candidate_whose_whole_interval_is_below_zero_is_accepted() -> None:
    accepted, reasons = pass_gate(GateRule(), "in_service", [BETTER])
    assert accepted
    assert reasons == (
        "passed: wanted better than the model in service in heldout_loss at 95%; "
        "found 1.2000 against 1.5000 on 40 examples, a difference between -0.4000 and -0.2000",
    )


@pytest.mark.parametrize(("low", "high"), [(-0.4, 0.0), (-0.4, 0.1), (0.0, 0.0), (0.1, 0.2)])
def test_a_candidate_that_may_be_no_better_is_refused(low: float, high: float) -> None:
    found = dataclasses.replace(BETTER, difference=Interval(low=low, high=high, level=0.95))
    accepted, reasons = pass_gate(GateRule(), "in_service", [found])
    assert not accepted and reasons[0].startswith("refused: wanted better")


def test_what_was_not_measured_is_refused() -> None:
    accepted, reasons = pass_gate(GateRule(), "in_service", [])
    assert not accepted and reasons == (
        "refused: wanted better than the model in service in heldout_loss at 95%; heldout_loss was not measured",
    )


def test_too_few_examples_are_never_better() -> None:
    accepted, reasons = pass_gate(GateRule(), "in_service", [dataclasses.replace(BETTER, difference=None, examples=1)])
    assert not accepted and "on 1 example, too few to tell (it takes 6)" in reasons[0]


def test_one_worse_stage_refuses_a_candidate_that_is_better_overall() -> None:
    worse = dataclasses.replace(BETTER, group="stage:2", difference=Interval(low=0.01, high=0.2, level=0.95))
    unsure = dataclasses.replace(BETTER, group="stage:3", difference=Interval(low=-0.1, high=0.2, level=0.95))
    accepted, reasons = pass_gate(GateRule(), "in_service", [BETTER, worse, unsure])
    assert not accepted
    assert [reason.split(";")[0] for reason in reasons[1:]] == [
        "refused: wanted no worse in stage 2",
        "passed: wanted no worse in stage 3",
    ]
    assert pass_gate(GateRule(no_worse_in_any_stage=False), "in_service", [BETTER, worse])[0]


def test_a_source_alone_refuses_nobody() -> None:
    worse = dataclasses.replace(BETTER, group="source:git", difference=Interval(low=0.1, high=0.2, level=0.95))
    assert pass_gate(GateRule(), "in_service", [BETTER, worse])[0]


def test_another_rivals_comparison_does_not_count() -> None:
    assert not pass_gate(GateRule(), "base", [BETTER])[0]


def test_where_more_is_better_the_interval_must_lie_above_zero() -> None:
    rule = GateRule(metric="doctests_passed")
    found = dataclasses.replace(BETTER, metric="doctests_passed", lower_is_better=False)
    assert not pass_gate(rule, "in_service", [found])[0]
    found = dataclasses.replace(found, difference=Interval(low=0.1, high=0.2, level=0.95))
    assert pass_gate(rule, "in_service", [found])[0]
