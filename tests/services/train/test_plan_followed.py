"""The coordinator asks the planner at each segment's boundary, and waits where the plan does."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from elias.adapters.clock import SystemClock
from elias.domain.offer import Need, Offer
from elias.domain.run import RunState, Segment, SegmentFailure, SegmentState
from elias.ports.backend import Quota
from elias.services.foresee import NO_QUOTA_WAIT, OVERDUE
from elias.services.next_move import newest_checkpoint
from elias.units import FREE, instant
from elias_trainer.contract import FailureKind

HOUR = timedelta(hours=1)


class Rationed:
    """A place whose hours are used up until `refreshes_at`; it is asked, and nothing is ever sent there."""

    allowed: timedelta | None = 30 * HOUR

    def __init__(self, refreshes_at: datetime) -> None:
        self.refreshes_at = refreshes_at

    def offers(self, need: Need) -> Sequence[Offer]:
        return [
            Offer(
                backend="local",
                accelerator="NvidiaTeslaT4",
                accelerator_count=2,
                memory_bytes=15 * 2**30,
                tflops=None,
                hourly=FREE,
                longest=9 * HOUR,
                left=timedelta(0),
                refreshes_at=self.refreshes_at,
            )
        ]

    def quota(self) -> Quota:
        return Quota(
            used=30 * HOUR,
            reserved=timedelta(0),
            allowed=self.allowed,
            refreshes_at=self.refreshes_at,
            running=0,
            concurrency=2,
        )


def test_it_waits_for_free_hours_and_says_which_and_until_when(world):
    world.place = Rationed(SystemClock().now() + timedelta(days=2))
    run = world.run()
    move = world.coordinator().plan_next(run.id, 0)
    waiting = world.stores.runs.get(run.id)
    assert move["do"] == "wait" and waiting.state is RunState.WAITING
    assert waiting.reason.startswith(f"waiting for local until {world.place.refreshes_at:%a %d %b %H:%M} UTC: free")
    assert world.segments(run) == []


def test_a_place_that_names_a_moment_that_has_passed_is_not_asked_again_without_a_pause(world):
    """Whose clock is behind ours: its week is over by ours, and not yet by its own."""
    world.place = Rationed(SystemClock().now() - timedelta(hours=2))
    world.place.allowed = None  # it does not say what the next week holds
    asked_at = SystemClock().now()
    move = world.coordinator().plan_next(world.run().id, 0)
    assert move["do"] == "wait" and instant(move["until"]) > asked_at + timedelta(minutes=10)


def test_steps_that_are_done_are_not_planned_again(world):
    run = world.run(steps=40, segment_steps=20)
    assert [segment.steps for segment in world.coordinator().planning.look_ahead(run).segments] == [20, 20]
    done = world.carry(run)
    assert done.state is RunState.DONE and newest_checkpoint(world.segments(run)).step == 40
    problem = world.coordinator().planning.outlook(run, world.segments(run)[:1], world.corpus, None).problem()
    assert problem.runs[0].steps == 20


def test_looking_ahead_changes_nothing(world):
    run = world.run()
    plan = world.coordinator().planning.look_ahead(run)
    assert plan.is_in_time and sum(segment.steps for segment in plan.segments) == 12
    assert world.stores.runs.get(run.id) == run and not (world.home / "runs" / run.id).exists()


def train_another(world, began: timedelta = timedelta(0)) -> None:
    """For two hours that began so long ago."""
    other = world.run()
    world.stores.runs.update(other.id, state=RunState.RUNNING)
    world.stores.runs.put_segment(
        Segment(
            run=other.id,
            number=1,
            backend="local",
            state=SegmentState.RUNNING,
            handle="x",
            planned_for=2 * HOUR,
            started_at=SystemClock().now() - began,
        )
    )


def test_a_session_that_should_be_over_is_not_free_before_it_is(world):
    train_another(world, began=3 * HOUR)
    asked_at = SystemClock().now()
    plan = world.coordinator().planning.look_ahead(world.run())
    assert plan.segments[0].starts_at - asked_at > OVERDUE - timedelta(minutes=1)


def test_where_a_place_has_no_quota_for_it_a_run_looks_for_another_at_once(world):
    run = world.run()
    failed = Segment(
        run=run.id,
        number=1,
        backend="local",
        state=SegmentState.FAILED,
        ended_at=SystemClock().now(),
        failure=SegmentFailure(kind=FailureKind.QUOTA, message="all machines are taken", fix="wait"),
    )
    world.stores.runs.put_segment(failed)
    [sight] = world.coordinator().planning.outlook(run, [failed], world.corpus, None).sights
    assert sight.offer.refused == "all machines are taken"
    assert sight.offer.refused_until == failed.ended_at + NO_QUOTA_WAIT


def test_a_session_of_another_run_is_planned_around(world):
    asked_at = SystemClock().now()
    train_another(world)
    run = world.run()
    plan = world.coordinator().planning.look_ahead(run)
    assert plan.segments[0].starts_at - asked_at > timedelta(minutes=119)
    assert "waiting for local" in plan.reason and plan.wait_until is not None
    # it is sent all the same: this machine begins it the moment the other one ends
    assert world.coordinator().plan_next(run.id, 0) == {"do": "segment", "segment": 1}
