"""What the runs of a node promise each other, and when all of them are planned anew."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

from elias.domain.label import Label
from elias.domain.plan import Loosens, Plan
from elias.domain.run import Bounds, Run, RunState
from elias.domain.spend import Caps, Usage
from elias.errors import BackendError
from elias.services.planner.outlook import Outlook
from elias.services.planning import TOGETHER_EVERY, Planning
from elias.services.spend import Purse
from elias.testing.nouns import a_run
from elias.units import Money
from tests.services.planner.conftest import HOUR, NOW, kaggle, place, rented
from tests.services.planner.test_next_segment import sight

KAGGLE = kaggle(left=10 * HOUR, longest=None, refreshes_at=NOW + timedelta(days=6)).offer
RENTED = rented().offer


class World:
    """Kaggle has ten hours and takes a minute a step, what is rented half of it; runs come and go by name."""

    def __init__(self) -> None:
        self.now = NOW
        self.asked: dict[str, Outlook] = {}
        self.is_silent = False
        self.kaggle = KAGGLE
        self.runs, self.clock = self, SimpleNamespace(now=lambda: self.now)
        self.planning = Planning(
            foresight=self,
            corpora=SimpleNamespace(get=lambda digest: None),
            backends=lambda strategy: {},
            purse=SimpleNamespace(left=lambda run: run.bounds.budget),
        )

    def add(self, name: str, steps: int, by: timedelta, budget: Money | None = None) -> Run:
        run = replace(a_run(), id=name, label=Label.SHARED, bounds=Bounds(by=NOW + by, budget=budget))
        sights = [sight(self.kaggle, 60, steps), sight(RENTED, 30, steps)]
        self.asked[name] = Outlook(run=run, now=self.now, sights=sights, budget=budget)
        return run

    def plan(self, run: Run) -> Plan:
        return self.planning.plan(run, (), None, run.bounds.budget)

    def begin(self, run: Run) -> Plan:
        """As the coordinator does."""
        plan = self.plan(run)
        if self.planning.make_room(run, plan):
            plan = self.plan(run)
        self.planning.keep(run, plan)
        return plan

    # What stands for the foresight

    def outlook(self, past, places, budget) -> Outlook:
        if self.is_silent:
            raise BackendError("it does not answer", fix="wait")
        return replace(self.asked[past[0].id], now=self.now, budget=budget)

    def whole(self, run, corpus, offers):
        return offers  # none says how long it takes: nothing is kept

    def commitments(self, run_id=None):
        return iter(())

    def busy_until(self, run):
        return None

    # and for the store

    def get(self, name):
        return self.asked[name].run

    def list(self):
        return [outlook.run for outlook in self.asked.values()]

    def segments(self, name):
        return ()


def free_hours(plan: Plan) -> timedelta:
    return sum((s.span for s in plan.segments if s.offer is not RENTED), timedelta(0))


def promise_all(world: World, run: Run) -> Plan:
    """As a run that waits for its first segment."""
    plan = world.plan(run)
    world.planning.keep(run, replace(plan, wait_until=NOW + HOUR))
    return plan


def test_hours_that_one_run_means_to_take_are_not_counted_on_by_another():
    world = World()
    assert free_hours(promise_all(world, world.add("a", 480, timedelta(days=2)))) == 8 * HOUR
    late = world.plan(world.add("b", 480, timedelta(days=2)))
    assert late.is_in_time is False and all(s.starts_at >= KAGGLE.refreshes_at for s in late.segments[1:])
    mixed = world.plan(world.add("c", 480, timedelta(days=2), Money.usd(40)))
    assert mixed.is_in_time and free_hours(mixed) <= 2 * HOUR


def test_what_has_begun_is_not_promised_besides():
    world = World()
    plan = world.begin(world.add("a", 480, timedelta(days=2)))
    assert plan.segments and plan.wait_until is None
    assert world.planning.promised == {"a": plan.segments[1:]}


def test_a_late_run_promises_itself_nothing():
    world = World()
    plan = world.begin(world.add("a", 4800, timedelta(days=2)))
    assert plan.is_in_time is False and world.planning.promised == {"a": ()}


def test_a_run_with_money_makes_room_for_one_without():
    world = World()
    rich, poor = world.add("rich", 480, timedelta(days=2), Money.usd(40)), world.add("poor", 480, timedelta(days=2))
    assert free_hours(promise_all(world, rich)) == 8 * HOUR
    plan = world.begin(poor)
    assert plan.is_in_time and free_hours(plan) == 8 * HOUR and not plan.costs_money
    world.planning.keep(poor, replace(plan, wait_until=NOW + HOUR))
    now_paid = world.plan(rich)
    assert now_paid.is_in_time and now_paid.costs_money


def test_all_are_planned_together_once_and_again_when_one_comes_or_time_has_passed():
    world = World()
    promise_all(world, world.add("a", 480, timedelta(days=2)))
    second = world.add("b", 480, timedelta(days=2))
    late = world.plan(second)
    assert [world.planning.make_room(second, late) for _ in range(3)] == [True, False, False]
    world.now += TOGETHER_EVERY
    assert world.planning.make_room(second, late)
    promise_all(world, world.add("c", 1, timedelta(days=2)))
    assert world.planning.make_room(second, late)


def test_nothing_is_planned_together_where_it_cannot_help():
    world = World()
    alone = world.add("a", 4800, timedelta(days=2))
    assert not world.planning.make_room(alone, world.plan(alone))
    free = world.add("b", 60, timedelta(days=2))
    promise_all(world, free)
    assert not world.planning.make_room(free, world.plan(free))
    assert not world.planning.make_room(alone, replace(world.plan(alone), is_in_time=None))


def test_a_place_that_falls_silent_leaves_every_promise_as_it_was():
    world = World()
    promised = promise_all(world, world.add("a", 480, timedelta(days=2)))
    second = world.add("b", 480, timedelta(days=2))
    late = world.plan(second)
    world.is_silent = True
    assert not world.planning.make_room(second, late)
    assert world.planning.promised == {"a": promised.segments}


def test_a_run_that_has_ended_promises_nothing_more():
    world = World()
    promise_all(world, world.add("a", 480, timedelta(days=2)))
    world.planning.drop("a")
    assert free_hours(world.plan(world.add("b", 480, timedelta(days=2)))) == 8 * HOUR


def test_a_run_that_was_paused_is_left_out_of_the_plan_of_all():
    world = World()
    rich = world.add("rich", 480, timedelta(days=2), Money.usd(40))
    promised = promise_all(world, rich)
    poor = world.add("poor", 480, timedelta(days=2))
    late = world.plan(poor)
    world.asked["rich"] = replace(world.asked["rich"], run=replace(rich, state=RunState.PAUSED))
    assert world.planning.make_room(poor, late)
    assert world.planning.promised["rich"] == promised.segments
    world.now += TOGETHER_EVERY
    world.asked["poor"] = replace(world.asked["poor"], run=replace(poor, state=RunState.PAUSED))
    assert not world.planning.make_room(poor, late)


def test_this_machine_is_left_to_whoever_is_in_time_with_it():
    world = World()
    world.kaggle = place("local").offer
    [promised] = promise_all(world, world.add("a", 300, timedelta(hours=6))).segments
    plan = world.plan(world.add("b", 6000, timedelta(hours=6)))
    assert plan.segments == () and "a is to be in time with it" in plan.reason
    assert plan.wait_until == promised.ends_at


def test_a_place_that_refuses_for_longer_than_it_said_is_believed_less_and_less():
    world = World()
    world.kaggle = replace(place("local").offer, refused="inference needs it", refused_until=NOW + HOUR)
    hopes = []
    for hour in range(5):
        world.now = NOW + hour * HOUR
        world.kaggle = replace(world.kaggle, refused_until=world.now + HOUR)
        run = world.add("a", 60, timedelta(hours=6), Money.usd(40))
        first = world.plan(run).segments[0]
        hopes.append((first.starts_at - world.now) // HOUR if first.offer is not RENTED else "paid")
    assert hopes == [1, 1, 2, "paid", "paid"]
    world.kaggle = place("local").offer
    assert world.plan(world.add("a", 60, timedelta(hours=6))).segments[0].starts_at == world.now
    assert world.planning.refusals == {}


def capped(world: World, caps: Caps) -> None:
    store = SimpleNamespace(usage=lambda at, run, without=None: Usage(at=at))
    world.planning.purse = Purse(store=store, caps=lambda: caps, clock=world.clock)


def test_what_helps_a_run_at_a_cap_of_the_node_is_that_cap_and_does_help():
    world = World()
    run = world.add("a", 900, timedelta(hours=10), Money.usd(40))
    capped(world, Caps(run=Money.usd(1)))
    told = world.planning.look_ahead(run)
    assert told.is_in_time is False
    [cap] = next(helps.raised for helps in told.relaxations if helps.loosens is Loosens.BUDGET)
    assert cap.setting == "run" and Money.usd(1) < cap.limit < Money.usd(40)
    capped(world, Caps(run=cap.limit))
    assert world.planning.look_ahead(run).is_in_time


def test_a_plan_that_the_cap_of_the_day_does_not_hold_says_so():
    world = World()
    run = world.add("a", 900, timedelta(hours=10), Money.usd(40))
    capped(world, Caps(day=Money.usd(1)))
    plan = world.planning.look_ahead(run)
    assert plan.is_in_time and plan.reserve > Money.usd(1)
    [line] = plan.limited_by
    assert line.startswith("the cap of the day is $1.00: segments that are paid for may")
    capped(world, Caps(day=Money.usd(40)))
    assert world.planning.look_ahead(run).limited_by == ()
