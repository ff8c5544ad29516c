"""What is left of a run: a wide guess at first, narrower with every step that was timed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elias.domain.run import Checkpoint, RunState
from elias.domain.speed import Estimate
from elias.services.estimate import Known, corrected, forecast, forecast_new, remaining
from elias.services.eta import eta
from elias.services.sightings import Seen, SegmentStory, what_was_seen
from elias.services.workload import Work, work_unknown
from elias.testing.nouns import a_digest, minutes_past_noon
from elias_trainer.contract import BaseModel, Method

from .conftest import BASE, Script, a_part, an_offer

PRIOR = Estimate.around(1.0, 3.0)
spans = st.lists(st.floats(0.5, 2.0), min_size=1, max_size=60)


@given(spans, st.floats(0.01, 1000))
def test_measured_steps_never_widen_what_was_known(found, unit):
    told = corrected(Estimate.around(unit, 3.0), Script([span * unit for span in found]).events())
    assert told.factor <= PRIOR.factor * (1 + 1e-9)


@given(st.floats(0.2, 5.0), st.integers(1, 7))
def test_more_steps_of_one_length_tell_more(seconds, few):
    less, more = (corrected(PRIOR, Script([seconds] * count).events()) for count in (few, few * 8))
    assert more.factor < less.factor < PRIOR.factor
    assert abs(math.log(more.likely / seconds)) <= abs(math.log(less.likely / seconds)) + 1e-9


@given(st.floats(0.2, 5.0))
def test_it_comes_to_what_is_measured_however_wrong_the_guess_was(seconds):
    told = corrected(PRIOR, Script([seconds] * 150).events())
    assert told.likely == pytest.approx(seconds, rel=0.03)
    assert told.low < seconds < told.high
    assert told.factor < 1.2


@given(st.floats(0, 3600))
def test_a_slow_first_step_changes_nothing_once_there_is_a_second(first):
    assert corrected(PRIOR, Script([2.0, 2.0], first=first + 0.1).events()) == corrected(
        PRIOR, Script([2.0, 2.0], first=2.0).events()
    )


def test_a_first_step_alone_is_believed_a_little():
    told = corrected(PRIOR, Script([], first=3.0).events())
    assert 1.0 < told.likely < 3.0
    assert told.factor < PRIOR.factor


def test_a_laptop_that_slept_for_a_night_does_not_make_its_steps_slow():
    awake = corrected(PRIOR, Script([2.0] * 40).events())
    slept = corrected(PRIOR, Script([2.0] * 20 + [36000.0] + [2.0] * 19).events())
    assert slept.likely < awake.likely * 1.1


def test_events_without_a_step_leave_the_guess_as_it_was():
    assert corrected(PRIOR, Script([]).events()[:3]) == PRIOR
    assert corrected(PRIOR, []) == PRIOR


# Runs


def test_steps_timed_on_the_place_itself_decide(run, t4):
    part = a_part(run)
    before = forecast(run, (), {}, t4)
    after = forecast(run, (part,), {part.key: Script([4.0] * 100).events()}, t4)
    assert before.steps is None
    assert after.steps == 1000
    assert after.step.likely == pytest.approx(4.0, rel=0.05)
    assert after.step.factor < 1.3 < before.step.factor
    assert any("100 steps" in line for line in after.basis)


def test_steps_timed_elsewhere_tell_about_the_job_and_less_about_the_place(run, t4):
    part, a10g = a_part(run, backend="sagemaker"), an_offer("ml.g5.xlarge", backend="sagemaker")
    plain = forecast(run, (), {}, t4)
    elsewhere = Script([0.001] * 100, accelerator="NVIDIA A10G", precision="bf16", tokens=4000 * 300)
    events = {part.key: elsewhere.events()}
    there, here = forecast(run, (part,), events, a10g), forecast(run, (part,), events, t4)
    assert there.step.likely == pytest.approx(0.001, rel=0.1)
    assert there.step.likely < here.step.likely < plain.step.likely
    assert there.step.factor < here.step.factor < plain.step.factor


def test_another_runs_speed_on_the_same_card_narrows_the_next_guess(run, t4):
    other = replace(run, id="run-0")
    seen = what_was_seen([SegmentStory(run=other, segment=a_part(other), events=Script([9.0] * 50).events())])
    known = Known(seen=seen, work=Work(step_total=1000, sequences=work_unknown(run.recipe).sequences, factor=1.4))
    plain, told = forecast(run, (), {}, t4, replace(known, seen=Seen())), forecast(run, (), {}, t4, known)
    assert told.step.factor < plain.step.factor
    assert any("1 other run" in line for line in told.basis)
    elsewhere = an_offer("ml.g6.xlarge", backend="sagemaker")
    assert forecast(run, (), {}, elsewhere, known) == forecast(run, (), {}, elsewhere, replace(known, seen=Seen()))


def test_a_cpu_elsewhere_says_nothing_about_this_machines(run):
    here = an_offer("cpu", backend="local")
    other = replace(run, id="run-0")
    events = Script([9.0] * 50, accelerator="cpu", precision="fp32").events()
    for backend, counts in (("kaggle", False), ("local", True)):
        seen = what_was_seen([SegmentStory(run=other, segment=a_part(other, backend=backend), events=events)])
        told, plain = (forecast(run, (), {}, here, Known(seen=one)) for one in (seen, Seen()))
        assert (told.step.factor < plain.step.factor) is counts


def test_what_is_left_begins_at_the_newest_checkpoint(run, t4):
    part = replace(a_part(run), end=Checkpoint(step=400, digest=a_digest("c"), path="c"))
    left = remaining(run, (part,), {part.key: Script([4.0] * 100).events()}, t4)
    assert left is not None
    assert left.likely == pytest.approx(600 * 4.0, rel=0.05)


def test_nobody_knows_what_is_left_without_a_corpus_but_a_step_has_a_time(run, t4):
    assert remaining(run, (), {}, t4) is None
    assert remaining(run, (), {}, t4, Known(work=Work(step_total=7, sequences=work_unknown(run.recipe).sequences,
                                                      factor=1.0))) is not None  # fmt: skip


def test_a_base_that_nobody_can_read_is_guessed_and_said_to_be(run, t4, a_need):
    known, named, strange = (
        forecast_new(replace(a_need, base=BaseModel(reference=name)), t4) for name in (BASE, "x/y-1.3b", "x/y")
    )
    assert known.step.factor < named.step.factor < strange.step.factor
    assert any(line.startswith("base: assumed") for line in strange.basis)


def test_a_larger_method_takes_longer_on_the_same_offer(t4, a_need):
    lora, full = (
        forecast_new(replace(a_need, recipe=replace(a_need.recipe, method=m)), t4) for m in (Method.LORA, Method.FULL)
    )
    assert full.step.likely > lora.step.likely
    assert full.overheads.checkpoint.likely > lora.overheads.checkpoint.likely


def test_the_eta_of_a_segment_under_way_is_of_its_own_hardware(run):
    now = minutes_past_noon(10)
    told = eta(replace(run, state=RunState.RUNNING), a_part(run), Script([3.0] * 99).events(), now)
    assert told is not None
    assert told.steps == 900
    assert told.seconds.likely == pytest.approx(2700, rel=0.05)
    assert told.ends_at > now
    assert eta(run, a_part(run), Script([]).events()[:3], now) is None
