"""What was seen of the week before is expected of the next, and fades."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elias.domain.habit import CELLS, HOURS, MEMORY, Habit

MONDAY = datetime(2026, 11, 30, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def office_week(habit: Habit, monday: datetime = MONDAY, opens: float = 9.0, closes: float = 17.0) -> Habit:
    for day in range(7):
        midnight = monday + day * DAY
        habit = habit.after(midnight, midnight + opens * HOUR, taken=False)
        habit = habit.after(midnight + opens * HOUR, midnight + closes * HOUR, taken=day < 5)
        habit = habit.after(midnight + closes * HOUR, midnight + DAY, taken=False)
    return habit


def test_office_hours_are_expected_on_the_next_working_day_and_not_on_the_days_off():
    habit, monday = office_week(Habit(zone=UTC)), MONDAY + 7 * DAY
    assert list(habit.usually_taken(monday, monday + 7 * DAY)) == [
        (monday + day * DAY + 9 * HOUR, monday + day * DAY + 17 * HOUR) for day in range(5)
    ]


def test_nobody_can_say_before_two_like_days_were_seen_and_then_the_third_is_expected():
    habit = Habit(zone=UTC)
    for day in range(2):
        assert list(habit.usually_taken(MONDAY, MONDAY + 7 * DAY)) == []
        at = MONDAY + day * DAY
        habit = habit.after(at, at + 9 * HOUR, taken=False).after(at + 9 * HOUR, at + 17 * HOUR, taken=True)
    wednesday = MONDAY + 2 * DAY
    expected = [(wednesday + 9 * HOUR, wednesday + 17 * HOUR)]
    assert list(habit.usually_taken(wednesday, wednesday + DAY)) == expected
    assert habit.share(5 * HOURS + 10) is None, "a Saturday was not seen"


def test_what_is_no_longer_so_is_forgotten_within_the_weeks_that_are_remembered():
    habit = office_week(Habit(zone=UTC))
    for week in range(1, 2 * int(MEMORY)):
        habit = habit.after(MONDAY + 7 * week * DAY, MONDAY + 7 * (week + 1) * DAY, taken=False)
    assert list(habit.usually_taken(MONDAY, MONDAY + 7 * DAY)) == [] and max(habit.seen) <= MEMORY


def test_hours_are_those_of_its_own_clock_also_after_that_was_changed():
    berlin = ZoneInfo("Europe/Berlin")
    habit = office_week(Habit(zone=berlin), datetime(2026, 10, 12, tzinfo=berlin).astimezone(UTC))
    winter = datetime(2026, 11, 2, tzinfo=berlin)
    [(begins, ends)] = habit.usually_taken(winter.astimezone(UTC), (winter + DAY).astimezone(UTC))
    assert (begins.astimezone(berlin).hour, ends.astimezone(berlin).hour) == (9, 17)


@pytest.mark.parametrize("taken", [True, False])
def test_parts_of_an_hour_count_as_parts(taken: bool):
    at = MONDAY + 10 * HOUR + timedelta(minutes=40)
    habit = Habit(zone=UTC).after(at, at + HOUR, taken=taken)
    assert (habit.seen[10], habit.seen[11]) == pytest.approx((1 / 3, 2 / 3)) and sum(habit.seen) == pytest.approx(1)
    assert habit.taken == (habit.seen if taken else (0.0,) * CELLS)


@given(
    st.lists(st.tuples(st.integers(1, 3000), st.booleans()), max_size=60),
    st.integers(0, 20000),
    st.integers(1, 20000),
)
def test_spells_are_in_order_apart_and_inside(spans: list[tuple[int, bool]], start: int, length: int):
    habit, at = Habit(zone=UTC), MONDAY
    for minutes, taken in spans:
        habit, at = habit.after(at, at + timedelta(minutes=minutes), taken=taken), at + timedelta(minutes=minutes)
    since = MONDAY + timedelta(minutes=start)
    until = since + timedelta(minutes=length)
    found = list(habit.usually_taken(since, until))
    assert all(since <= begins < ends <= until for begins, ends in found)
    assert all(ends < begins for (_, ends), (begins, _) in pairwise(found))
    shares = [habit.share(cell) for cell in range(CELLS)]
    assert all(share is None or 0 <= share <= 1 + 1e-9 for share in shares)
