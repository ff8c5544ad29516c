"""`--by` as people say it."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from elias.cli.deadline import deadline
from elias.errors import InputError

BERLIN = ZoneInfo("Europe/Berlin")
TUESDAY = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("friday", "2026-11-27T23:00"),
        ("Fri", "2026-11-27T23:00"),
        ("tuesday", "2026-11-24T23:00"),
        ("monday", "2026-11-30T23:00"),
        ("today", "2026-11-24T23:00"),
        ("tomorrow", "2026-11-25T23:00"),
        ("2026-12-01", "2026-12-01T23:00"),
        ("2026-12-01T18:00", "2026-12-01T17:00"),
        ("2026-12-01 18:00", "2026-12-01T17:00"),
        ("2026-12-01T18:00Z", "2026-12-01T18:00"),
        ("36h", "2026-11-26T00:00"),
        ("3d", "2026-11-27T12:00"),
        ("1.5 h", "2026-11-24T13:30"),
    ],
)
def test_a_moment_is_read_as_people_say_it(text, moment):
    assert deadline(text, TUESDAY, BERLIN) == datetime.fromisoformat(moment).replace(tzinfo=UTC)


def test_the_end_of_a_day_is_the_local_one_also_over_a_change_of_the_clocks():
    october = datetime(2026, 10, 23, 12, tzinfo=UTC)  # summer time ends on Sunday, the 25th
    assert deadline("saturday", october, BERLIN) == datetime(2026, 10, 24, 22, tzinfo=UTC)
    assert deadline("sunday", october, BERLIN) == datetime(2026, 10, 25, 23, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "soon", "fr", "32.12.2026", "2026-13-01", "3", "-3d", "d"])
def test_what_names_no_moment_is_one_clear_error(text):
    with pytest.raises(InputError, match="no moment") as raised:
        deadline(text, TUESDAY, BERLIN)
    assert "friday" in raised.value.fix


@pytest.mark.parametrize(
    "text",
    [
        "9999-12-31",
        "9999-12-31T23:59",
        "9999-12-31T23:59-10:00",
        "2126-11-24",
        "0001-01-01T00:00",
        "0001-01-01T00:00+10:00",
    ],
)
@pytest.mark.parametrize("zone", [BERLIN, None])
def test_what_the_calendar_has_no_room_for_is_one_clear_error(text, zone):
    with pytest.raises(InputError, match="more than a hundred years away") as raised:
        deadline(text, TUESDAY, zone)
    assert "3d" in raised.value.fix


@pytest.mark.parametrize("text", ["10000000d", "99999999999999h", "9" * 400 + "w"])
def test_a_span_that_leads_out_of_the_calendar_is_one_clear_error(text):
    with pytest.raises(InputError, match="longer than a hundred years") as raised:
        deadline(text, TUESDAY, BERLIN)
    assert "at most" in raised.value.fix


@pytest.mark.parametrize("text", ["2026-11-24T12:00Z", "2026-11-23", "2020-01-01", "0h"])
def test_what_is_over_is_refused(text):
    with pytest.raises(InputError, match="is over"):
        deadline(text, TUESDAY, BERLIN)
