"""Hours of the day, over midnight and over a change of clocks."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from elias.domain.fields import as_json
from elias.domain.hours import DailyHours

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
DAY = timedelta(days=1)
NIGHT = DailyHours(opens=time(22), closes=time(7), zone=UTC)


def test_a_night_ends_on_the_next_day():
    assert list(NIGHT.spans(NOON, NOON + 2 * DAY)) == [
        (datetime(2026, 11, 24, 22, tzinfo=UTC), datetime(2026, 11, 25, 7, tzinfo=UTC)),
        (datetime(2026, 11, 25, 22, tzinfo=UTC), datetime(2026, 11, 26, 7, tzinfo=UTC)),
    ]


@pytest.mark.parametrize(
    ("hour", "closed_until"), [(12, 22), (21, 22), (22, None), (3, None), (7, 22)], ids=lambda value: str(value)
)
def test_it_is_closed_until_it_opens_next(hour: int, closed_until: int | None):
    found = NIGHT.closed_until(NOON.replace(hour=hour))
    assert found == (None if closed_until is None else NOON.replace(hour=closed_until))


def test_hours_within_a_day_and_round_the_clock():
    work = DailyHours(opens=time(9), closes=time(17), zone=UTC)
    assert work.closed_until(NOON) is None and work.closed_until(NOON.replace(hour=17)) == NOON.replace(hour=9) + DAY
    always = DailyHours(opens=time(0), closes=time(0), zone=UTC)
    assert all(always.closed_until(NOON + timedelta(hours=hour)) is None for hour in range(24))


def test_clocks_that_change_keep_the_hours_of_the_wall():
    berlin = DailyHours(opens=time(22), closes=time(7), zone=ZoneInfo("Europe/Berlin"))
    before = datetime(2026, 10, 24, 12, tzinfo=UTC)
    [night, after] = berlin.spans(before, before + 2 * DAY)
    assert night[1] - night[0] == timedelta(hours=10) and after[1] - after[0] == timedelta(hours=9)


@pytest.mark.parametrize("text", ["22:00", "22-25:00", "late-early", ""])
def test_what_is_no_pair_of_times_is_refused(text: str):
    with pytest.raises(ValueError):
        DailyHours.parse(text)


def test_it_is_said_as_it_is_written():
    assert str(DailyHours.parse("22:00 - 07:30")) == "from 22:00 to 07:30"


def test_as_json_hours_are_text():
    assert as_json(NIGHT) == {"opens": "22:00", "closes": "07:00", "zone": "UTC"}
