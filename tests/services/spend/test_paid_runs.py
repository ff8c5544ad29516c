"""A run that costs money: reserved before, settled after, paused or waiting at a cap, and never begun twice."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest

from elias.domain.run import RunState, SegmentState, Wish
from elias.domain.spend import COMPUTE, Caps, Claim, EntryKind, Part
from elias.errors import Refused
from elias.services.run_folder import RunFolder
from elias.testing.bundles import CORPUS
from elias.testing.fake_trainer import expected_adapter, fake_base
from elias.testing.journal import CutOff, JournalSteps
from elias.testing.paid_place import EXPIRED, LOST, NOT_STARTED, REFUSED, FindingPlace
from elias.units import FREE, Money


def reserved(world, run):
    lines = world.stores.spend.entries(run=run.id)
    return sum((line.amount for line in lines if line.kind is EntryKind.RESERVE), FREE)


def test_what_it_costs_is_reserved_before_and_settled_after_and_the_rest_is_given_back(world):
    done = world.carry(world.run(budget="5"))
    assert done.state is RunState.DONE
    [segment] = world.segments(done)
    assert segment.cost == world.place.cost and segment.offer == "rented" and segment.sent_at is not None
    lines = world.stores.spend.entries(key=segment.key)
    assert [line.kind for line in lines] == [EntryKind.RESERVE, EntryKind.SETTLE, EntryKind.RELEASE]
    reserved, settled, released = [line.amount for line in lines]
    assert settled == Money.usd("0.50") and released == reserved - settled and reserved <= Money.usd(5)
    world.check_books()


def test_the_trainers_own_limit_follows_from_what_was_reserved(world):
    world.place.once = Money.usd("0.80")
    done = world.carry(world.run(budget="5"))
    [segment] = world.segments(done)
    parts = {e.part: e.amount for e in world.stores.spend.entries(key=segment.key) if e.kind is EntryKind.RESERVE}
    assert parts["extra"] == Money.usd("0.80")
    seconds = RunFolder(world.home / "runs" / done.id).job(1).limits.seconds
    assert seconds == segment.planned_for.total_seconds()
    assert world.place.hourly.for_hours(segment.planned_for) <= parts["compute"]


@pytest.mark.parametrize("caps", [Caps(), Caps(day=Money.usd(9), account=Money.usd(9))])
def test_without_a_budget_nothing_that_costs_money_is_begun(world, caps):
    world.caps = caps
    failed = world.carry(world.run(budget=None))
    assert failed.state is RunState.FAILED and "no budget" in failed.reason
    assert world.place.begun() == [] and world.stores.spend.entries() == []


def test_the_cap_for_any_run_is_the_budget_of_one_that_brings_none_and_limits_one_that_does(world):
    world.caps = Caps(run=Money.usd(3))
    world.place.cost = Money.usd("2.95")
    for budget in (None, "100"):
        run = world.run(budget=budget, segment_steps=6)
        paused = world.carry(run)
        assert paused.state is RunState.PAUSED and "the cap of the run is $3.00: $2.95 spent" in paused.reason
        assert "elias budget set run " in paused.reason and len(world.segments(run)) == 1


def test_at_its_cap_a_run_pauses_with_its_checkpoint_says_what_to_type_and_goes_on_after_it(world):
    world.place.cost = Money.usd("0.90")
    run = world.run(budget="2", segment_steps=4)
    paused = world.carry(run)
    assert paused.state is RunState.PAUSED
    assert [s.end.step for s in world.segments(run)] == [4, 8]
    assert "the cap of the run is $2.00: $1.80 spent, $0.00 reserved" in paused.reason
    assert f"elias budget set {run.id} " in paused.reason and f"elias run resume {run.id}" in paused.reason
    assert world.held(run) == FREE
    world.stores.runs.update(run.id, bounds=replace(run.bounds, budget=Money.usd(3)), state=RunState.QUEUED)
    done = world.carry(run)
    assert done.state is RunState.DONE and done.artifact == expected_adapter(CORPUS, 12)
    assert world.spent(run) == Money.usd("2.70")
    world.check_books()


def test_at_the_days_cap_a_run_waits_says_until_when_and_goes_on_the_next_day(world):
    world.clock.move_to_noon()
    world.caps = Caps(day=Money.usd(1))
    world.place.cost = Money.usd("0.90")
    run, journal = world.run(budget="5", segment_steps=6), []
    while world.stores.runs.get(run.id).state is not RunState.WAITING:
        steps = JournalSteps(journal)
        steps.cut_after = 0
        with pytest.raises(CutOff):
            world.carry(run, steps)
    waiting = world.stores.runs.get(run.id)
    midnight = (world.clock.now() + timedelta(days=1)).replace(hour=0, minute=0)
    assert "the cap of the day is $1.00: $0.90 spent" in waiting.reason
    assert f"goes on at {midnight:%Y-%m-%d %H:%M} UTC" in waiting.reason and "elias budget set day" in waiting.reason
    assert len(world.place.begun()) == 1
    world.clock.ahead += timedelta(days=1)
    done = world.carry(run, JournalSteps(journal))
    assert done.state is RunState.DONE and len(world.place.begun()) == 2
    world.check_books()


def test_while_other_runs_hold_the_money_a_run_waits_instead_of_pausing(world):
    world.caps = Caps(account=Money.usd(9))
    run, other = world.run(), Claim(key="run-other-0001", run="run-other", backend="rented")
    held = [Part(name=COMPUTE, amount=Money.usd("8.90"))]
    world.stores.spend.reserve(other, held, world.caps, world.clock.now())
    steps = JournalSteps([])
    steps.cut_after = 0
    with pytest.raises(CutOff):
        world.carry(run, steps)
    waiting = world.stores.runs.get(run.id)
    assert waiting.state is RunState.WAITING and "$8.90 reserved" in waiting.reason
    assert world.place.begun() == []


def test_cutting_it_off_at_any_step_and_going_on_balances_and_pays_once(world):
    for kept in (True, False):
        run, journal = world.run(segment_steps=6), []
        while world.stores.runs.get(run.id).state is not RunState.DONE:
            steps = JournalSteps(journal)
            steps.cut_after, steps.cut_before_it_is_kept = 0, not kept and len(journal) % 2 == 0
            with suppress(CutOff):
                world.carry(run, steps)
            world.check_books()
            if steps.cut_before_it_is_kept and len(journal) % 2 == 0:  # the same step again, kept this time
                steps = JournalSteps(journal)
                steps.cut_after = 0
                with suppress(CutOff):
                    world.carry(run, steps)
        assert world.spent(run) == world.place.cost + world.place.cost and world.held(run) == FREE


@pytest.mark.parametrize("fault", [REFUSED, EXPIRED, NOT_STARTED])
def test_a_submit_that_was_refused_for_certain_gives_everything_back(world, fault):
    world.place.faults = [fault]
    run = world.run()
    steps = JournalSteps([])
    steps.cut_after = 2  # plan, submit, collect
    with pytest.raises(CutOff):
        world.carry(run, steps)
    [segment] = world.segments(run)
    assert segment.state is SegmentState.FAILED and world.place.begun() == []
    assert world.held(run) == world.spent(run) == FREE
    world.check_books()


@pytest.mark.parametrize("after", [[], [EXPIRED], [REFUSED, EXPIRED]])
@pytest.mark.parametrize("finds", [False, True])
def test_a_lost_answer_keeps_the_money_reserved_until_the_place_has_said_what_became_of_it(world, paying, after, finds):
    if finds:
        world = paying.World(world.home, world.stores, kind=FindingPlace)
    world.place.faults = [LOST, *after]
    run, journal = world.run(), []
    steps = JournalSteps(journal)
    steps.cut_after = 1
    with pytest.raises(CutOff):
        world.carry(run, steps)
    waiting = world.stores.runs.get(run.id)
    assert waiting.state is RunState.WAITING and "not said whether" in waiting.reason
    assert world.held(run) == reserved(world, run) > FREE
    done = world.carry(run, JournalSteps(journal))
    assert done.state is RunState.DONE and len(world.segments(run)) == 1
    assert world.place.begun() == [world.segments(run)[0].key]
    assert world.spent(run) == world.place.cost and world.held(run) == FREE
    world.check_books()


def test_a_run_that_is_cancelled_while_nobody_knows_is_not_begun_only_to_be_cancelled(world, paying):
    world = paying.World(world.home, world.stores, kind=FindingPlace)
    run = world.run()
    steps, journal = JournalSteps([]), []
    steps.journal = journal
    steps.cut_after = 0
    with pytest.raises(CutOff):
        world.carry(run, steps)  # planned
    [segment] = world.segments(run)
    world.stores.runs.put_segment(replace(segment, sent_at=world.clock.now()))  # and died right before it was sent
    world.stores.runs.update(run.id, wish=Wish.CANCEL)
    assert world.carry(run, JournalSteps(journal)).state is RunState.CANCELLED
    assert world.place.begun() == [] and world.held(run) == FREE
    world.check_books()


def test_a_segment_that_ended_out_of_sight_stays_reserved_until_the_place_tells_its_cost(world, monkeypatch):
    monkeypatch.setattr("elias.services.follow.MOST_POLL_FAILURES", 2)
    run, journal = world.run(budget="5"), []
    for _ in range(2):  # plan, submit
        steps = JournalSteps(journal)
        steps.cut_after = 0
        with pytest.raises(CutOff):
            world.carry(run, steps)
    world.place.is_reachable = False
    for _ in range(3):  # follow, collect, plan: nothing is known, nothing is begun
        steps = JournalSteps(journal)
        steps.cut_after = 0
        with pytest.raises(CutOff):
            world.carry(run, steps)
    assert world.segments(run)[0].state is SegmentState.FAILED and world.held(run) == reserved(world, run) > FREE
    world.place.is_reachable = True
    world.clock.ahead += timedelta(minutes=2)
    world.stores.runs.update(run.id, bounds=replace(run.bounds, budget=Money.usd(20)))
    done = world.carry(run, JournalSteps(journal))
    assert done.state is RunState.DONE
    assert [s.cost for s in world.segments(run)] == [world.place.cost] * 2 and world.held(run) == FREE
    world.check_books()


def test_a_price_that_rose_past_the_cap_is_not_paid(world):
    run, journal = world.run(budget="5"), []
    steps = JournalSteps(journal)
    steps.cut_after = 0
    with pytest.raises(CutOff):
        world.carry(run, steps)
    world.place.hourly = Money.usd(60)
    steps = JournalSteps(journal)
    steps.cut_after = 1  # submit, collect
    with pytest.raises(CutOff):
        world.carry(run, steps)
    assert world.place.begun() == [] and world.held(run) == FREE
    paused = world.carry(run, JournalSteps(journal))
    assert paused.state is RunState.PAUSED and "$0.00 spent" in paused.reason, "planned anew at the new price"
    world.check_books()


def test_a_bill_above_what_was_reserved_is_written_down_as_it_is_and_stops_the_next_segment(world):
    world.place.cost = Money.usd(9)
    run = world.run(budget="5", segment_steps=6)
    paused = world.carry(run)
    assert paused.state is RunState.PAUSED and "$9.00 spent" in paused.reason
    [segment] = world.segments(run)
    overrun = [e for e in world.stores.spend.entries(key=segment.key) if e.kind is EntryKind.OVERRUN]
    assert [e.amount for e in overrun] == [Money.usd(9) - reserved(world, run)] and world.place.begun() == [segment.key]
    world.check_books()


def test_what_a_crash_left_reserved_for_a_segment_that_was_never_begun_is_given_back(world):
    run = world.run()
    world.purse.secure(run, f"{run.id}-0001", world.coordinator().planning.preview(run).segments[0])
    world.stores.runs.update(run.id, wish=Wish.CANCEL)
    assert world.carry(run).state is RunState.CANCELLED
    assert world.held(run) == FREE
    world.check_books()


def test_a_segment_that_is_not_limited_is_never_paid_for(world):
    run = world.run()
    world.carry(run)
    endless = replace(world.segments(run)[0], number=7, planned_for=None)
    offer = world.coordinator().planning.preview(run).segments[0].offer
    with pytest.raises(Refused, match="no end"):
        world.purse.secure_again(run, endless, offer)


def test_preview_names_the_cap_that_is_in_the_way(world):
    world.caps = Caps(month=Money.usd("0.05"))
    plan = world.coordinator().planning.preview(world.run())
    assert plan.segments == () and "the cap of the month is $0.05" in plan.reason


def test_what_a_preview_says_to_type_is_for_a_run_that_has_not_begun(world):
    run = world.run(budget="0.01")
    plan = world.coordinator().planning.preview(run)
    assert (
        plan.segments == () and "the cap of the run is $0.01" in plan.reason and "(fix: --budget 1usd)" in plan.reason
    )
    assert plan.run is None and run.id not in plan.reason and "resume" not in plan.reason


def test_a_trainer_that_vanished_is_paid_for_and_the_next_one_goes_on(world):
    run = world.run(budget="9", base=fake_base(fail="infrastructure@5"))
    ended = world.carry(run)
    assert ended.state in (RunState.FAILED, RunState.PAUSED)
    assert world.spent(run) == sum([world.place.cost] * len(world.place.begun()), FREE) <= Money.usd(9)
    world.check_books()
