"""Schedules: due when they should be, carried out once however often the node starts, within their own bounds."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elias.domain.run import Run, RunState
from elias.domain.schedule import DAYS, Firing, Schedule, due_slot, latest_slot, next_slot, schedule_from
from elias.errors import BackendError, GateRefused, InputError, NotFound, Refused
from elias.services.schedule import Hands, ScheduleBook, Scheduler
from elias.testing.nouns import a_run
from elias.units import Money

MONDAY = datetime(2026, 11, 23, tzinfo=UTC)
NIGHTLY = {"at": "02:00", "new_sessions": 1}
WEEKLY = Path(__file__).parents[2] / "examples" / "weekly.toml"


@dataclass
class World:
    """A node's schedules over a clock of one's own; runs take `hours`, and each stage may fail."""

    folder: Path
    moment: datetime = MONDAY
    hours: float = 2.0
    captured: list[str] = field(default_factory=lambda: ["s1"])
    runs: dict[str, tuple[Run, datetime]] = field(default_factory=dict)
    begun: list[tuple[str, datetime]] = field(default_factory=list)
    deployed: list[str] = field(default_factory=list)
    refusal: str | None = None
    trouble: Callable[[str], None] = lambda stage: None

    @property
    def book(self) -> ScheduleBook:
        return ScheduleBook(self.folder)

    def now(self) -> datetime:
        return self.moment

    def sleep(self, span: timedelta) -> None:
        self.moment += span

    def node(self) -> Scheduler:
        """A new one, as after a restart: it shares nothing with an earlier one but the disk and the runs."""
        hands = Hands(
            sessions=lambda schedule: list(self.captured),
            begin=self.begin,
            run=self.run,
            judge=self.judge,
            deploy=self.deploy,
        )
        return Scheduler(self.book, hands, self)

    def begin(self, schedule: Schedule, firing: Firing) -> Run:
        if firing.run_id not in self.runs:
            self.begun.append((schedule.name, firing.slot))
            self.runs[firing.run_id] = (a_run(firing.run_id), self.moment)
        self.trouble("begun")
        return self.run(firing.run_id)

    def run(self, run_id: str) -> Run:
        run, since = self.runs[run_id]
        is_done = self.moment >= since + timedelta(hours=self.hours)
        return replace(run, state=RunState.DONE) if is_done and run.state is RunState.QUEUED else run

    def judge(self, run: Run) -> str | None:
        self.trouble("judge")
        return self.refusal

    def deploy(self, run: Run) -> str:
        self.trouble("deploy")
        if run.id not in self.deployed:
            self.deployed.append(run.id)
        return "in service"

    def live(self, span: timedelta, every: timedelta = timedelta(minutes=10), *, restarts: bool = False) -> None:
        """Ticks on through simulated time."""
        node, end = self.node(), self.moment + span
        while self.moment < end:
            node.tick()
            self.moment += every
            node = self.node() if restarts else node


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "schedules")


def fail_once(*stages: str) -> Callable[[str], None]:
    left = list(stages)

    def fail(stage: str) -> None:
        if stage in left:
            left.remove(stage)
            raise BackendError("cut off", fix="again")

    return fail


def test_a_nightly_schedule_trains_judges_and_deploys_where_something_is_new(world: World):
    world.book.add("nightly", NIGHTLY, world.now())
    world.live(timedelta(days=1))
    world.live(timedelta(days=1))
    world.captured.append("s2")
    world.live(timedelta(days=1))
    assert [slot for _, slot in world.begun] == [MONDAY + timedelta(hours=2), MONDAY + timedelta(days=2, hours=2)]
    outcomes = [firing.outcome for firing in world.book.firings("nightly")]
    assert outcomes == ["in service", "left out: 0 new sessions, 1 needed", "in service"]
    assert len(world.deployed) == 2


def test_restarts_at_every_moment_and_failures_at_every_stage_repeat_nothing(world: World):
    world.trouble = fail_once("begun", "judge", "deploy")
    world.book.add("nightly", NIGHTLY, world.now())
    world.live(timedelta(days=1), restarts=True)
    assert len(world.begun) == len(world.deployed) == 1
    assert [firing.outcome for firing in world.book.firings("nightly")] == ["in service"]


def test_a_node_that_was_down_for_a_week_catches_up_once(world: World):
    world.book.add("nightly", NIGHTLY | {"new_sessions": 0}, world.now())
    world.moment += timedelta(days=7, hours=12)
    world.live(timedelta(hours=10))
    assert world.begun == [("nightly", MONDAY + timedelta(days=7, hours=2))]


def test_evidence_alone_makes_it_due_as_soon_as_there_is_enough_and_not_before(world: World):
    world.book.add("eager", {"new_sessions": 3}, world.now())
    world.live(timedelta(hours=5))
    assert world.begun == [] and world.book.firings("eager") == []
    world.captured += ["s2", "s3"]
    world.live(timedelta(hours=5))
    world.captured += ["s4", "s5"]
    world.live(timedelta(hours=5))
    assert len(world.begun) == 1
    world.captured.append("s6")
    world.live(timedelta(hours=1))
    assert [len(firing.sessions) for firing in world.book.firings("eager")] == [3, 6]


def test_run_now_is_carried_out_once_however_little_is_new(world: World):
    world.book.add("nightly", NIGHTLY, world.now())
    world.book.ask("nightly")
    world.live(timedelta(hours=1.5), restarts=True)
    assert world.begun == [("nightly", MONDAY)] and not world.book.is_asked("nightly")


def test_a_model_that_the_gate_keeps_out_and_a_specialised_one_are_not_deployed(world: World):
    world.book.add("special", NIGHTLY | {"deploy": False}, world.now())
    world.live(timedelta(days=1))
    world.refusal = "worse in stage:2"
    world.captured.append("s2")
    world.book.add("nightly", NIGHTLY, world.now())
    world.live(timedelta(days=1))
    assert world.deployed == []
    assert "not put into service" in (world.book.firings("special")[0].outcome or "")
    assert "worse in stage:2" in (world.book.firings("nightly")[-1].outcome or "")


def test_what_cannot_be_mended_by_waiting_ends_a_firing_and_not_the_schedule(world: World):
    def refuse(stage: str) -> None:
        if stage == "deploy":
            raise GateRefused("it did not beat the model in service", fix="train on")

    world.trouble = refuse
    world.book.add("nightly", NIGHTLY | {"new_sessions": 0}, world.now())
    world.live(timedelta(days=2))
    outcomes = [firing.outcome or "" for firing in world.book.firings("nightly")]
    assert len(outcomes) == 2 and all("it did not beat the model in service" in outcome for outcome in outcomes)


def test_a_run_that_failed_is_told_with_its_reason(world: World):
    world.book.add("nightly", NIGHTLY, world.now())
    world.live(timedelta(hours=3))
    (run_id,) = world.runs
    run, since = world.runs[run_id]
    world.runs[run_id] = replace(run, state=RunState.FAILED, reason="out of memory"), since
    world.live(timedelta(hours=1))
    (firing,) = world.book.firings("nightly")
    assert firing.outcome == f"{run_id} failed: out of memory"


def test_the_weekly_table_trains_the_main_model_once_and_one_special_adapter_a_day(world: World):
    for name, table in tomllib.loads(WEEKLY.read_text())["schedule"].items():
        world.book.add(name, table, world.now())
    for day in range(14):
        world.captured.append(f"new-{day}")
        world.live(timedelta(days=1))
    first = {name for name, slot in world.begun if slot < MONDAY + timedelta(days=7)}
    assert len(first) == 7 and len(world.begun) == 14
    days = [slot.date() for _, slot in world.begun]
    assert len(set(days)) == 14, "one a day"
    assert {run_id.rpartition("-")[0] for run_id in world.deployed} == {"run-20261129-020000", "run-20261206-020000"}
    hours = [s.hours for s in world.book.list() if s.strategy == "kaggle"]
    assert sum((h for h in hours if h), timedelta(0)) <= timedelta(hours=20), "a week of Kaggle's hours"
    assert world.book.get("main").budget == Money.usd(20)


SCHEDULES = st.builds(
    Schedule,
    name=st.just("x"),
    created_at=st.just(MONDAY),
    at=st.times(max_value=time(23, 59)).map(lambda t: t.replace(second=0, microsecond=0)),
    days=st.lists(st.sampled_from(DAYS), min_size=1, unique=True).map(tuple),
)


@given(SCHEDULES, st.lists(st.integers(1, 60 * 24 * 5), min_size=1, max_size=20))
def test_every_slot_is_due_at_most_once_and_the_latest_one_always(schedule: Schedule, minutes: list[int]):
    now, last, seen = MONDAY, None, []
    for span in minutes:
        now += timedelta(minutes=span)
        slot = due_slot(schedule, last, now)
        if slot is not None:
            seen.append(slot)
            last = slot
        assert last == latest_slot(schedule, now)
    assert seen == sorted(set(seen))
    assert all(DAYS[slot.weekday()] in schedule.days and slot > MONDAY for slot in seen)


@given(SCHEDULES, st.integers(0, 60 * 24 * 30))
def test_the_next_slot_is_the_first_one_after_now(schedule: Schedule, minutes: int):
    now = MONDAY + timedelta(minutes=minutes)
    slot = next_slot(schedule, now)
    assert slot is not None and now < slot <= now + timedelta(days=7)
    assert latest_slot(schedule, slot) == slot
    before = latest_slot(schedule, slot - timedelta(minutes=1))
    assert before is None or before <= now


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ({}, "fine"),
        ({"at": "25:00"}, "at is"),
        ({"at": "2:00"}, "at is"),
        ({"at": "02:00", "days": ["monday"]}, "days is"),
        ({"at": "02:00", "budget": "much"}, "budget is"),
        ({"at": "02:00", "hours": "soon"}, "hours is"),
        ({"at": "02:00", "deploy": "no"}, "deploy is"),
        ({"new_sessions": 0}, "never due"),
        ({"when": "02:00"}, "no setting 'when'"),
    ],
)
def test_a_wrong_setting_is_named_with_an_example(table: dict[str, object], what: str):
    if what == "fine":
        assert schedule_from("x", table, MONDAY).new_sessions == 1
        return
    with pytest.raises(InputError, match=what):
        schedule_from("x", table, MONDAY)


def test_adding_it_again_changes_nothing_and_another_of_that_name_is_refused(world: World):
    made = world.book.add("nightly", NIGHTLY, world.now())
    assert world.book.add("nightly", NIGHTLY, world.now() + timedelta(days=1)) == made
    with pytest.raises(Refused):
        world.book.add("nightly", {"at": "03:00"}, world.now())
    world.book.remove("nightly")
    for gone in (world.book.get, world.book.remove, world.book.ask):
        with pytest.raises(NotFound):
            gone("nightly")
