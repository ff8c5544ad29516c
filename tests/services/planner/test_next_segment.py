"""What the coordinator is told to do next: the first segment of the whole plan, a wait, or the rule."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, time, timedelta

import pytest

from elias.domain.hours import DailyHours
from elias.domain.label import Label
from elias.domain.offer import Offer, refused_place
from elias.domain.run import Bounds, Run, Segment
from elias.domain.speed import Estimate, Overheads
from elias.services.estimate import Forecast
from elias.services.plan import TURN, Ask, begins_elsewhere, next_segment
from elias.services.planner.outlook import Outlook, Sight, queue_problem
from elias.services.planner.queue import plan_queue
from elias.testing.nouns import a_run
from elias.units import FREE, Money
from tests.services.planner.conftest import HOUR, NOW, days, kaggle, place, rented

NO_TIME = Estimate(low=0.0, likely=0.0, high=0.0)
LOCAL = place("local").offer
KAGGLE = kaggle().offer
RENTED = rented().offer


def sight(offer: Offer, step_s: float, steps: int | None, factor: float = 1.0) -> Sight:
    told = Forecast(
        step=Estimate.around(step_s, factor),
        steps=steps,
        overheads=Overheads(start_up=NO_TIME, checkpoint=NO_TIME),
        basis=(),
    )
    return Sight(offer=offer, forecast=told, refill=30 * HOUR if offer.left is not None else None)


def outlook(steps: int | None = 240, budget: Money | None = None, **bounds: object) -> Outlook:
    speeds = ((LOCAL, 600), (KAGGLE, 60), (RENTED, 30))
    sights = [sight(offer, step_s, steps) for offer, step_s in speeds]
    run: Run = replace(a_run(), label=Label.SHARED, bounds=Bounds(budget=budget, **bounds))
    return Outlook(run=run, now=NOW, sights=sights, budget=budget)


def ask(ahead: Outlook, span: timedelta | None = None) -> Ask:
    return Ask(label=ahead.run.label, now=NOW, span=span, budget_left=ahead.budget)


def test_it_is_the_first_segment_of_the_plan_for_the_whole_run():
    ahead = outlook(steps=600, budget=Money.usd(20), by=days(1))
    plan = next_segment(ask(ahead), ahead)
    parts = [(s.offer.backend, s.steps) for s in plan.segments]
    assert parts == [("kaggle", 240), ("local", 107), ("sagemaker", 253)]
    assert plan.segments[0].span == 4 * HOUR and plan.wait_until is None


def test_a_rented_span_is_never_longer_than_needed():
    ahead = replace(outlook(budget=Money.usd(20), by=NOW + 2 * HOUR), sights=[sight(RENTED, 30, 120)])
    [segment] = next_segment(ask(ahead), ahead).segments
    assert segment.offer is RENTED and segment.span == HOUR and segment.reserve == Money.usd(2)


def test_where_nothing_is_asked_for_it_the_last_segment_runs_to_the_end_of_the_run():
    ahead = replace(outlook(), sights=[sight(LOCAL, 600, 240)])
    [segment] = next_segment(ask(ahead), ahead).segments
    assert segment.span is None and segment.reserve == FREE


def test_it_waits_for_free_hours_that_are_still_in_time_and_plans_again_within_the_hour():
    empty = replace(KAGGLE, left=timedelta(0))
    ahead = replace(outlook(budget=Money.usd(20), by=days(6)), sights=[sight(empty, 60, 240), sight(RENTED, 30, 240)])
    plan = next_segment(ask(ahead), ahead)
    assert plan.wait_until == NOW + HOUR and plan.reason.startswith(
        "waiting for kaggle until Sat 28 Nov 00:00 UTC: free"
    )
    soon = replace(ahead, run=replace(ahead.run, bounds=replace(ahead.run.bounds, by=days(2))))
    assert next_segment(ask(soon), soon).segments[0].offer is RENTED


def test_a_refusal_that_passes_is_waited_for_while_it_is_in_time_and_then_paid_around():
    held = replace(LOCAL, refused="inference needs this machine", refused_until=NOW + HOUR / 2)
    ahead = replace(outlook(budget=Money.usd(20), by=days(4)), sights=[sight(held, 600, 240), sight(RENTED, 30, 240)])
    plan = next_segment(ask(ahead), ahead)
    assert plan.wait_until == NOW + HOUR / 2 and plan.segments[0].offer is held
    late = replace(ahead, run=replace(ahead.run, bounds=replace(ahead.run.bounds, by=days(1.6))))
    parts = [(s.offer.backend, s.starts_at) for s in next_segment(ask(late), late).segments]
    assert {backend for backend, _ in parts} == {"local", "sagemaker"}
    assert all(starts >= NOW + HOUR / 2 for backend, starts in parts if backend == "local")
    hurry = replace(ahead, run=replace(ahead.run, bounds=replace(ahead.run.bounds, by=NOW + 3 * HOUR)))
    assert next_segment(ask(hurry), hurry).segments[0].offer is RENTED


def test_of_a_place_that_never_answered_nothing_is_expected():
    unknown = refused_place("kaggle", "no answer", "it does not answer", NOW + HOUR / 2)
    ahead = replace(outlook(by=days(4)), sights=[sight(unknown, 1, 24), sight(LOCAL, 600, 24)])
    assert next_segment(ask(ahead), ahead).segments[0].offer is LOCAL
    alone = replace(ahead, sights=[sight(unknown, 1, 24)])
    plan = next_segment(ask(alone), alone)
    assert plan.segments == () and plan.wait_until == NOW + HOUR / 2


def test_runs_with_a_deadline_take_turns_on_this_machine():
    ahead = replace(outlook(by=days(4)), sights=[sight(LOCAL, 600, 240)])
    plan = next_segment(ask(ahead), ahead)
    assert plan.segments[0].span == TURN and plan.is_in_time


def test_hours_of_the_day_are_kept_by_the_plan_and_by_its_first_segment():
    night = replace(LOCAL, hours=DailyHours(opens=time(10), closes=time(14), zone=UTC))
    ahead = replace(outlook(by=days(4)), sights=[sight(night, 600, 60)])
    plan = next_segment(ask(ahead), ahead)
    assert [(s.starts_at - NOW) // HOUR for s in plan.segments] == [0, 22, 46]
    assert plan.segments[0].span == 2 * HOUR and all((s.ends_at - NOW) // HOUR % 24 <= 2 for s in plan.segments)
    unknown = replace(outlook(steps=None), sights=[sight(night, 600, None)])
    assert next_segment(ask(unknown), unknown).segments[0].span == 2 * HOUR


def test_a_segment_in_a_queue_is_in_vain_only_where_the_run_could_begin_elsewhere_now():
    ahead = replace(outlook(by=days(4)), sights=[sight(LOCAL, 600, 240)])
    plan = next_segment(ask(ahead), ahead)
    waits = Segment(run="r", number=1, backend="kaggle")
    assert begins_elsewhere(plan, waits)
    assert not begins_elsewhere(plan, replace(waits, backend="local"))
    assert not begins_elsewhere(replace(plan, wait_until=NOW + HOUR), waits)
    assert not begins_elsewhere(replace(plan, segments=()), waits)


def test_no_more_work_is_reckoned_as_lost_than_there_is():
    ahead = replace(outlook(), sights=[sight(KAGGLE, 1, 60)], checkpoint_every=HOUR)
    [place] = ahead.problem().places
    assert place.loss == timedelta(minutes=1)


def test_no_money_is_spent_on_a_run_that_it_does_not_suffice_for():
    ahead = replace(outlook(budget=Money.usd(1)), sights=[sight(RENTED, 30, 240)])
    plan = next_segment(ask(ahead), ahead)
    assert plan.segments == () and plan.reason == "cannot be done within $1.00: $3.00 more"
    assert (
        next_segment(ask(outlook(budget=Money.usd(1))), outlook(budget=Money.usd(1))).segments[0].offer.hourly == FREE
    )


def test_a_run_as_likely_as_not_to_be_done_with_its_budget_is_begun():
    ahead = replace(outlook(budget=Money.parse("4.40")), sights=[sight(RENTED, 30, 240, 1.5)])
    plan = next_segment(ask(ahead), ahead)
    assert plan.segments[0].offer is RENTED and plan.reserve <= Money.parse("4.40") and plan.wanted == 0.9


def test_a_late_run_goes_on_until_its_deadline_within_its_budget():
    ahead = outlook(steps=6000, budget=Money.usd(3), by=NOW + 5 * HOUR)
    plan = next_segment(ask(ahead, 5 * HOUR), ahead)
    assert plan.is_in_time is False and plan.segments[0].span <= 5 * HOUR
    assert plan.segments[0].reserve <= Money.usd(3)


@pytest.mark.parametrize("ahead", [outlook(steps=None), outlook(steps=240, train_for=HOUR)])
def test_without_a_known_amount_of_work_the_rule_decides(ahead):
    plan = next_segment(ask(ahead, HOUR), ahead)
    assert plan.segments[0].span == HOUR and plan.is_in_time is None


def test_standing_runs_are_planned_together():
    first = outlook(steps=200, budget=Money.usd(9), by=days(2))
    second = replace(first, run=replace(first.run, id="another"))
    unknown = outlook(steps=None)
    made = plan_queue(queue_problem([first, second, unknown], Money.usd(100)))
    assert [plan.run for plan in made.plans] == [first.run.id, "another"] and made.in_time == 2
