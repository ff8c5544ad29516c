"""Simulated places keep their own rules, and their arithmetic loses no step."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from elias.domain.label import Label
from elias.domain.offer import Need
from elias.domain.run import SegmentState
from elias.testing.places.kinds import RENTED, LikeKaggle, LikeSageMaker, LikeThisMachine
from elias.testing.places.place import TrueSpeed
from elias.testing.places.session import Session, Terms, begun, checkpoint_digest, checkpoint_step
from elias.testing.places.world import HOUR, START, WEEK, World, WorldClock
from elias.units import Money
from elias_trainer.contract import (
    AtDeadline,
    BaseModel,
    Digest,
    FailureKind,
    Input,
    Job,
    Limits,
    Recipe,
    digest_bytes,
    tree_digest,
)

NEED = Need(base=BaseModel(reference="tiny"), recipe=Recipe(), label=Label.PUBLIC, corpus_bytes=1)


def job(steps=1000, run="run", **limits):
    corpus = Input(path="corpus.jsonl", digest=Digest(digest_bytes(b"")))
    return Job(
        run=run,
        segment=f"{run}-0001",
        base=BaseModel(reference="tiny"),
        corpus=corpus,
        recipe=Recipe(max_steps=steps),
        limits=Limits(**limits),
    )


def session(start=0, terms=None, **given_job):
    order = job(**given_job)
    waiting = Session(key=order.segment, job=order, variant="", start_step=start, submitted_at=START)
    own = Terms(step_s=10.0, load_s=60.0, precision="fp16", accelerator="T4", count=1)
    return begun(waiting, START, 0, replace(own, **(terms or {})))


limits = st.fixed_dictionaries(
    {}, optional={"seconds": st.floats(120, 50_000), "checkpoint_every_s": st.floats(60, 3000)}
)
moments = st.lists(st.floats(0, 40_000), min_size=2, max_size=8).map(sorted)


@given(start=st.integers(0, 900), limits=limits, taken=st.none() | st.floats(1, 30_000), at=moments)
@settings(max_examples=60)
def test_what_is_kept_of_a_session_only_grows_and_every_checkpoint_was_announced(start, limits, taken, at):
    taken_at = None if taken is None else START + timedelta(seconds=taken)
    one = session(start, {"taken_at": taken_at}, **limits)
    kept = [one.kept_step(START + timedelta(seconds=moment)) for moment in at]
    assert kept == sorted(kept) and all(start <= step <= one.total for step in kept)
    told = {e["step"]: e["digest"] for e in one.events(one.ends_at) if e["kind"] == "checkpoint"}
    last = one.kept_step(one.ends_at)
    assert last == start or told[last] == checkpoint_digest("run", last)


def test_a_chain_of_sessions_does_every_step_once():
    steps, at = [], 0
    while at < 1000:
        one = session(at, seconds=3600.0)
        steps += range(at + 1, one.kept_step(one.ends_at) + 1)
        assert one.ends_at - START <= timedelta(hours=1)
        at = one.kept_step(one.ends_at)
    assert steps == list(range(1, 1001))


def test_a_session_that_inference_interrupts_pauses_and_one_at_its_deadline_writes_its_adapter():
    yields = session(terms={"yields_at": START + HOUR}, seconds=7200.0, at_deadline=AtDeadline.FINISH)
    assert yields.state(START + 2 * HOUR) is SegmentState.PAUSED
    late = session(seconds=3600.0, at_deadline=AtDeadline.FINISH)
    assert late.state(START + 2 * HOUR) is SegmentState.DONE and late.kept_step(late.ends_at) < 1000


def test_the_files_of_a_session_are_what_its_events_say(tmp_path):
    one = session(seconds=3600.0)
    one.write(one.ends_at, tmp_path)
    [folder] = (tmp_path / "checkpoint").iterdir()
    step = checkpoint_step(folder, "run")
    assert step == one.kept_step(one.ends_at) and tree_digest(folder) == checkpoint_digest("run", step)


def _places(seed=3):
    world, clock = World(seed=seed, weeks=2), WorldClock()
    common = {"world": world, "clock": clock, "truth": lambda job, offer: TrueSpeed(10.0, 60.0, "fp16")}
    kaggle = LikeKaggle(name="kaggle", **common)
    return (
        clock,
        kaggle,
        LikeSageMaker(name="sagemaker", kinds=RENTED, **common),
        LikeThisMachine(name="local", **common),
    )


def _send(place, numbers, variant="", seconds=6 * 3600.0):
    for number in numbers:
        order = job(10_000, f"run{number}", seconds=seconds)
        one = Session(key=order.segment, job=order, variant=variant, start_step=0, submitted_at=place.clock.now())
        place.sessions[one.key] = one


def _most_at_once(sessions):
    edges = sorted([(s.begins_at, 1) for s in sessions] + [(s.ends_at, -1) for s in sessions])
    running = [sum(change for _, change in edges[: n + 1]) for n in range(len(edges))]
    return max(running)


def test_kaggle_never_runs_more_than_two_nor_more_hours_than_the_week_has():
    clock, kaggle, _, _ = _places()
    _send(kaggle, range(12))
    for _ in range(14 * 24):
        clock.sleep(HOUR)
        kaggle.poll("run0-0001")
    done = [s for s in kaggle.sessions.values() if s.begins_at]
    assert len(done) == 12 and _most_at_once(done) == 2
    for week in (0, 1):
        own = [s for s in done if (s.begins_at - START) // WEEK == week]
        allowed = kaggle.world.quota(week, kaggle.least, kaggle.extra)
        assert sum(s.hours(kaggle.world.end) for s in own) * HOUR <= allowed


def test_this_machine_trains_one_at_a_time_and_never_while_inference_wants_it():
    clock, _, _, local = _places()
    _send(local, range(4))
    for _ in range(5 * 24):
        clock.sleep(HOUR)
        local.poll("run0-0001")
    done = [s for s in local.sessions.values() if s.begins_at]
    assert len(done) > 1 and _most_at_once(done) == 1
    for spell in local.world.inference():
        assert not any(s.begins_at < spell.ends and spell.begins < s.ends_at for s in done)
    handed_back = [s for s in local.sessions.values() if s.begins_at is None]
    assert handed_back and all(s.state(clock.now()) is SegmentState.PAUSED for s in handed_back)
    assert {s.failure(clock.now()).kind for s in handed_back} == {FailureKind.PREEMPTED}


def test_this_machine_refuses_while_inference_has_it_and_does_not_say_until_when():
    clock, _, _, local = _places()
    busy = local.world.inference()[0]
    assert local.offers(NEED)[0].refused is None
    clock.sleep(busy.begins - START)
    [held] = local.offers(NEED)
    assert held.refused and clock.now() < held.refused_until < busy.ends
    clock.sleep(busy.ends - busy.begins)
    assert local.offers(NEED)[0].refused is None


def test_a_rented_machine_is_charged_by_its_price_when_it_began_and_never_past_its_limit():
    clock, _, sagemaker, _ = _places()
    _send(sagemaker, [1], "ml.g5.xlarge", 3600.0)
    _send(sagemaker, [2], "ml.g5.xlarge spot", 3600.0)
    clock.sleep(2 * HOUR)
    billed = sagemaker.billed(START, clock.now())
    assert Money.usd("1.30") < billed["run1-0001"] <= Money.usd("1.4550")
    assert billed["run2-0001"] < billed["run1-0001"]


def test_a_world_is_the_same_whatever_is_asked_of_it_first():
    one, other = World(seed=7), World(seed=7)
    one.inference()
    assert one.outages("a", 4 * HOUR, HOUR) == other.outages("a", 4 * HOUR, HOUR)
    assert one.interruption("pool", 0.1, START) == other.interruption("pool", 0.1, START)
    assert one.share("ml.g5.xlarge", START + WEEK) == other.share("ml.g5.xlarge", START + WEEK)
    assert one.share("ml.g5.xlarge", START) != World(seed=8).share("ml.g5.xlarge", START)
