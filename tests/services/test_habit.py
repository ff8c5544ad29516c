"""The node's own book of when this machine was held: what it writes, and what a plan makes of it."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from elias.domain.fields import as_json
from elias.domain.habit import CELLS, Habit
from elias.domain.hold import Demand, YieldRule
from elias.services import habit
from elias.services.habit import BLINK, HabitBook, read_habit
from elias.services.plan import next_segment
from elias.services.planner.outlook import STAYS_OPEN
from elias.services.planning import Planning
from elias.services.yielding import Yielding
from tests.domain.test_habit import office_week
from tests.services.planner.conftest import HOUR
from tests.services.planner.test_next_segment import LOCAL, ask, outlook, sight

MONDAY = datetime(2026, 11, 30, tzinfo=UTC)
MINUTE, DAY, WEEK = timedelta(minutes=1), timedelta(days=1), timedelta(weeks=1)


def watch(book: HabitBook, since: datetime, minutes: int, *, is_held: bool) -> datetime:
    """One look a minute; the last one is `minutes` after the first."""
    for minute in range(minutes + 1):
        book.saw(since + minute * MINUTE, is_held)
    return since + minutes * MINUTE


def test_what_was_seen_outlives_the_process_and_a_spell_counts_once_it_is_over(tmp_path: Path):
    file = tmp_path / "backends" / "local" / "habit.json"
    book = HabitBook(file)
    at = watch(book, MONDAY + 9 * HOUR, 60, is_held=False)
    assert sum(read_habit(file).seen) == pytest.approx(1.0)
    at = watch(book, at, 120, is_held=True)
    assert sum(read_habit(file).taken) == 0, "it goes on"
    watch(HabitBook(file), at, 20, is_held=False)
    assert sum(read_habit(file).taken) == 0, "the process ended in the middle of it: how long it went on nobody saw"
    at = watch(book, at + MINUTE, 20, is_held=False)
    assert sum(read_habit(file).taken) == pytest.approx(121 / 60, abs=1e-3)


def test_while_nobody_looked_nothing_was_seen(tmp_path: Path):
    book = HabitBook(tmp_path / "habit.json")
    at = watch(book, MONDAY, 60, is_held=False)
    watch(book, at + 8 * HOUR, 60, is_held=False)
    assert sum(read_habit(tmp_path / "habit.json").seen) == pytest.approx(2.0)
    watch(book, MONDAY - 3 * HOUR, 30, is_held=False)  # the clock was set back
    assert sum(read_habit(tmp_path / "habit.json").seen) == pytest.approx(2.5)
    assert BLINK >= MINUTE


@pytest.mark.parametrize("content", [b"{", b'{"seen": [1]}', json.dumps({"seen": [0], "taken": [0]}).encode()])
def test_a_file_that_cannot_be_read_is_said_and_learned_anew(content: bytes, tmp_path: Path, caplog):
    file = tmp_path / "habit.json"
    file.write_bytes(content)
    book = HabitBook(file)
    assert "habit.unreadable" in caplog.text and str(file) in caplog.text
    watch(book, MONDAY, 60, is_held=False)
    assert sum(read_habit(file).seen) == pytest.approx(1.0)


def test_a_full_disk_keeps_nobody_from_making_way_and_it_is_written_later(tmp_path: Path, monkeypatch, caplog):
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    demand = [Demand(depth=0, slowest=timedelta(0))]
    now = [MONDAY]
    book = HabitBook(tmp_path / "habit.json")
    yielding = Yielding(YieldRule(), lambda: demand[0], SimpleNamespace(now=lambda: now[0]), saw=book.saw)
    yielding.look()
    monkeypatch.setattr(habit, "write_whole", full)
    now[0], demand[0] = MONDAY + MINUTE, Demand(depth=9, slowest=timedelta(0))
    assert yielding.look() is not None, "it is held all the same"
    assert "habit.unwritten" in caplog.text and str(tmp_path / "habit.json") in caplog.text
    monkeypatch.undo()
    now[0], demand[0] = MONDAY + 2 * MINUTE, Demand(depth=0, slowest=timedelta(0))
    assert yielding.look() is None, "after a minute of calm"
    seen = read_habit(tmp_path / "habit.json")
    assert sum(seen.seen) == pytest.approx(2 / 60, abs=1e-3) and sum(seen.taken) == pytest.approx(1 / 60, abs=1e-3)


def test_each_look_at_what_holds_this_machine_is_told(tmp_path: Path):
    clock, demand = SimpleNamespace(now=lambda: MONDAY), [Demand(depth=0, slowest=timedelta(0))]
    told: list[tuple[datetime, bool]] = []
    yielding = Yielding(YieldRule(), lambda: demand[0], clock, saw=lambda now, held: told.append((now, held)))
    yielding.look()
    demand[0] = Demand(depth=9, slowest=timedelta(0))
    yielding.look()
    assert told == [(MONDAY, False), (MONDAY, True)]


OFFICE = office_week(Habit(zone=UTC))


def at_nine(hour: float, steps: int, by: datetime, habit: Habit | None = OFFICE, **refusal: object):
    """On the Monday after, with this machine alone at a minute a step."""
    now = MONDAY + WEEK + hour * HOUR
    local = replace(LOCAL, habit=habit, **refusal)
    ahead = outlook(steps=steps, by=by)
    return replace(ahead, now=now, sights=[sight(local, 60, steps)])


def test_a_deadline_is_planned_around_the_hours_in_which_this_machine_is_usually_taken():
    by = MONDAY + WEEK + 18 * HOUR
    early = at_nine(8.5, 240, by)
    assert next_segment(ask(early), early).is_in_time is False, "four hours, and eight of nine are usually taken"
    unknown = at_nine(8.5, 240, by, habit=None)
    assert next_segment(ask(unknown), unknown).is_in_time
    later = at_nine(8.5, 240, by + 6 * HOUR)
    plan = next_segment(ask(later), later)
    assert plan.is_in_time and plan.segments[-1].starts_at == MONDAY + WEEK + 17 * HOUR


def test_what_is_open_now_is_taken_though_it_is_usually_taken_at_this_hour():
    open_now = at_nine(11, 20, MONDAY + WEEK + 13 * HOUR)
    plan = next_segment(ask(open_now), open_now)
    assert plan.is_in_time and plan.wait_until is None and STAYS_OPEN >= 20 * MINUTE


def test_hours_in_which_it_is_usually_taken_are_no_surprise_and_those_after_them_are():
    planning = Planning(foresight=None, corpora=None, backends=lambda strategy: {}, purse=None)
    doubts = {}
    for hour in (10, 12, 15, 18, 19):
        now = MONDAY + WEEK + hour * HOUR
        ahead = at_nine(hour, 10, now + DAY, refused="inference", refused_until=now + HOUR)
        doubts[hour] = dict(planning._doubts(ahead)).get("local")
    assert doubts[10] is doubts[12] is doubts[15] is None
    evening = MONDAY + WEEK + 17 * HOUR
    assert doubts[18] == evening + 2 * HOUR and doubts[19] == evening + 4 * HOUR


def test_the_shares_are_told_hour_by_hour():
    told = as_json(replace(LOCAL, habit=OFFICE))["habit"]
    assert len(told) == CELLS and told[10] > 0.9 and told[3] == 0.0
