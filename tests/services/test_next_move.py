"""What a run does next follows from its wish and its segments alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from elias.domain.label import Label
from elias.domain.run import Bounds, Checkpoint, Run, RunState, Segment, SegmentFailure, SegmentState, Wish
from elias.services.next_move import (
    LONGEST_WAIT,
    MOST_FAILURES,
    Begin,
    End,
    Finish,
    GoOn,
    counts_as_failure,
    limits,
    next_move,
    time_left,
)
from elias_trainer.contract import AtDeadline, BaseModel, FailureKind, Recipe, digest_bytes

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
RUN = Run(
    id="r",
    created_at=NOW,
    strategy="local",
    base=BaseModel(reference="tiny"),
    recipe=Recipe(),
    corpus=digest_bytes(b"corpus"),
    label=Label.PRIVATE,
)


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(
        step=step, digest=digest_bytes(b"%d" % step), path=f"segments/0001/out/checkpoint/step-{step:08d}"
    )


def segment(number: int, state: SegmentState, end: int | None = None, kind: FailureKind | None = None) -> Segment:
    failure = SegmentFailure(kind=kind, message=f"{kind} happened", fix="mend it") if kind else None
    return Segment(
        run="r", number=number, backend="local", state=state, end=checkpoint(end) if end else None, failure=failure
    )


def test_a_new_run_begins_its_first_segment_from_nothing():
    assert next_move(RUN, [], 0) == Begin(1, None)


@pytest.mark.parametrize("state", [SegmentState.PENDING, SegmentState.RUNNING])
@pytest.mark.parametrize("wish", list(Wish))
def test_a_segment_under_way_is_carried_on_whatever_the_wish(state, wish):
    under_way = segment(1, state)
    assert next_move(replace(RUN, wish=wish), [under_way], 0) == GoOn(under_way)


def test_a_paused_segment_is_followed_by_one_from_the_newest_checkpoint():
    lost = segment(2, SegmentState.FAILED, kind=FailureKind.PREEMPTED)
    assert next_move(RUN, [segment(1, SegmentState.PAUSED, 7), lost], 0) == Begin(3, checkpoint(7))


@pytest.mark.parametrize("wish", list(Wish))
def test_a_finished_adapter_becomes_an_artifact_even_when_the_wish_came_too_late(wish):
    done = segment(1, SegmentState.DONE, 9)
    assert next_move(replace(RUN, wish=wish), [done], 0) == Finish(done)


@pytest.mark.parametrize(("wish", "state"), [(Wish.PAUSE, RunState.PAUSED), (Wish.CANCEL, RunState.CANCELLED)])
def test_between_segments_the_wish_is_granted(wish, state):
    move = next_move(replace(RUN, wish=wish), [segment(1, SegmentState.PAUSED, 7)], 0)
    assert move == End(state, f"{state} at step 7")


@pytest.mark.parametrize("kind", [FailureKind.USER, FailureKind.VERIFICATION])
def test_what_trying_again_would_not_cure_ends_the_run(kind):
    failed = segment(1, SegmentState.FAILED, 3, kind)
    assert counts_as_failure(failed)
    assert next_move(RUN, [failed], 1) == End(RunState.FAILED, f"{kind} happened")


def test_after_a_budget_ran_out_the_next_plan_says_what_it_takes_to_go_on():
    assert isinstance(next_move(RUN, [segment(1, SegmentState.FAILED, 3, FailureKind.BUDGET)], 0), Begin)


def test_a_resumed_run_tries_again_all_the_same():
    assert next_move(RUN, [segment(1, SegmentState.FAILED, 3, FailureKind.USER)], 0) == Begin(2, checkpoint(3))


def test_waits_grow_and_end():
    failed = segment(1, SegmentState.FAILED, kind=FailureKind.INFRASTRUCTURE)
    waits = [next_move(RUN, [failed], n).wait for n in range(1, MOST_FAILURES)]
    assert waits == sorted(waits) and waits[0] > timedelta(0)
    last = next_move(RUN, [failed], MOST_FAILURES)
    assert isinstance(last, End) and last.state is RunState.FAILED and "no progress" in last.reason


@pytest.mark.parametrize("failures", [1, MOST_FAILURES, 99])
def test_a_quota_that_is_missing_never_ends_a_run_nor_keeps_it_from_planning_anew(failures):
    failed = segment(1, SegmentState.FAILED, 3, FailureKind.QUOTA)
    move = next_move(RUN, [failed], failures)
    assert isinstance(move, Begin) and move.start == checkpoint(3) and timedelta(0) < move.wait <= LONGEST_WAIT


def test_a_segment_that_got_further_is_no_failure_even_if_it_was_lost():
    assert not counts_as_failure(segment(1, SegmentState.FAILED, 3, FailureKind.PREEMPTED))
    stuck = replace(segment(2, SegmentState.PAUSED, 3), start=checkpoint(3))
    assert counts_as_failure(stuck)


def test_time_is_counted_over_all_segments_and_never_runs_below_the_last_one():
    used = replace(segment(1, SegmentState.PAUSED, 3), started_at=NOW, ended_at=NOW + timedelta(minutes=4))
    bounds = Bounds(train_for=timedelta(minutes=10))
    assert time_left(bounds, [used], NOW) == timedelta(minutes=6)
    assert time_left(bounds, [used, used, used], NOW) == timedelta(seconds=1)
    assert time_left(Bounds(), [used], NOW) is None
    assert time_left(replace(bounds, by=NOW + timedelta(minutes=1)), [], NOW) == timedelta(minutes=1)


def test_a_last_segment_that_is_reserved_for_longer_writes_the_adapter_when_the_runs_time_is_over():
    used = replace(segment(1, SegmentState.PAUSED, 3), started_at=NOW, ended_at=NOW + timedelta(minutes=10))
    run = replace(RUN, bounds=Bounds(train_for=timedelta(minutes=10)))
    last = limits(run, [used], timedelta(minutes=2), NOW)
    assert (last.seconds, last.at_deadline) == (1.0, AtDeadline.FINISH)
    earlier = limits(run, [], timedelta(minutes=2), NOW)
    assert (earlier.seconds, earlier.at_deadline) == (120.0, AtDeadline.PAUSE)


def test_a_segment_that_made_way_never_counts_however_little_it_did():
    assert not counts_as_failure(segment(1, SegmentState.PAUSED, kind=FailureKind.PREEMPTED))
    assert counts_as_failure(segment(1, SegmentState.FAILED, kind=FailureKind.PREEMPTED))
    assert counts_as_failure(segment(1, SegmentState.PAUSED))
