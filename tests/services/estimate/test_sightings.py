"""What was seen of places: failures that are theirs, starts, speeds."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elias.domain.run import SegmentFailure, SegmentState
from elias.services.sightings import NOTHING_SEEN, Reliability, Seen, SegmentStory, step_seconds, what_was_seen
from elias.testing.nouns import NOON, a_run, a_segment
from elias_trainer.contract import FailureKind

from .conftest import Script, a_part


def story(state, kind=None, events=(), **fields):
    failure = SegmentFailure(kind=kind, message="m", fix="f") if kind else None
    segment = replace(a_segment(), state=state, failure=failure, **fields)
    return SegmentStory(run=a_run(), segment=segment, events=events)


def test_only_what_a_place_is_to_blame_for_counts_against_it():
    seen = what_was_seen(
        [
            story(SegmentState.DONE),
            story(SegmentState.PAUSED),
            story(SegmentState.FAILED, FailureKind.INFRASTRUCTURE),
            story(SegmentState.FAILED, FailureKind.PREEMPTED),
            story(SegmentState.FAILED, FailureKind.USER),
            story(SegmentState.FAILED, FailureKind.QUOTA),
            story(SegmentState.CANCELLED),
            story(SegmentState.RUNNING),
        ]
    ).of("local")
    assert (seen.segments, seen.failures) == (4, 2)


@given(st.integers(0, 200), st.integers(0, 200))
def test_a_failure_rate_lies_between_the_guess_and_what_was_seen(good, bad):
    rate = Reliability(segments=good + bad, failures=bad).failure_rate
    guess, share = NOTHING_SEEN.failure_rate, bad / (good + bad) if good + bad else NOTHING_SEEN.failure_rate
    assert min(guess, share) - 1e-9 <= rate <= max(guess, share) + 1e-9


def test_a_place_nobody_has_used_fails_as_often_as_assumed():
    assert Seen().of("anywhere").failure_rate == pytest.approx(0.05)
    assert Seen().of("anywhere").start_delay is None


def test_a_start_is_timed_from_submitting_to_the_trainers_first_word():
    events = Script([1.0]).events()
    late = story(SegmentState.DONE, events=events, submitted_at=NOON - timedelta(seconds=180))
    early = story(SegmentState.DONE, events=events, submitted_at=NOON + timedelta(seconds=5))
    unknown = story(SegmentState.DONE, events=events)
    assert what_was_seen([late]).of("local").start_delay == 180
    assert what_was_seen([early]).of("local").start_delay == 0
    assert what_was_seen([unknown]).of("local").start_delay is None


def test_a_run_counts_once_on_like_hardware_and_by_its_longest_segment():
    run = a_run()
    stories = [
        SegmentStory(run=run, segment=a_part(run, number), events=Script([2.0] * count).events())
        for number, count in ((1, 3), (2, 30), (3, 7))
    ]
    seen = what_was_seen(stories)
    assert [sighting.measured.steps for sighting in seen.sightings] == [30]
    other = SegmentStory(run=run, segment=a_part(run, 4), events=Script([2.0] * 5, count=2).events())
    assert len(what_was_seen([*stories, other]).sightings) == 2


def test_a_gap_in_the_events_is_shared_out_over_the_steps_in_it():
    events = Script([2.0] * 10).events()
    kept = [event for event in events if event.get("step") not in (4, 5, 6)]
    told, whole = step_seconds(kept), step_seconds(events)
    assert told is not None
    assert whole is not None
    assert told.seconds == pytest.approx(whole.seconds)


def test_steps_done_again_after_a_crash_do_not_count_backwards():
    again = [*Script([2.0] * 5).events(), *Script([2.0] * 5).events()[3:]]
    told = step_seconds(again)
    assert told is not None
    assert told.seconds == pytest.approx(2.0)


def test_another_trainers_word_for_a_precision_is_left_alone():
    run = a_run()
    strange = Script([2.0] * 5, precision="int3").events()
    assert what_was_seen([SegmentStory(run=run, segment=a_part(run), events=strange)]).sightings == ()
